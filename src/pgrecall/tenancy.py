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
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa
import tenacity
from psycopg import AsyncClientCursor, ClientCursor, sql
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row
from sqlalchemy.util import await_only

from pgrecall import errors
from pgrecall.schema import APP_ROLE, MAINTENANCE_ROLE, TENANT_SETTING
from pgrecall.types import MAX_NAME_BYTES, check_text

logger = logging.getLogger("pgrecall")

R = TypeVar("R")
Params = Mapping[str, Any]
Rows = list[tuple[Any, ...]]

#: Collisions of concurrent writers are retried this often before Conflict reaches the caller.
ATTEMPTS = 6


@dataclass(frozen=True, slots=True)
class Scope:
    """Who a transaction acts as: `opening` sets the role, and the tenant it is bound to (None for maintenance).

    `local` sets further settings of the server, and `undo` puts them back where the transaction goes on.
    """

    tenant: str | None
    opening: str
    local: str = ""
    undo: str = ""

    @classmethod
    def of_tenant(cls, tenant: str, vector_schema: str) -> Scope:
        """The application's role, bound to one tenant."""
        check_text(tenant, "tenant", MAX_NAME_BYTES)
        return cls(tenant, _opening(APP_ROLE, tenant, vector_schema))

    @classmethod
    def of_maintenance(cls, vector_schema: str) -> Scope:
        """The role for work across tenants."""
        return cls(None, _opening(MAINTENANCE_ROLE, None, vector_schema))

    @classmethod
    def of_maintenance_for(cls, tenant: str, vector_schema: str) -> Scope:
        """The role for work across tenants, at work on one: its statements, and the policy of the trail, bind it."""
        check_text(tenant, "tenant", MAX_NAME_BYTES)
        return cls(tenant, _opening(MAINTENANCE_ROLE, tenant, vector_schema))

    def setting(self, settings: Mapping[str, str]) -> Scope:
        """The same, with these of the server's settings for the length of the transaction."""
        added = zip((self.local, self.undo), _local(tuple(settings.items())), strict=True)
        return Scope(self.tenant, self.opening, *("; ".join(filter(None, both)) for both in added))


@lru_cache(maxsize=512)
def _local(settings: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    """What sets these, and what undoes it. Kept: quoting a graph search's three took 0.4 of its client's 1.5 ms."""
    local = [sql.SQL("SET LOCAL {} = {}").format(_name(name), sql.Literal(value)) for name, value in settings]
    undo = [sql.SQL("SET LOCAL {} = DEFAULT").format(_name(name)) for name, _ in settings]
    return sql.SQL("; ").join(local).as_string(None), sql.SQL("; ").join(undo).as_string(None)


def _name(setting: str) -> sql.Composed:
    return sql.SQL(".").join(sql.Identifier(part) for part in setting.split("."))


def _opening(role: str, tenant: str | None, vector_schema: str) -> str:
    # Read committed by name: the locking below relies on it, and a server's or a caller's default may differ.
    # The search path is ours: pgvector's operators are found wherever it lives. Where others may create in its schema,
    # Postgres still takes theirs if they fit better, so statements call its own with exactly the types declared.
    # pg_temp comes last by name; unsaid, types would be looked for there first.
    parts = [
        sql.SQL("BEGIN ISOLATION LEVEL READ COMMITTED"),
        sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)),
        sql.SQL("SET LOCAL search_path = pg_catalog, {}, pg_temp").format(sql.Identifier(vector_schema)),
    ]
    if tenant is not None:
        parts.append(sql.SQL("SET LOCAL {} = {}").format(_name(TENANT_SETTING), sql.Literal(tenant)))
    return sql.SQL("; ").join(parts).as_string(None)


class Transaction:
    """An open transaction: runs statements on the driver's connection. Made by `Gate.transaction` only."""

    __slots__ = ("_raw", "_wait", "is_async", "open", "round_trips", "rows_seen", "tenant")

    def __init__(self, raw: Any, wait: Callable[[Any], Any], tenant: str | None, *, is_async: bool) -> None:
        self._raw = raw
        self._wait = wait
        self.tenant = tenant
        self.is_async = is_async
        self.open = True
        self.rows_seen, self.round_trips = 0, 1  # BEGIN is the first

    def script(self, statements: str) -> None:
        """Run statements that take no parameters, in one round trip; none where there are none."""
        if statements:
            self.round_trips += 1
            self._wait(self._raw.execute(statements, prepare=False))

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
        if len(work) == 1 and not commit:
            cursors = [self._wait(self._raw.execute(*work[0], prepare=False))]
        elif self.is_async:
            cursors = self._wait(_apipelined(self._raw, work, commit=commit))
        else:
            cursors = _pipelined(self._raw, work, commit=commit)
        self.open = not commit
        found: list[Rows] = []
        for cursor in cursors:
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
        self.round_trips += 1
        self._wait(self._raw.execute("COMMIT", prepare=False))
        self.open = False


def _pipelined(raw: Any, work: Sequence[tuple[str, Params]], *, commit: bool) -> list[Any]:
    with raw.pipeline():
        cursors = [raw.execute(statement, params, prepare=False) for statement, params in work]
        if commit:
            raw.execute("COMMIT", prepare=False)
    return cursors


async def _apipelined(raw: Any, work: Sequence[tuple[str, Params]], *, commit: bool) -> list[Any]:
    async with raw.pipeline():
        cursors = [await raw.execute(statement, params, prepare=False) for statement, params in work]
        if commit:
            await raw.execute("COMMIT", prepare=False)
    return cursors


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
        started = time.perf_counter()
        with driver_errors():
            pooled, was_autocommit = self._begin("; ".join(filter(None, (scope.opening, scope.local))))
        raw = pooled.driver_connection
        tx = Transaction(raw, self.wait, scope.tenant, is_async=self.is_async)
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
        opening = "BEGIN READ ONLY; SET LOCAL search_path = pg_catalog, pg_temp"
        with self.transaction(Scope(None, opening), "look") as tx:
            yield tx

    def _begin(self, opening: str) -> tuple[Any, bool]:
        """Check a connection out and begin on it; a pooled one that turns out dead is replaced.

        Not `pool_pre_ping`, which is a round trip each time: nothing has run yet, so BEGIN itself is the ping.
        """
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
                self.wait(raw.execute(opening, prepare=False))
            except BaseException as exc:
                dead = raw.closed
                self._abandon(pooled, raw, exc)
                self._give_back(pooled, raw, was_autocommit)
                if fresh or not dead or not isinstance(exc, psycopg.OperationalError):
                    raise
            else:
                pooled.info["pgrecall_used"] = True
                return pooled, was_autocommit

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
