"""What `Database`, `Tenant` and every store share: the pools of one database, and what is known about it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.util import greenlet_spawn

from pgrecall.arguments import MAX_NAME_BYTES, check_text
from pgrecall.errors import ConfigurationError
from pgrecall.facts import Erasure, ErasureReport
from pgrecall.maintenance import Maintainer, aside
from pgrecall.operations import erasure, registry
from pgrecall.operations.chunks.promotion import Caretaker
from pgrecall.operations.erasure import Hook, Trails
from pgrecall.operations.registry import Place, SpaceIds
from pgrecall.operations.search.routes import Routes
from pgrecall.postgres.engines import Engines
from pgrecall.postgres.transactions import Gate, Ground, Scope
from pgrecall.stores.atomic import joined
from pgrecall.stores.twins import Work
from pgrecall.types import MaintenanceResult

R = TypeVar("R")

#: Tenants whose scope is remembered.
_MOST_SCOPES = 10_000


class Backend:
    """The pools of one database, its scopes, routes and space ids, and the hooks of erasures.

    One for each `Database`; the library's own modules use it, applications don't.
    """

    def __init__(
        self,
        engines: Engines,
        maintenance: Engines | None,
        *,
        admin_url: sa.URL | None,
        require_known_tenants: bool,
        promote_on_upsert: bool = True,
    ) -> None:
        self.engines = engines
        self.maintenance = maintenance or engines
        self.admin_url = admin_url
        self.require_known_tenants = require_known_tenants
        self.space_ids = SpaceIds()
        self.routes = Routes()
        self.caretaker = Caretaker(self.routes) if promote_on_upsert else None
        self.hooks: list[Hook] = []
        self._server: registry.Server | None = None
        self._scopes: dict[str, Scope] = {}

    def run(self, work: Work[R]) -> R:
        """Run work synchronously, in the caller's atomic block if there is one."""
        return work(joined(self.engines, is_async=False) or self.engines.sync_gate())

    async def arun(self, work: Work[R]) -> R:
        """As `run`, on the event loop."""
        return await greenlet_spawn(work, joined(self.engines, is_async=True) or self.engines.async_gate())

    def server(self, gate: Gate) -> registry.Server:
        """What the first call asks the database about itself. Raises MigrationRequired."""
        if self._server is None:
            self._server = registry.probe(gate)
        return self._server

    def scope(self, gate: Gate, tenant: str) -> Scope:
        """The transaction scope of a tenant."""
        found = self._scopes.get(tenant)
        if found is None:
            if len(self._scopes) >= _MOST_SCOPES:
                self._scopes.clear()
            found = self._scopes[tenant] = Scope.of_tenant(tenant, self.server(gate).ground)
        return found

    # Across tenants

    def maintenance_gate(self) -> Gate:
        """The synchronous gate of the maintenance login (`PGRECALL_MAINTENANCE_URL`)."""
        return self.maintenance.sync_gate()

    def maintenance_ground(self, gate: Gate) -> Ground:
        """The facts that every scope of this database needs; the maintenance role reads them if they are unknown."""
        if self._server is None:
            self._server = registry.probe(gate, maintenance=True)
        return self._server.ground

    def maintenance_scope(self, gate: Gate) -> Scope:
        """The scope for work across tenants."""
        return Scope.of_maintenance(self.maintenance_ground(gate))

    def maintenance_scope_of(self, gate: Gate) -> Callable[[str], Scope]:
        """A function from a tenant to the maintenance role's scope for that tenant."""
        return partial(Scope.of_maintenance_for, ground=self.maintenance_ground(gate))

    def trails(self, gate: Gate, tenant: str) -> Callable[[], Trails]:
        """A function that opens the trail of a tenant for an erasure, in the mode of `gate`."""
        if joined(self.engines, is_async=gate.is_async) is not None:
            raise ConfigurationError(
                "an erasure can't be part of an atomic block: it can't be rolled back, and its hooks and the trail are "
                "outside the block's transaction; call it before or after the block"
            )

        def opened() -> Trails:
            maintenance = self.maintenance.async_gate() if gate.is_async else self.maintenance.sync_gate()
            return Trails(maintenance, Scope.of_maintenance_for(tenant, self.server(gate).ground))

        return opened

    def call_hooks(self, gate: Gate, tenant: str, subject: str | None, report: ErasureReport) -> ErasureReport:
        """Call the hooks of `Database.on_erase`; the report names those that failed."""
        return erasure.call_hooks(gate, self.hooks, Erasure(tenant, subject, datetime.now(UTC)), report)

    def maintain(self, gate: Gate, space_id: int | None, **options: Any) -> list[MaintenanceResult]:
        """Maintain graphs as the tables' owner; see `Database.maintain`."""

        def run(owner: sa.URL, stopped: threading.Event) -> list[MaintenanceResult]:
            synchronous = self.maintenance_gate()
            ground = self.maintenance_ground(synchronous)
            return Maintainer(synchronous, ground, owner, stopped).run(space_id, **options)

        return self.as_owner(gate, "a graph", "maintained", run, ". Without a graph every search is exact")

    def as_owner(
        self, gate: Gate, what: str, done: str, work: Callable[[sa.URL, threading.Event], R], note: str = ""
    ) -> R:
        """Run work with the login of the tables' owner, outside the event loop; then forget what was known of it.

        Raises: ConfigurationError inside an atomic block, or if the owner's login is not known.
        """
        if gate.outside is not gate:
            raise ConfigurationError(
                f"{what} can't be {done} inside an atomic block, because it would wait for the block's transaction "
                "forever; call it after the block"
            )
        owner = self.admin_url
        if owner is None:
            raise ConfigurationError(
                f"{what} is {done} by the tables' owner, and the owner's login is not known; pass "
                f"connect(…, admin_url=…) or set PGRECALL_ADMIN_URL{note}"
            )
        try:
            return aside(gate, partial(work, owner))
        finally:
            self.forget()

    def forget(self) -> None:
        """Forget what is known about the database's schema, spaces and graphs; the next call asks again."""
        self._server = None
        self._scopes.clear()
        self.space_ids.forget()
        self.routes.forget()

    def close(self) -> None:
        """Close the connections that were opened here; idempotent."""
        self.engines.close()
        self.maintenance.close()


