"""The one place that opens transactions on tenant tables.

A transaction sets its role and tenant with literal SET LOCALs when it begins. So row-level security applies to every
login, nothing survives on a pooled connection, and pgbouncer in transaction mode and Citus both carry it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
import tenacity
from sqlalchemy.util import await_only

from pgrecall import errors
from pgrecall.postgres import prepared
from pgrecall.postgres.checkout import Checkout
from pgrecall.postgres.driver import driver_errors
from pgrecall.postgres.pipelines import PipelinedTransaction
from pgrecall.postgres.scopes import Scope
from pgrecall.postgres.transactions import R, Transaction

logger = logging.getLogger("pgrecall")

#: An operation that conflicts with concurrent writers is tried this many times before Conflict reaches the caller.
ATTEMPTS = 6


def _unchanged(value: Any) -> Any:
    return value


def _sleep_on_the_loop(seconds: float) -> None:
    await_only(asyncio.sleep(seconds))


class EngineGate:
    """A `Gate` on one SQLAlchemy engine, which it never disposes of."""

    def __init__(self, engine: sa.Engine, *, is_async: bool) -> None:
        self.is_async = is_async
        self.wait: Callable[[Any], Any] = await_only if is_async else _unchanged
        self.sleep: Callable[[float], None] = _sleep_on_the_loop if is_async else time.sleep
        self._checkout = Checkout(engine, self.wait)

    @property
    def outside(self) -> EngineGate:
        """This gate: its transactions are always independent."""
        return self

    @contextmanager
    def transaction(self, scope: Scope, what: str = "") -> Iterator[Transaction]:
        """Open a transaction as `scope`. It commits at the end of the block, and rolls back if the block raises.

        Raises: Unavailable, Conflict, ConfigurationError, MigrationRequired, DatabaseError.
        """
        with self._opened(scope, what, reads=False) as tx:
            yield tx

    def read(self, scope: Scope, what: str, body: Callable[[Transaction], R]) -> R:
        """Return what `body` returns, which must only read; one round trip if it ends with `Transaction.last`.

        `body` may run twice. Raises the same errors as `transaction`.
        """
        try:
            return self._read(scope, what, body)
        except prepared.StatementLost:  # nothing ran, and from now on nothing is prepared
            return self._read(scope, what, body)

    def _read(self, scope: Scope, what: str, body: Callable[[Transaction], R]) -> R:
        with self._opened(scope, what, reads=True) as tx:
            return body(tx)

    @contextmanager
    def bare(self) -> Iterator[Transaction]:
        """Open a read-only transaction as the login itself, to read catalogs before the roles are known to exist."""
        opening = ("BEGIN", "SET LOCAL search_path = pg_catalog, pg_temp")
        with self._opened(Scope(None, opening), "look", reads=True) as tx:
            yield tx

    @contextmanager
    def _opened(self, scope: Scope, what: str, *, reads: bool) -> Iterator[Transaction]:
        started = time.perf_counter()
        with driver_errors():
            connection = self._checkout.take()
        begin, *settings = (*scope.opening, *scope.local)
        opening = (f"{begin} READ ONLY" if reads else begin, *settings)
        tx = PipelinedTransaction(
            self._checkout, connection, scope, opening, reads=reads, is_async=self.is_async, wait=self.wait
        )
        try:
            with driver_errors():
                yield tx
                if tx.open:
                    tx.commit()
        except BaseException as exc:
            self._checkout.abandon(connection, exc)
            raise
        finally:
            self._checkout.give_back(connection)
        if logger.isEnabledFor(logging.DEBUG):
            took = (time.perf_counter() - started) * 1e3
            fields = {"operation": what, "tenant": scope.tenant, "rows": tx.rows_seen, "duration_ms": took}
            logger.debug("%s rows=%d ms=%.2f", what, tx.rows_seen, took, extra=fields)

    def retrying(self, body: Callable[[], R]) -> R:
        """Run `body`, which opens whole transactions, and run it again if it conflicted with another writer."""
        policy = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=0.02, max=1.0),
            retry=tenacity.retry_if_exception_type(errors.Conflict),
            sleep=self.sleep,
            reraise=True,
        )
        return policy(body)
