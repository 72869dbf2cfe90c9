"""Searches that the server keeps: parsed and planned once for a connection, and then run by their name.

A third of a small search's time goes into parsing and planning, so those whose best plan is the same whoever asks are
prepared. Two things make that safe where it usually is not:

- Names are made of the statement's own text. Behind a pooler in transaction mode a name may be asked of a server
  connection that another process prepared on: what stands there under the name is the same statement.
- Where the server does not know the name, or knows it already, nothing was run. The read is run once more without, and
  this database keeps no statement from then on.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from typing import Any

import psycopg
from psycopg._preparing import Prepare, PrepareManager

logger = logging.getLogger("pgrecall")

#: Seconds after which a connection plans a statement anew: the tables may have grown, and nobody analyzed them.
LIFE = 60.0
#: Statements that a connection keeps.
MOST = 30
#: SQLSTATEs: the name is unknown; it is taken; what is kept does not fit the tables any more.
UNFIT = ("26000", "42P05", "0A000")


class Lost(Exception):
    """A kept statement could not be run; nothing was."""


class Keeping:
    """Whether a database's connections keep statements; one for all of them."""

    __slots__ = ("on",)

    def __init__(self, on: bool) -> None:
        self.on = on

    def install(self, connection: Any, _record: object = None) -> None:
        """Have a new connection keep what it is asked to. A listener of SQLAlchemy's pool."""
        raw = getattr(connection, "driver_connection", connection)
        if self.on and isinstance(getattr(raw, "_prepared", None), PrepareManager):
            raw._prepared = Kept(self)

    def stop(self, exc: psycopg.Error) -> None:
        """Keep nothing from now on, and say why, once."""
        if self.on:
            self.on = False
            logger.info("searches are planned anew each time from now on: %s (is a pooler between?)", exc)


class Kept(PrepareManager):
    """Psycopg's book of a connection's prepared statements: by name of their content, and only what is asked for."""

    prepare_threshold = sys.maxsize
    prepared_max = MOST

    def __init__(self, keeping: Keeping) -> None:
        super().__init__()
        self.keeping = keeping
        self._made: dict[Any, float] = {}

    def get(self, query: Any, prepare: bool | None = None) -> tuple[Prepare, bytes]:
        """Whether to prepare a statement, or that it is, and its name."""
        if not prepare:
            return Prepare.NO, b""
        key, now = self.key(query), time.monotonic()
        name = self._names.get(key)
        if name is not None and now - self._made[key] < LIFE:
            return Prepare.YES, name
        if name is not None:
            self._to_flush.append(self._names.pop(key))
        self._made = {held: self._made[held] for held in self._names} | {key: now}
        self._prepared_idx += 1
        digest = hashlib.sha256(repr(key).encode()).hexdigest()[:24]
        return Prepare.SHOULD, f"pgrecall_{digest}_{self._prepared_idx}".encode()

    def maybe_add_to_cache(self, query: Any, prep: Prepare, name: bytes) -> Any:
        """Only what is prepared: nothing else is counted."""
        return None if prep is Prepare.NO else super().maybe_add_to_cache(query, prep, name)


def keeps(raw: Any) -> bool:
    """Whether a connection keeps statements."""
    book = getattr(raw, "_prepared", None)
    return isinstance(book, Kept) and book.keeping.on


def stop(raw: Any, exc: psycopg.Error) -> None:
    """Have a connection's database keep nothing from now on."""
    raw._prepared.keeping.stop(exc)
