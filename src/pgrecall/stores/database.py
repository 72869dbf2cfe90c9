"""A connection to one database, and what is done across tenants."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.util import greenlet_spawn

from pgrecall import embedded
from pgrecall.arguments import MAX_NAME_BYTES, check_text, whole_number
from pgrecall.errors import ConfigurationError, InvalidInput, NotFound
from pgrecall.facts import Erasure, ErasureReport, SweepReport
from pgrecall.maintenance import Maintainer, MaintenanceProgress, aside
from pgrecall.operations import erasure, registry
from pgrecall.operations.chunks import promotion
from pgrecall.operations.chunks.promotion import Caretaker
from pgrecall.operations.erasure import Hook, Trails
from pgrecall.operations.registry import Place
from pgrecall.operations.search import routes as graphs
from pgrecall.operations.search.routes import Routes
from pgrecall.postgres.engines import Engines
from pgrecall.postgres.transactions import Gate, Ground, Scope
from pgrecall.stores.atomic import joined
from pgrecall.stores.tenant import Tenant
from pgrecall.stores.twins import R, Work, twins
from pgrecall.types import EmbedSpace, GraphBuild, MaintenanceResult, OptimizeResult, SpaceInfo, TenantInfo


class Database:
    """A connection to one Postgres database; made by `connect`. Closes with `close`, `aclose`, or a `with` block.

    Safe to share between threads, event loops and forked processes.
    """

    def __init__(
        self,
        engines: Engines,
        maintenance: Engines | None,
        *,
        admin_url: sa.URL | None,
        require_known_tenants: bool,
        promote_on_upsert: bool = True,
        server: embedded.EmbeddedServer | None = None,
    ) -> None:
        self._engines = engines
        self._maintenance = maintenance or engines
        self._embedded = server
        self.admin_url = admin_url
        self.require_known_tenants = require_known_tenants
        self._server: registry.Server | None = None
        self._scopes: dict[str, Scope] = {}
        self._space_ids: dict[EmbedSpace, int] = {}
        self._routes = Routes()
        self._caretaker = Caretaker(self._routes) if promote_on_upsert else None
        self._hooks: list[Hook] = []

    def __repr__(self) -> str:
        return f"<pgrecall.Database {'embedded' if self._embedded else 'remote'}>"

    def _run(self, work: Work[R]) -> R:
        return work(joined(self._engines, is_async=False) or self._engines.sync_gate())

    async def _arun(self, work: Work[R]) -> R:
        return await greenlet_spawn(work, joined(self._engines, is_async=True) or self._engines.async_gate())

    def _probed(self, gate: Gate) -> registry.Server:
        """What was asked of the database once. Raises MigrationRequired."""
        if self._server is None:
            self._server = registry.probe(gate)
        return self._server

    def _scope(self, gate: Gate, tenant: str) -> Scope:
        """The transaction scope of a tenant."""
        found = self._scopes.get(tenant)
        if found is None:
            if len(self._scopes) >= 10_000:
                self._scopes.clear()
            found = self._scopes[tenant] = Scope.of_tenant(tenant, self._probed(gate).ground)
        return found

    def _space_id(self, gate: Gate, scope: Scope, space: EmbedSpace) -> int:
        """A space's number, registered if new. Remembered: statements check what they stand for."""
        if space not in self._space_ids:
            self._space_ids[space] = registry.ensure_space(gate, scope, space)
        return self._space_ids[space]

    def _known_space_id(self, gate: Gate, scope: Scope, space: EmbedSpace, *, afresh: bool = False) -> int:
        """A space's number, or -1 where it is not registered: no collection answers in it."""
        if afresh or space not in self._space_ids:
            found = registry.find_space(gate, scope, space)
            if found is None:
                return -1
            self._space_ids[space] = found
        return self._space_ids[space]

    def tenant(self, tenant_id: str) -> Tenant:
        """A handle on one tenant; nothing is read or written. Raises InvalidInput."""
        return Tenant(self, check_text(tenant_id, "tenant", MAX_NAME_BYTES))

    def _create_tenant(self, tenant_id: str, *, reopen: bool = False) -> Work[bool]:
        """Register a tenant ahead of its first write; True where it is new.

        A deleted one is refused (TenantErased), unless `reopen` lifts its tombstone.
        """
        check_text(tenant_id, "tenant", MAX_NAME_BYTES)
        return lambda gate: registry.create_tenant(gate, self._scope(gate, tenant_id), reopen=reopen)

    create_tenant, acreate_tenant = twins(_create_tenant)

    def _delete_tenant(self, tenant_id: str) -> Work[ErasureReport]:
        """Delete everything of a tenant, verified, and leave a tombstone that refuses late writers.

        Its trail of events keeps ids and salted hashes only, for which the login for maintenance is needed where there
        is one. Then the hooks of `on_erase` are called.
        """
        check_text(tenant_id, "tenant", MAX_NAME_BYTES)

        def work(gate: Gate) -> ErasureReport:
            report = erasure.erase_tenant(gate, self._scope(gate, tenant_id), self._trails(gate, tenant_id))
            return self._call_hooks(gate, tenant_id, None, report)

        return work

    delete_tenant, adelete_tenant = twins(_delete_tenant)

    def on_erase(self, hook: Hook) -> None:
        """Register what erases elsewhere: called with an `Erasure` after each erasure of a subject or tenant here.

        A hook that fails is named in the report; the erasure stands, and calling it again calls the hooks again.
        An asynchronous one goes with the a… methods.
        """
        if not callable(hook):
            raise InvalidInput(f"the hook is {type(hook).__name__}; expected a function of an Erasure")
        self._hooks.append(hook)

    def _call_hooks(self, gate: Gate, tenant: str, subject: str | None, report: ErasureReport) -> ErasureReport:
        return erasure.call_hooks(gate, self._hooks, Erasure(tenant, subject, datetime.now(UTC)), report)

    def _trails(self, gate: Gate, tenant: str) -> Callable[[], Trails]:
        """How the trail of a tenant is altered, in the mode of `gate`."""

        if joined(self._engines, is_async=gate.is_async) is not None:
            raise ConfigurationError(
                "an erasure is not part of an atomic block: it can't be taken back, and its hooks and the trail are "
                "beyond the block's transaction; call it before or after the block"
            )

        def opened() -> Trails:
            maintenance = self._maintenance.async_gate() if gate.is_async else self._maintenance.sync_gate()
            return Trails(maintenance, Scope.of_maintenance_for(tenant, self._probed(gate).ground))

        return opened

    def _sweep_all(self, gate: Gate, batch: int, *, dry_run: bool) -> SweepReport:
        across = self._maintenance_scope(gate)
        assert self._server is not None
        of_tenant = partial(Scope.of_maintenance_for, ground=self._server.ground)
        return erasure.sweep(gate, across, of_tenant, batch=whole_number(batch, "batch", 1), dry_run=dry_run)

    def sweep(self, *, batch: int = 1_000, dry_run: bool = False) -> SweepReport:
        """Purge what expired and what was forgotten longer ago than its grace time, of all tenants.

        `batch` rows are one transaction, which passes over what others hold: any number of processes may sweep at once.
        `dry_run` only counts. Needs a login that may act as pgrecall_maintenance. Raises: ConfigurationError.
        """
        return self._sweep_all(self._maintenance_gate(), batch, dry_run=dry_run)

    async def asweep(self, *, batch: int = 1_000, dry_run: bool = False) -> SweepReport:
        """As `sweep`."""
        return await greenlet_spawn(self._sweep_all, self._maintenance.async_gate(), batch, dry_run=dry_run)

    def _tenant_info(self, tenant_id: str) -> Work[TenantInfo | None]:
        """What the registry says of one tenant, or None."""
        check_text(tenant_id, "tenant", MAX_NAME_BYTES)
        return lambda gate: registry.tenant(gate, self._scope(gate, tenant_id))

    tenant_info, atenant_info = twins(_tenant_info)

    def _spaces(self) -> Work[list[SpaceInfo]]:
        """The registry of spaces."""
        return lambda gate: registry.spaces(gate.outside, self._scope(gate, "-"))

    spaces, aspaces = twins(_spaces)

    def _add_space(self, space: EmbedSpace) -> Work[int]:
        """Register a space ahead of its first use; returns its number."""
        if not isinstance(space, EmbedSpace):
            raise ConfigurationError(f"space is {type(space).__name__}; expected pgrecall.EmbedSpace")
        return lambda gate: self._space_id(gate.outside, self._scope(gate, "-"), space)

    add_space, aadd_space = twins(_add_space)

    def _maintenance_gate(self) -> Gate:
        """The synchronous gate for work across tenants (`PGRECALL_MAINTENANCE_URL`)."""
        return self._maintenance.sync_gate()

    def _maintenance_scope(self, gate: Gate) -> Scope:
        """The scope for work across tenants, which `gate` is for."""
        return Scope.of_maintenance(self._maintenance_ground(gate))

    def _maintenance_ground(self, gate: Gate) -> Ground:
        if self._server is None:
            self._server = registry.probe(gate, maintenance=True)
        return self._server.ground

    def _all_tenants(self, gate: Gate) -> list[TenantInfo]:
        return registry.tenants(gate, self._maintenance_scope(gate))

    def tenants(self) -> list[TenantInfo]:
        """Every tenant, tombstones included. Needs a login that may act as pgrecall_maintenance."""
        return self._all_tenants(self._maintenance_gate())

    async def atenants(self) -> list[TenantInfo]:
        """As `tenants`."""
        return await greenlet_spawn(self._all_tenants, self._maintenance.async_gate())

    def _maintain(
        self,
        space_id: int | None = None,
        *,
        rebuild: bool = False,
        wait: float = 0.0,
        build: GraphBuild | None = None,
        progress: MaintenanceProgress | None = None,
    ) -> Work[list[MaintenanceResult]]:
        """Take waiting rows of large collections into their space's graph, or build a new one where that is cheaper.

        Searches are right, and rows can be written, before, meanwhile and after; a graph makes searches of
        large collections fast. `space_id` names one space; `rebuild` makes graphs anew. One process maintains at a
        time: another one waits `wait` seconds for it. `build` says what a build may take; `progress(what, done, total)`
        is called a few times a second. Needs the maintenance login and the owner's (`admin_url`), on a direct
        connection. Returns what was done, one for each space.
        Raises: ConfigurationError, Conflict where another process maintains, InvalidInput, NotFound, Unavailable.
        """

        options: dict[str, Any] = {"rebuild": rebuild, "wait": wait, "build": build, "progress": progress}
        return lambda gate: self._maintaining(gate, space_id, **options)

    maintain, amaintain = twins(_maintain)

    def _maintaining(self, gate: Gate, space_id: int | None, **options: Any) -> list[MaintenanceResult]:
        if gate.outside is not gate:
            raise ConfigurationError(
                "a graph is not maintained inside an atomic block: the build would wait for the block's transaction, "
                "for ever; do it after the block"
            )
        admin = self.admin_url
        if admin is None:
            raise ConfigurationError(
                "indexes are made by the tables' owner, whose login is not known: connect(…, admin_url=…), or "
                "PGRECALL_ADMIN_URL. Without a graph every search is exact"
            )

        def run(stopped: threading.Event) -> list[MaintenanceResult]:
            synchronous = self._maintenance_gate()
            ground = self._maintenance_ground(synchronous)
            return Maintainer(synchronous, ground, admin, stopped).run(space_id, **options)

        try:
            return aside(gate, run)
        finally:
            self._routes.forget()

    def _optimize(self, gate: Gate, place: Place, wait: float) -> OptimizeResult:
        held = registry.find_collection(gate, place)
        if held is None:
            raise NotFound(f"collection {place.collection!r} does not exist: there is nothing to optimize")
        space_id = self._known_space_id(gate, place.scope, held.space, afresh=True)
        route = graphs.look(gate, place, held.space, space_id)
        if self.admin_url is None or route.rows <= graphs.exact_max(held.space.dim):
            return promotion.optimize(gate, place, held.space, space_id, route)
        [done] = self._maintaining(gate, space_id, wait=wait)
        return promotion.optimized(gate, place, space_id, done.generation, done.action)

    def close(self) -> None:
        """Close the connections that were made here, and let go of the embedded server; idempotent."""
        self._engines.close()
        self._maintenance.close()
        if self._embedded is not None:
            self._embedded.release()

    async def aclose(self) -> None:
        """As `close`, for asynchronous code; closing waits for nothing."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
