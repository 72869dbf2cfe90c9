"""Reads from a replica; after a tenant's write from the primary, until the replica has what was written.

Where the primary's log stands is asked with each COMMIT, and how far a replica has come with the BEGIN of a read: both
in round trips that there are anyway. Who is told too little reads from the primary at once, and nobody waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import sqlalchemy as sa

from pgrecall.errors import Conflict, DatabaseError, MigrationRequired, PgRecallError, Unavailable
from pgrecall.postgres.scopes import Scope
from pgrecall.postgres.transactions import Gate, Transaction
from pgrecall.statements.replicas import REPLAYED, WRITTEN

logger = logging.getLogger("pgrecall")

R = TypeVar("R")

#: For so long after a tenant's write, or after the replica was found behind, it is not asked again.
SETTLE_SECONDS = 0.05
#: For so long a replica that can't be reached is not tried again.
RETRY_SECONDS = 30.0
#: Tenants whose last write is remembered one by one; beyond that, as one for all.
MOST_TENANTS = 10_000


class _Behind(Exception):
    """The replica has not replayed what the tenant wrote."""


class Standing:
    """What a database remembers of its replica: whether it answers, and what each tenant must find in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._written: dict[str | None, tuple[int, float]] = {}
        self._floor = 0
        self._down_until = 0.0
        self._down = False
        self._warned = False
        #: Whether the primary tells where its log stands; None until it was asked.
        self.told: bool | None = None

    def usable(self, scope: Scope) -> bool:
        """Whether to ask the replica at all."""
        if self.told is False:
            return False
        if scope.apart:
            self.unfit("its tables may be on Citus, where the coordinator's log says nothing of the workers' commits")
            return False
        now = time.monotonic()
        return now >= self._down_until and now >= self._written.get(scope.tenant, (0, 0.0))[1]

    def position(self, tenant: str | None) -> int:
        """Up to where the replica must have replayed the log; 0 where anything will do."""
        return max(self._floor, self._written.get(tenant, (0, 0.0))[0])

    def wrote(self, tenant: str | None, position: int) -> None:
        """Remember a write."""
        with self._lock:
            if len(self._written) >= MOST_TENANTS:
                self._floor = max(self._floor, *(at for at, _ in self._written.values()))
                self._written.clear()
            at = max(position, self._written.get(tenant, (0, 0.0))[0])
            self._written[tenant] = at, time.monotonic() + SETTLE_SECONDS

    def lost(self, exc: PgRecallError) -> None:
        """Leave the replica alone for a while; said once for as long as it stays away."""
        self._down_until = time.monotonic() + RETRY_SECONDS
        if not self._down:
            self._down = True
            logger.warning("the read replica does not answer (%s); reads go to the primary until it does", exc)

    def answered(self) -> None:
        """It does."""
        if self._down:
            self._down = False
            logger.info("the read replica answers again")

    def unfit(self, why: str) -> None:
        """Say once why a replica is of no use."""
        if not self._warned:
            self._warned = True
            logger.warning("read_url is not used: %s; every read goes to the primary", why)


class Replicated(Gate):
    """A gate to a primary that has a replica: `reader` opens transactions there."""

    def __init__(self, engine: sa.Engine, *, is_async: bool, reader: Callable[[], Gate], standing: Standing) -> None:
        super().__init__(engine, is_async=is_async)
        self._reader, self._standing = reader, standing

    @contextmanager
    def transaction(self, scope: Scope, what: str = "") -> Iterator[Transaction]:
        """As any gate's, on the primary; remembers where the log stood after it."""
        if self._standing.told is None:
            self._standing.told = self._tells()
        asks = WRITTEN if self._standing.told and not scope.apart else ""
        opened: Transaction | None = None
        try:
            with self._opened(scope, what, asks=asks) as tx:
                opened = tx
                yield tx
        finally:
            if opened is not None and opened.told is not None:
                self._standing.wrote(scope.tenant, opened.told)

    def _tells(self) -> bool:
        """Whether the primary can be asked, tried apart: an error behind a COMMIT would look like the write's own."""
        try:
            with self.bare() as tx:
                tx.rows(WRITTEN, {})
        except DatabaseError as exc:
            if isinstance(exc, Unavailable | Conflict):
                raise
            self._standing.unfit(f"the primary does not tell where its log stands ({exc})")
            return False
        return True

    def _read(self, scope: Scope, what: str, body: Callable[[Transaction], R]) -> R:
        """From the replica, where it answers and has what the tenant wrote; else from the primary."""
        if self._standing.usable(scope):
            try:
                return self._from_replica(scope, what, body)
            except _Behind:
                logger.debug("the replica is behind the tenant's last write: %s reads from the primary", what)
            except Conflict as exc:  # it replayed a change of what was being read
                logger.debug("the replica broke %s off (%s): it reads from the primary", what, exc)
            except (Unavailable, MigrationRequired) as exc:
                self._standing.lost(exc)
        with self._opened(scope, what, reads=True) as tx:
            return body(tx)

    def _from_replica(self, scope: Scope, what: str, body: Callable[[Transaction], R]) -> R:
        needed = self._standing.position(scope.tenant)
        with self._reader()._opened(scope, what, reads=True, first=REPLAYED if needed else "") as tx:
            if needed and (tx.told is None or tx.told < needed):
                self._standing.wrote(scope.tenant, needed)  # not asked again at once
                raise _Behind
            found = body(tx)
        self._standing.answered()
        return found
