"""The one place that opens transactions on tenant tables, and the only one that talks to the driver.

A transaction sets its role and tenant with literal SET LOCALs where it begins, so that row-level security bites
whoever is connected, nothing survives on a pooled connection, and pgbouncer in transaction mode and Citus both carry
it. BEGIN, these settings and the first statements go out in one pipeline; a read has its COMMIT there too, and so takes
a single round trip.

Sync and async have one body. Everything here runs as ordinary synchronous code; on the asynchronous side it runs in
a greenlet (SQLAlchemy's), where `wait` hands psycopg's awaitables to the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
import tenacity
from psycopg.pq import TransactionStatus
from sqlalchemy.util import await_only

from pgrecall import errors
from pgrecall.postgres import prepared as keeping
from pgrecall.postgres.driver import Connection, driver_errors, refuse_unfit
from pgrecall.postgres.scopes import Ground, Scope

__all__ = [
    "ATTEMPTS",
    "Gate",
    "Ground",
    "Params",
    "R",
    "Rows",
    "Scope",
    "Transaction",
    "logger",
]

logger = logging.getLogger("pgrecall")

R = TypeVar("R")
Params = Mapping[str, Any]
Rows = list[tuple[Any, ...]]
Statement = tuple[str, Params | None]

#: Collisions of concurrent writers are retried this often before Conflict reaches the caller.
ATTEMPTS = 6


class Transaction:
    """A transaction: runs statements on the driver's connection. Made by `Gate` only.

    It begins on the server with the first statements that it is given, in their round trip. `asks` is a query that goes
    with the COMMIT, in the same round trip; `told` is its answer.
    """

    __slots__ = (
        "_connection",
        "_gate",
        "_opening",
        "_reads",
        "apart",
        "asks",
        "keep",
        "kept",
        "open",
        "round_trips",
        "rows_seen",
        "tenant",
        "told",
    )

    def __init__(
        self, gate: Gate, connection: Connection, scope: Scope, opening: Sequence[str], *, reads: bool, asks: str = ""
    ) -> None:
        self._gate = gate
        self._connection = connection
        self._opening = opening
        self._reads = reads
        self.tenant = scope.tenant
        self.apart = scope.apart
        self.asks = asks
        self.told: Any = None
        self.keep: str | None = None
        self.kept = False
        self.open = True
        self.rows_seen = self.round_trips = 0

    @property
    def is_async(self) -> bool:
        """Whether it runs in the asynchronous mode."""
        return self._gate.is_async

    def begin(self, first: str = "") -> None:
        """Begin on the server in a round trip of its own, where that is not done; `first` is a query to go along."""
        if self._opening:
            cursors = self._send([(first, None)] if first else [])
            if first:
                [self.told] = self._gate.wait(cursors[-1].fetchone())

    def script(self, statements: Sequence[str]) -> None:
        """Run statements that take no parameters, in one round trip; none where there are none."""
        if statements:
            self.begin()
            self.round_trips += 1
            self._run(statements)

    def rows(self, statement: str, params: Params) -> Rows:
        """Run one statement and return its rows."""
        return self.many([(statement, params)])[0]

    def count(self, statement: str, params: Params) -> int:
        """Run one statement and return how many rows it touched."""
        [cursor] = self._send([(statement, params)])
        self.rows_seen += max(cursor.rowcount, 0)
        return int(cursor.rowcount)

    def many(self, work: Sequence[tuple[str, Params]], *, commit: bool = False) -> list[Rows]:
        """Run statements in one round trip, with COMMIT as the last where asked; returns the rows of each."""
        sent: list[Statement] = [*work]
        if commit:
            if not self._reads:
                # Whether a COMMIT was carried out can't be told from a connection that broke: what can't be sent again
                # goes out when it is known to be whole.
                self.begin()
            sent += [("COMMIT", None), *([(self.asks, None)] if self.asks else [])]
        cursors = self._send(sent)
        if commit:
            self.open = False
            if self.asks:
                [self.told] = self._gate.wait(cursors[-1].fetchone())
        found: list[Rows] = []
        for cursor in cursors[: len(work)]:
            # Results are in the client already: fetching them does not touch the network, in either mode.
            # `rownumber` tells whether there are any; `description` would build a Column of each, for 0.04 ms.
            fetched = cursor.rownumber is not None
            rows = self._gate.wait(cursor.fetchall()) if fetched else []
            self.rows_seen += len(rows) if fetched else max(cursor.rowcount, 0)
            found.append(rows)
        return found

    def last(self, statement: str, params: Params, *, keep: bool = False) -> Rows:
        """Run the transaction's last statement and COMMIT in the same round trip; returns its rows.

        `keep`: the server may keep its plan for the connection (see `keeping`), where this is a read of its own.
        """
        if keep and self._reads and not self.apart:
            self.keep = statement
        return self.many([(statement, params)], commit=True)[0]

    def commit(self) -> None:
        """End the transaction, keeping what it did."""
        if self._opening:  # nothing was done
            self.open = False
        else:
            self.many([], commit=True)

    def _send(self, work: Sequence[Statement]) -> list[Any]:
        """One round trip, of which the first brings the opening along; returns the cursors of `work`."""
        opening, self._opening = self._opening, ()
        while True:
            self.round_trips += 1
            try:
                if opening and not work:
                    self._run(opening)
                    return []
                sent = [*((statement, None) for statement in opening), *work]
                return self._exchange(sent)[len(opening) :]
            except psycopg.Error as exc:
                if self.kept and exc.sqlstate in keeping.UNFIT:
                    keeping.stop(self._connection.raw, exc)
                    raise keeping.Lost from exc
                # One that died unseen in the pool is replaced. Not `pool_pre_ping`, which is a round trip each time:
                # the first message is the ping, and of what it brings along nothing was kept.
                if (
                    not opening
                    or not isinstance(exc, psycopg.OperationalError)
                    or not self._connection.died_in_the_pool()
                ):
                    raise
                self._gate.replace(self._connection, exc)

    def _run(self, statements: Sequence[str]) -> None:
        """Run statements without parameters in one round trip.

        As one message, which costs the least; or `apart`, as messages of their own in a pipeline: Citus sends its
        workers the whole message that a SET LOCAL came in, and for each SET LOCAL in it once more.
        """
        if self.apart:
            self._exchange([(statement, None) for statement in statements])
        else:
            self._gate.wait(self._connection.raw.execute("; ".join(statements), prepare=False))

    def _exchange(self, work: Sequence[Statement]) -> list[Any]:
        raw = self._connection.raw
        keep = self.keep if keeping.keeps(raw) else None
        self.kept = keep is not None
        if len(work) == 1:
            return [self._gate.wait(raw.execute(*work[0], prepare=False))]
        if self.is_async:
            cursors: list[Any] = self._gate.wait(_apipelined(raw, work, keep))
            return cursors
        with raw.pipeline():
            return [raw.execute(statement, params, prepare=statement is keep) for statement, params in work]


async def _apipelined(raw: Any, work: Sequence[Statement], keep: str | None) -> list[Any]:
    async with raw.pipeline():
        return [await raw.execute(statement, params, prepare=statement is keep) for statement, params in work]


def _same(value: Any) -> Any:
    return value


class Gate:
    """Opens transactions on one engine, sync or async. What it is given it never disposes of."""

    def __init__(self, engine: sa.Engine, *, is_async: bool) -> None:
        self._engine = engine
        self.is_async = is_async
        self.wait: Callable[[Any], Any] = await_only if is_async else _same
        self.sleep: Callable[[float], None] = self._asleep if is_async else time.sleep

    @property
    def outside(self) -> Gate:
        """A gate whose transactions are their own, whatever is open here."""
        return self

    @staticmethod
    def _asleep(seconds: float) -> None:
        await_only(asyncio.sleep(seconds))

    @contextmanager
    def transaction(self, scope: Scope, what: str = "") -> Iterator[Transaction]:
        """Open a transaction as `scope`; commits at the end unless the body did, rolls back when it raises.

        Raises: Unavailable, Conflict, ConfigurationError, MigrationRequired, DatabaseError.
        """
        with self._opened(scope, what) as tx:
            yield tx

    def read(self, scope: Scope, what: str, body: Callable[[Transaction], R]) -> R:
        """What `body` returns, which only reads: in a single round trip where it ends with `Transaction.last`.

        A read replica may answer, where the database has one. Raises as `transaction` does.
        """
        try:
            return self._read(scope, what, body)
        except keeping.Lost:  # nothing is kept any more
            return self._read(scope, what, body)

    def _read(self, scope: Scope, what: str, body: Callable[[Transaction], R]) -> R:
        with self._opened(scope, what, reads=True) as tx:
            return body(tx)

    @contextmanager
    def _opened(
        self, scope: Scope, what: str, *, reads: bool = False, first: str = "", asks: str = ""
    ) -> Iterator[Transaction]:
        """As `transaction`; `first` is a query that goes with BEGIN, `asks` one with COMMIT; `tx.told` answers."""
        started = time.perf_counter()
        with driver_errors():
            connection = self._checked_out()
        begin, *settings = (*scope.opening, *scope.local)
        opening = (f"{begin} READ ONLY" if reads else begin, *settings)
        tx = Transaction(self, connection, scope, opening, reads=reads, asks=asks)
        try:
            with driver_errors():
                if first:
                    tx.begin(first)
                yield tx
                if tx.open:
                    tx.commit()
        except BaseException as exc:
            self._abandon(connection, exc)
            raise
        finally:
            self._give_back(connection)
        if logger.isEnabledFor(logging.DEBUG):
            took = (time.perf_counter() - started) * 1e3
            fields = {"operation": what, "tenant": scope.tenant, "rows": tx.rows_seen, "duration_ms": took}
            logger.debug("%s rows=%d ms=%.2f", what, tx.rows_seen, took, extra=fields)

    @contextmanager
    def bare(self) -> Iterator[Transaction]:
        """A transaction as the login itself: only to look at catalogs, before the roles are known to exist."""
        opening = ("BEGIN", "SET LOCAL search_path = pg_catalog, pg_temp")
        with self._opened(Scope(None, opening), "look", reads=True) as tx:
            yield tx

    def _checked_out(self) -> Connection:
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
                self.wait(connection.raw.set_autocommit(True))
        except BaseException as exc:
            self._abandon(connection, exc)
            self._give_back(connection)
            raise
        return connection

    def replace(self, connection: Connection, exc: psycopg.OperationalError) -> None:
        """Give a transaction another connection for one that turned out dead before anything ran on it."""
        self._abandon(connection, exc)
        self._give_back(connection)
        found = self._checked_out()
        for name in Connection.__slots__:
            setattr(connection, name, getattr(found, name))

    def _give_back(self, connection: Connection) -> None:
        if connection.pooled.is_valid:
            if not connection.was_autocommit:
                self.wait(connection.raw.set_autocommit(False))
            connection.pooled.close()

    def _abandon(self, connection: Connection, exc: BaseException) -> None:
        """Leave no transaction and no setting behind: roll back, or drop the connection where that is in doubt."""
        status = connection.raw.info.transaction_status
        if not isinstance(exc, Exception) or status not in (
            TransactionStatus.IDLE,
            TransactionStatus.INTRANS,
            TransactionStatus.INERROR,
        ):
            # Cancelled or interrupted in mid-flight: the next message on this connection could be anything.
            self._discard(connection.pooled, exc)
            return
        if status != TransactionStatus.IDLE:
            try:
                self.wait(connection.raw.execute("ROLLBACK", prepare=False))
            except psycopg.Error as failed:
                self._discard(connection.pooled, failed)

    @staticmethod
    def _discard(pooled: Any, exc: BaseException | None) -> None:
        if pooled.is_valid:
            # Finish the socket first: SQLAlchemy's own close of an async connection would have to await.
            pooled.driver_connection.pgconn.finish()
            pooled.invalidate(exc if isinstance(exc, Exception) else None)

    def retrying(self, body: Callable[[], R]) -> R:
        """Run `body` (whole transactions), again where it collided with another writer."""
        policy = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=0.02, max=1.0),
            retry=tenacity.retry_if_exception_type(errors.Conflict),
            sleep=self.sleep,
            reraise=True,
        )
        return policy(body)
