"""The one place that opens transactions on tenant tables, and the only one that talks to the driver.

A transaction sets its role and tenant with literal SET LOCALs in the message that begins it, so that row-level
security bites whoever is connected, nothing survives on a pooled connection, and pgbouncer in transaction mode and
Citus both carry it. A warm read takes two round trips: BEGIN with its settings, then the query and COMMIT in a
pipeline.

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
from psycopg import AsyncClientCursor, ClientCursor
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from sqlalchemy.util import await_only

from pgrecall import errors
from pgrecall.scopes import Ground, Scope

__all__ = [
    "ATTEMPTS",
    "Gate",
    "Ground",
    "Params",
    "R",
    "Rows",
    "Scope",
    "Transaction",
    "driver_errors",
    "logger",
    "wrapped",
]

logger = logging.getLogger("pgrecall")

R = TypeVar("R")
Params = Mapping[str, Any]
Rows = list[tuple[Any, ...]]

#: Collisions of concurrent writers are retried this often before Conflict reaches the caller.
ATTEMPTS = 6


class Transaction:
    """An open transaction: runs statements on the driver's connection. Made by `Gate` only.

    `asks` is a query that goes with the COMMIT, in the same round trip; `told` is its answer.
    """

    __slots__ = ("_raw", "_wait", "asks", "is_async", "open", "round_trips", "rows_seen", "tenant", "told")

    def __init__(
        self, raw: Any, wait: Callable[[Any], Any], tenant: str | None, *, is_async: bool, asks: str = ""
    ) -> None:
        self._raw = raw
        self._wait = wait
        self.tenant = tenant
        self.is_async = is_async
        self.asks = asks
        self.told: Any = None
        self.open = True
        self.rows_seen, self.round_trips = 0, 1  # BEGIN is the first

    def script(self, statements: Sequence[str], *, apart: bool) -> None:
        """Run statements that take no parameters, in one round trip; none where there are none."""
        if statements:
            self.round_trips += 1
            _run(self._raw, self._wait, statements, apart=apart, is_async=self.is_async)

    def rows(self, statement: str, params: Params) -> Rows:
        """Run one statement and return its rows."""
        return self.many([(statement, params)])[0]

    def count(self, statement: str, params: Params) -> int:
        """Run one statement and return how many rows it touched."""
        self.round_trips += 1
        cursor = self._wait(self._raw.execute(statement, params, prepare=False))
        self.rows_seen += max(cursor.rowcount, 0)
        return int(cursor.rowcount)

    def many(self, work: Sequence[tuple[str, Params]], *, commit: bool = False) -> list[Rows]:
        """Run statements in one round trip, with COMMIT as the last where asked; returns the rows of each."""
        self.round_trips += 1
        sent: list[tuple[str, Params | None]] = [*work]
        if commit:
            sent += [("COMMIT", None), *([(self.asks, None)] if self.asks else [])]
        cursors = _sent(self._raw, self._wait, sent, is_async=self.is_async)
        if commit:
            self.open = False
            if self.asks:
                [self.told] = self._wait(cursors[-1].fetchone())
        found: list[Rows] = []
        for cursor in cursors[: len(work)]:
            # Results are in the client already: fetching them does not touch the network, in either mode.
            # `rownumber` tells whether there are any; `description` would build a Column of each, for 0.04 ms.
            fetched = cursor.rownumber is not None
            rows = self._wait(cursor.fetchall()) if fetched else []
            self.rows_seen += len(rows) if fetched else max(cursor.rowcount, 0)
            found.append(rows)
        return found

    def last(self, statement: str, params: Params) -> Rows:
        """Run the transaction's last statement and COMMIT in the same round trip; returns its rows."""
        return self.many([(statement, params)], commit=True)[0]

    def commit(self) -> None:
        """End the transaction, keeping what it did."""
        self.many([], commit=True)


