"""Connections checked out of a pool: taken, returned, replaced or discarded, without leaving state behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.pq import TransactionStatus

from pgrecall.postgres.driver import refuse_unfit


class Connection:
    """A connection that was checked out of the pool."""

    __slots__ = ("fresh", "pooled", "raw", "was_autocommit")

    def __init__(self, pooled: Any) -> None:
        self.pooled = pooled
        self.raw: Any = pooled.driver_connection
        self.fresh = not pooled.info.get("pgrecall_used")
        self.was_autocommit = self.raw.autocommit

    def died_in_the_pool(self) -> bool:
        """Whether the server closed the connection while it was idle. Reads the socket only: µs, no round trip."""
        if self.fresh:
            return False
        try:
            for _ in range(2):  # first the server's last message, then the end of the stream
                self.raw.pgconn.consume_input()
        except psycopg.OperationalError:
            return True
        return bool(self.raw.closed)


class Checkout:
    """Checks connections out of an engine's pool and returns them. Never disposes of the engine."""

    def __init__(self, engine: sa.Engine, wait: Callable[[Any], Any]) -> None:
        self._engine = engine
        self._wait = wait

    def take(self) -> Connection:
        """A live connection in autocommit mode."""
        while True:
            connection = Connection(self._engine.raw_connection())
            if not connection.died_in_the_pool():
                break
            self._discard(connection.pooled, None)
        try:
            if connection.fresh:
                refuse_unfit(connection.raw)
                connection.pooled.info["pgrecall_used"] = True
            if not connection.was_autocommit:
                self._wait(connection.raw.set_autocommit(True))
        except BaseException as exc:
            self.abandon(connection, exc)
            self.give_back(connection)
            raise
        return connection

    def give_back(self, connection: Connection) -> None:
        """Return a connection to the pool, in the transaction mode that it came in."""
        if connection.pooled.is_valid:
            if not connection.was_autocommit:
                self._wait(connection.raw.set_autocommit(False))
            connection.pooled.close()

    def replace(self, connection: Connection, exc: psycopg.OperationalError) -> None:
        """Put a live connection in the place of one that died before anything ran on it."""
        self.abandon(connection, exc)
        self.give_back(connection)
        found = self.take()
        for name in Connection.__slots__:
            setattr(connection, name, getattr(found, name))

    def abandon(self, connection: Connection, exc: BaseException) -> None:
        """Roll back, or discard the connection if its state is in doubt: no transaction and no setting stays."""
        status = connection.raw.info.transaction_status
        if not isinstance(exc, Exception) or status not in (
            TransactionStatus.IDLE,
            TransactionStatus.INTRANS,
            TransactionStatus.INERROR,
        ):
            # Cancelled or interrupted while a message was in flight: the next answer could belong to anything.
            self._discard(connection.pooled, exc)
            return
        if status != TransactionStatus.IDLE:
            try:
                self._wait(connection.raw.execute("ROLLBACK", prepare=False))
            except psycopg.Error as failed:
                self._discard(connection.pooled, failed)

    @staticmethod
    def _discard(pooled: Any, exc: BaseException | None) -> None:
        if pooled.is_valid:
            # Close the socket first: SQLAlchemy's own close of an async connection would have to await.
            pooled.driver_connection.pgconn.finish()
            pooled.invalidate(exc if isinstance(exc, Exception) else None)