class TenantBound:
    """The base of what is bound to one tenant for life: how it runs its work, and in which scope."""

    def __init__(self, backend: Backend, tenant: str) -> None:
        self._backend = backend
        self._tenant_id = check_text(tenant, "tenant", MAX_NAME_BYTES)

    @property
    def backend(self) -> Backend:
        """The pools and caches behind this object; the library's own modules use it, applications don't."""
        return self._backend

    @property
    def tenant_id(self) -> str:
        """The name of the tenant that this object is bound to."""
        return self._tenant_id

    def _run(self, work: Work[R]) -> R:
        return self._backend.run(work)

    async def _arun(self, work: Work[R]) -> R:
        return await self._backend.arun(work)

    def _scope(self, gate: Gate) -> Scope:
        return self._backend.scope(gate, self._tenant_id)

    @property
    def _create_tenants(self) -> bool:
        return not self._backend.require_known_tenants


class CollectionBound(TenantBound):
    """The base of what is bound to one collection of a tenant."""

    def __init__(self, backend: Backend, tenant: str, collection: str) -> None:
        super().__init__(backend, tenant)
        self._collection = check_text(collection, "collection", MAX_NAME_BYTES)

    @property
    def collection(self) -> str:
        """The collection's name."""
        return self._collection

    def _place(self, gate: Gate) -> Place:
        return Place(self._scope(gate), self._collection)


def at_place(store: CollectionBound, work: Callable[[Gate, Place], R]) -> R:
    """Run work of the library's own modules on a store's collection, synchronously."""
    return store.backend.run(lambda gate: work(gate, store._place(gate)))