def _run(raw: Any, wait: Callable[[Any], Any], statements: Sequence[str], *, apart: bool, is_async: bool) -> Any:
    """Run statements without parameters in one round trip; returns the last one's cursor.

    As one message, which costs the least; or `apart`, as messages of their own in a pipeline: Citus sends its workers
    the whole message that a SET LOCAL came in, and for each SET LOCAL in it once more.
    """
    if apart:
        return _sent(raw, wait, [(statement, None) for statement in statements], is_async=is_async)[-1]
    cursor = wait(raw.execute("; ".join(statements), prepare=False))
    while cursor.nextset():
        pass
    return cursor


def _sent(
    raw: Any, wait: Callable[[Any], Any], statements: Sequence[tuple[str, Params | None]], *, is_async: bool
) -> list[Any]:
    """Run statements in one round trip; returns their cursors."""
    if len(statements) == 1:
        return [wait(raw.execute(*statements[0], prepare=False))]
    cursors: list[Any] = wait(_apipelined(raw, statements)) if is_async else _pipelined(raw, statements)
    return cursors


def _pipelined(raw: Any, statements: Sequence[tuple[str, Params | None]]) -> list[Any]:
    with raw.pipeline():
        return [raw.execute(statement, params, prepare=False) for statement, params in statements]


async def _apipelined(raw: Any, statements: Sequence[tuple[str, Params | None]]) -> list[Any]:
    async with raw.pipeline():
        return [await raw.execute(statement, params, prepare=False) for statement, params in statements]


def _refuse_unfit(raw: Any) -> None:
    """Refuse a new connection of a caller's engine that is set up to write or read other than what is sent here."""
    # Arrays go out as UTF-8 bytes: under another encoding the server would store other characters, without an error.
    if raw.info.encoding != "utf-8":
        raise errors.ConfigurationError(
            f"the engine's connections have the client encoding {raw.info.encoding!r}; pgrecall needs UTF-8: "
            "create_engine(…, connect_args={'client_encoding': 'utf8'})"
        )
    if raw.row_factory is not tuple_row or issubclass(raw.cursor_factory, ClientCursor | AsyncClientCursor):
        raise errors.ConfigurationError(
            "the engine's connections have a row_factory or cursor_factory of their own; pgrecall needs psycopg's "
            "tuple_row and server-side binding: give it an engine without them"
        )


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
        """What `body` returns, which only reads: a read replica may answer, where the database has one.

        Raises as `transaction` does.
        """
        with self.transaction(scope, what) as tx:
            return body(tx)

    @contextmanager
    def _opened(self, scope: Scope, what: str, *, first: str = "", asks: str = "") -> Iterator[Transaction]:
        """As `transaction`; `first` is a query that goes with BEGIN, `asks` one with COMMIT; `tx.told` answers."""
        started = time.perf_counter()
        with driver_errors():
            pooled, was_autocommit, told = self._begin(scope, first)
        raw = pooled.driver_connection
        tx = Transaction(raw, self.wait, scope.tenant, is_async=self.is_async, asks=asks)
        tx.told = told
        try:
            with driver_errors():
                yield tx
                if tx.open:
                    tx.commit()
        except BaseException as exc:
            self._abandon(pooled, raw, exc)
            raise
        finally:
            self._give_back(pooled, raw, was_autocommit)
        if logger.isEnabledFor(logging.DEBUG):
            took = (time.perf_counter() - started) * 1e3
            fields = {"operation": what, "tenant": scope.tenant, "rows": tx.rows_seen, "duration_ms": took}
            logger.debug("%s rows=%d ms=%.2f", what, tx.rows_seen, took, extra=fields)

    @contextmanager
    def bare(self) -> Iterator[Transaction]:
        """A transaction as the login itself: only to look at catalogs, before the roles are known to exist."""
        opening = ("BEGIN READ ONLY", "SET LOCAL search_path = pg_catalog, pg_temp")
        with self._opened(Scope(None, opening), "look") as tx:
            yield tx

    def _begin(self, scope: Scope, first: str) -> tuple[Any, bool, Any]:
        """Check a connection out and begin on it; a pooled one that turns out dead is replaced.

        Not `pool_pre_ping`, which is a round trip each time: nothing has run yet, so BEGIN itself is the ping.
        """
        opening = (*scope.opening, *scope.local, *([first] if first else []))
        while True:
            pooled = self._engine.raw_connection()
            raw: Any = pooled.driver_connection
            fresh = not pooled.info.get("pgrecall_used")
            was_autocommit = raw.autocommit
            try:
                if fresh:
                    _refuse_unfit(raw)
                if not was_autocommit:
                    self.wait(raw.set_autocommit(True))
                cursor = _run(raw, self.wait, opening, apart=scope.apart, is_async=self.is_async)
                told = self.wait(cursor.fetchone())[0] if first else None
            except BaseException as exc:
                dead = raw.closed
                self._abandon(pooled, raw, exc)
                self._give_back(pooled, raw, was_autocommit)
                if fresh or not dead or not isinstance(exc, psycopg.OperationalError):
                    raise
            else:
                pooled.info["pgrecall_used"] = True
                return pooled, was_autocommit, told

    def _give_back(self, pooled: Any, raw: Any, was_autocommit: bool) -> None:
        if pooled.is_valid:
            if not was_autocommit:
                self.wait(raw.set_autocommit(False))
            pooled.close()

    def _abandon(self, pooled: Any, raw: Any, exc: BaseException) -> None:
        """Leave no transaction and no setting behind: roll back, or drop the connection where that is in doubt."""
        status = raw.info.transaction_status
        if not isinstance(exc, Exception) or status not in (
            TransactionStatus.IDLE,
            TransactionStatus.INTRANS,
            TransactionStatus.INERROR,
        ):
            # Cancelled or interrupted in mid-flight: the next message on this connection could be anything.
            self._discard(pooled, exc)
            return
        if status != TransactionStatus.IDLE:
            try:
                self.wait(raw.execute("ROLLBACK", prepare=False))
            except psycopg.Error as failed:
                self._discard(pooled, failed)

    @staticmethod
    def _discard(pooled: Any, exc: BaseException) -> None:
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


