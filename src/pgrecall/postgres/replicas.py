"""Reads from a replica; after a tenant's write from the primary, until the replica has replayed the write.

Each COMMIT also asks for the primary's log position, and the BEGIN of a read also asks how far the replica has come.
Both travel in round trips that are needed anyway. A read that finds the replica behind goes to the primary at once;
nothing waits for the replica.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from pgrecall.errors import Conflict, DatabaseError, MigrationRequired, PgRecallError, Unavailable
from pgrecall.postgres.scopes import Scope
from pgrecall.postgres.transactions import Gate, R, Transaction, WrappedGate
from pgrecall.statements.replicas import REPLAYED, WRITTEN

logger = logging.getLogger("pgrecall")

#: The replica is not asked for this long after a tenant's write, or after it was found to be behind.
SETTLE_SECONDS = 0.05
#: A replica that can't be reached is not tried again for this long.
RETRY_SECONDS = 30.0
#: Tenants whose last write is remembered individually; beyond that, one position stands for all.
MOST_TENANTS = 10_000


class _Behind(Exception):
    """The replica has not replayed what the tenant wrote."""


class ReplicaState:
    """What a database knows about its replica: whether it answers, and which log position each tenant needs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._written: dict[str | None, tuple[int, float]] = {}
        self._floor = 0
        self._down_until = 0.0
        self._down = False
        self._warned = False
        #: Whether the primary reports its log position; None until it was asked.
        self.reports_position: bool | None = None

    def usable(self, scope: Scope) -> bool:
        """Whether to ask the replica at all."""
        if self.reports_position is False:
            return False
        if scope.separate_messages:
            self.disable("its tables may be on Citus, where the coordinator's log does not show the workers' commits")
            return False
        now = time.monotonic()
        return now >= self._down_until and now >= self._written.get(scope.tenant, (0, 0.0))[1]

    def position(self, tenant: str | None) -> int:
        """The log position that the replica must have replayed; 0 if any will do."""
        return max(self._floor, self._written.get(tenant, (0, 0.0))[0])

    def wrote(self, tenant: str | None, position: int) -> None:
        """Remember the log position after a write."""
        with self._lock:
            if len(self._written) >= MOST_TENANTS:
                self._floor = max(self._floor, *(at for at, _ in self._written.values()))
                self._written.clear()
            at = max(position, self._written.get(tenant, (0, 0.0))[0])
            self._written[tenant] = at, time.monotonic() + SETTLE_SECONDS

    def lost(self, exc: PgRecallError) -> None:
        """Stop asking the replica for a while; logged once until it answers again."""
        self._down_until = time.monotonic() + RETRY_SECONDS
        if not self._down:
            self._down = True
            logger.warning("the read replica does not answer (%s); reads go to the primary until it does", exc)

    def answered(self) -> None:
        """Note that the replica answers."""
        if self._down:
            self._down = False
            logger.info("the read replica answers again")

    def disable(self, reason: str) -> None:
        """Log once why the replica can't be used."""
        if not self._warned:
            self._warned = True
            logger.warning("read_url is not used: %s; every read goes to the primary", reason)


class ReplicatedGate(WrappedGate):
    """A gate to a primary that has a replica. `reader` returns the replica's gate."""

    def __init__(self, primary: Gate, reader: Callable[[], Gate], state: ReplicaState) -> None:
        super().__init__(primary)
        self._reader, self._state = reader, state

    @property
    def outside(self) -> ReplicatedGate:
        """This gate: its transactions are always independent."""
        return self

    @contextmanager
    def transaction(self, scope: Scope, what: str = "") -> Iterator[Transaction]:
        """Open a transaction on the primary, and remember the log position after its COMMIT."""
        if self._state.reports_position is None:
            self._state.reports_position = self._primary_reports_position()
        with self.inner.transaction(scope, what) as tx:
            if self._state.reports_position and not scope.separate_messages:
                tx.after_commit(WRITTEN, partial(self._state.wrote, scope.tenant))
            yield tx

    def _primary_reports_position(self) -> bool:
        """Whether the primary can be asked. Tried on its own: an error after a COMMIT would look like the write's."""
        try:
            with self.bare() as tx:
                tx.rows(WRITTEN, {})
        except DatabaseError as exc:
            if isinstance(exc, Unavailable | Conflict):
                raise
            self._state.disable(f"the primary does not report its log position ({exc})")
            return False
        return True

    def read(self, scope: Scope, what: str, body: Callable[[Transaction], R]) -> R:
        """Read from the replica if it answers and has replayed what the tenant wrote; else from the primary."""
        if self._state.usable(scope):
            try:
                return self._read_from_replica(scope, what, body)
            except _Behind:
                logger.debug("the replica is behind the tenant's last write: %s reads from the primary", what)
            except Conflict as exc:  # it replayed a change of what was being read
                logger.debug("the replica cancelled %s (%s): it reads from the primary", what, exc)
            except (Unavailable, MigrationRequired) as exc:
                self._state.lost(exc)
        return self.inner.read(scope, what, body)

    def _read_from_replica(self, scope: Scope, what: str, body: Callable[[Transaction], R]) -> R:
        needed = self._state.position(scope.tenant)

        def checked(tx: Transaction) -> R:
            if needed:
                replayed = tx.begin(REPLAYED)
                if replayed is None or replayed < needed:
                    self._state.wrote(scope.tenant, needed)  # do not ask again immediately
                    raise _Behind
            return body(tx)

        found = self._reader().read(scope, what, checked)
        self._state.answered()
        return found
