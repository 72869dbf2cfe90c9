"""Prepared searches: parsed and planned once for each connection, then run by name.

Parsing and planning take a third of a small search's time. Searches with the same best plan for every tenant are
prepared. Two rules make this safe:

- Names are made from the statement's own text. Behind a pooler in transaction mode, a name may reach a server
  connection on which another process prepared it: the statement under that name is the same.
- If the server does not know the name, or the name is taken, nothing ran. The read runs once more unprepared, and
  this database prepares nothing from then on.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import psycopg

logger = logging.getLogger("pgrecall")

#: SQLSTATEs: the name is unknown; the name is taken; the prepared plan no longer fits the tables.
UNUSABLE = ("26000", "42P05", "0A000")


class StatementLost(Exception):
    """A prepared statement could not be run; nothing was executed."""


class Preparing:
    """Whether a database's connections prepare statements: one switch for all of them."""

    __slots__ = ("on",)

    def __init__(self, on: bool) -> None:
        self.on = on

    def install(self, connection: Any, _record: object = None) -> None:
        """Let a new connection prepare the statements that ask for it. A listener of SQLAlchemy's pool."""
        raw = getattr(connection, "driver_connection", connection)
        if self.on and (manager := _manager()) is not None and isinstance(getattr(raw, "_prepared", None), manager[0]):
            raw._prepared = manager[1](self)

    def stop(self, exc: psycopg.Error) -> None:
        """Prepare nothing from now on, and log the reason once."""
        if self.on:
            self.on = False
            logger.info(
                "searches are no longer prepared: %s (does a connection pooler lose prepared statements?)",
                exc,
            )


@functools.cache
def _manager() -> tuple[type, Callable[[Preparing], Any]] | None:
    """Psycopg's manager of prepared statements and ours; None if psycopg's private module is not as expected."""
    try:
        from psycopg._preparing import PrepareManager

        from pgrecall.postgres.prepare_manager import ContentNamedManager
    except (ImportError, AttributeError) as exc:
        logger.info("searches are not prepared with psycopg %s: %s", psycopg.__version__, exc)
        return None
    return PrepareManager, ContentNamedManager


def prepares(raw: Any) -> bool:
    """Whether a connection prepares statements."""
    preparing = getattr(getattr(raw, "_prepared", None), "preparing", None)
    return preparing is not None and bool(preparing.on)


def stop(raw: Any, exc: psycopg.Error) -> None:
    """Make a connection's database prepare nothing from now on."""
    raw._prepared.preparing.stop(exc)