@contextmanager
def driver_errors() -> Iterator[None]:
    """Turn the driver's errors into ours."""
    try:
        yield
    except psycopg.Error as exc:
        raise wrapped(exc) from exc
    except sa.exc.DBAPIError as exc:
        raise wrapped(exc.orig or exc) from exc
    except sa.exc.TimeoutError as exc:
        raise errors.Unavailable(
            f"no connection of the pool came free in time ({exc}); raise pool_size, or hold connections for less long"
        ) from exc


def wrapped(exc: BaseException) -> errors.PgRecallError:
    """The pgrecall error for a driver's error. Never Postgres' DETAIL: it quotes rows."""
    state = getattr(exc, "sqlstate", None) or ""
    diag = getattr(exc, "diag", None)
    text = (diag.message_primary if diag is not None else None) or " ".join(str(exc).split("\nDETAIL")[0].split())
    hint = f" {diag.message_hint}" if diag is not None and diag.message_hint else ""
    # 23503: the document or chunk that a write refers to was deleted between two of its statements.
    if state in ("40001", "40P01", "55P03", "23503"):
        return errors.Conflict(f"{text}; nothing of this call was kept: call again")
    if state in ("42P01", "3F000", "42703") or (state in ("42704", "22023") and "role" in text):
        return errors.MigrationRequired(
            f"{text}; this database is not at this version's schema. Run: pgrecall db upgrade"
        )
    if state == "42501":
        return errors.ConfigurationError(f"{text}.{hint} `pgrecall doctor` tells what this login lacks")
    if state in ("22021", "22P05"):
        return errors.InvalidInput(f"{text}; remove the character first")
    if (state[:2] in ("08", "57") and state != "57014") or (isinstance(exc, psycopg.OperationalError) and not state):
        return errors.Unavailable(f"the database can't be reached or closed the connection: {text}; call again")
    if state == "P0001":
        return errors.ConfigurationError(f"{text}.{hint}")
    return errors.DatabaseError(f"{text} (SQLSTATE {state or 'none'}){hint}")
