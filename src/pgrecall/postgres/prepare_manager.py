"""Psycopg's manager of a connection's prepared statements, with names made from the statements' text.

Psycopg has no public interface for this. `prepared` imports this module when the first connection opens; if the private
module has changed, the import fails with ImportError and nothing is prepared.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import time
from collections.abc import Callable
from typing import Any

from psycopg._preparing import Prepare, PrepareManager

#: A connection plans a statement again after this many seconds: its tables may have grown without an ANALYZE.
MAX_AGE_SECONDS = 60.0
#: Statements that a connection keeps prepared.
MAX_STATEMENTS = 30

_METHODS = {
    "key": ("query",),
    "get": ("self", "query", "prepare"),
    "maybe_add_to_cache": ("self", "query", "prep", "name"),
}
_ATTRIBUTES = ("_names", "_prepared_idx", "_to_flush")


def _check_psycopg() -> None:
    """Raise ImportError unless psycopg's manager has the members that are used here."""
    manager = PrepareManager()
    known = all(hasattr(manager, name) for name in _ATTRIBUTES)
    known = known and {"NO", "YES", "SHOULD"} <= set(Prepare.__members__)
    for name, parameters in _METHODS.items():
        method: Callable[..., Any] | None = getattr(PrepareManager, name, None)
        known = known and method is not None and tuple(inspect.signature(method).parameters) == parameters
    if not known:
        raise ImportError("psycopg's PrepareManager has changed")


_check_psycopg()


class ContentNamedManager(PrepareManager):
    """Prepares only the statements that ask for it, under names made from their text and parameter types."""

    prepare_threshold = sys.maxsize
    prepared_max = MAX_STATEMENTS

    def __init__(self, preparing: object) -> None:
        super().__init__()
        self.preparing = preparing
        self._prepared_at: dict[Any, float] = {}

    def get(self, query: Any, prepare: bool | None = None) -> tuple[Prepare, bytes]:
        """Whether to prepare a statement, or whether it is prepared already, and its name."""
        if not prepare:
            return Prepare.NO, b""
        key, now = self.key(query), time.monotonic()
        name = self._names.get(key)
        if name is not None and now - self._prepared_at[key] < MAX_AGE_SECONDS:
            return Prepare.YES, name
        if name is not None:
            self._to_flush.append(self._names.pop(key))
        self._prepared_at = {held: self._prepared_at[held] for held in self._names} | {key: now}
        self._prepared_idx += 1
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:24]
        return Prepare.SHOULD, f"pgrecall_{digest}_{self._prepared_idx}".encode()

    def maybe_add_to_cache(self, query: Any, prep: Prepare, name: bytes) -> Any:
        """Remember a prepared statement; statements that are not prepared are not counted."""
        return None if prep is Prepare.NO else super().maybe_add_to_cache(query, prep, name)
