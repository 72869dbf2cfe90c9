"""A connection to one database, and what is done across its tenants."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self, get_args

import sqlalchemy as sa
from sqlalchemy.util import greenlet_spawn

from pgrecall import embedded
from pgrecall.arguments import MAX_NAME_BYTES, check_text, one_of, whole_number
from pgrecall.errors import ConfigurationError, InvalidInput
from pgrecall.facts import ErasureReport, SweepReport
from pgrecall.maintenance import MaintenanceProgress, spaces
from pgrecall.operations import erasure, registry
from pgrecall.operations.erasure import Hook
from pgrecall.postgres.transactions import Gate
from pgrecall.stores.backend import Backend
from pgrecall.stores.renamed import renamed
from pgrecall.stores.tenant import Tenant
from pgrecall.stores.twins import R, Work, twins
from pgrecall.types import EmbedSpace, Environment, GraphBuild, MaintenanceResult, SpaceInfo, SpaceUse, TenantInfo


class Database:
    """A connection to one Postgres database, made by `connect`. Close it with `close`, `aclose`, or a `with` block.

    Methods with an `a` before their name are asynchronous. Safe to share between threads, event loops and forked
    processes.
    """

    def __init__(self, backend: Backend, server: embedded.EmbeddedServer | None = None) -> None:
        self.backend = backend
        self._embedded = server

    def __repr__(self) -> str:
        return f"<pgrecall.Database {'embedded' if self._embedded else 'remote'}>"

    @property
    def admin_url(self) -> sa.URL | None:
        """The login of the tables' owner, or None if it is not known."""
        return self.backend.admin_url

    @property
    def require_known_tenants(self) -> bool:
        """Whether a write of an unregistered tenant is refused (UnknownTenant)."""
        return self.backend.require_known_tenants

    @property
    def is_embedded(self) -> bool:
        """Whether this is the embedded server's database."""
        return self._embedded is not None

    def _run(self, work: Work[R]) -> R:
        return self.backend.run(work)

    async def _arun(self, work: Work[R]) -> R:
        return await self.backend.arun(work)

    def tenant(self, tenant_id: str) -> Tenant:
        """A handle on one tenant. It costs nothing: nothing is read or written. Raises InvalidInput."""
        return Tenant(self.backend, tenant_id)

    def _create_tenant(self, tenant_id: str, *, reopen: bool = False) -> Work[bool]:
        """Register a tenant before its first write; returns True if it is new.

        A tenant that was deleted is refused (TenantErased) unless `reopen` removes its tombstone.
        """
        check_text(tenant_id, "tenant", MAX_NAME_BYTES)
        return lambda gate: registry.create_tenant(gate, self.backend.scope(gate, tenant_id), reopen=reopen)

    create_tenant, acreate_tenant = twins(_create_tenant)

    def _delete_tenant(self, tenant_id: str) -> Work[ErasureReport]:
        """Delete everything of a tenant, verify it, and leave a tombstone that refuses later writers.

        The trail keeps ids and salted hashes only; rewriting it needs the maintenance login. Then the hooks of
        `on_erase` are called. Returns the number of rows deleted from each table. Raises: ConfigurationError, before
        anything is deleted.
        """
        check_text(tenant_id, "tenant", MAX_NAME_BYTES)

        def work(gate: Gate) -> ErasureReport:
            scope, trails = self.backend.scope(gate, tenant_id), self.backend.trails(gate, tenant_id)
            report = erasure.erase_tenant(gate, scope, trails)
            return self.backend.call_hooks(gate, tenant_id, None, report)

        return work

    delete_tenant, adelete_tenant = twins(_delete_tenant)

    def on_erase(self, hook: Hook) -> None:
        """Register a function that erases data elsewhere.

        The function is called with an `Erasure` after every erasure of a subject or a tenant through this object. If it
        fails, the erasure stands and its report names the function; erase again to call the hooks again. An
        asynchronous function needs the a… methods.
        """
        if not callable(hook):
            raise InvalidInput(f"the hook is {type(hook).__name__}; expected a function of an Erasure")
        self.backend.hooks.append(hook)

    def _sweep_all(self, gate: Gate, batch: int, *, dry_run: bool) -> SweepReport:
        batch = whole_number(batch, "batch", 1)
        scope, scope_of = self.backend.maintenance_scope(gate), self.backend.maintenance_scope_of(gate)
        return erasure.sweep(gate, scope, scope_of, batch=batch, dry_run=dry_run)

    def sweep(self, *, batch: int = 1_000, dry_run: bool = False) -> SweepReport:
        """Purge expired rows, and facts that were forgotten longer ago than their grace time, of all tenants.

        Any number of processes may sweep at the same time: each transaction deletes up to `batch` rows and skips locked
        ones. `dry_run` only counts. Needs a login that may act as pgrecall_maintenance. Raises: ConfigurationError.
        """
        return self._sweep_all(self.backend.maintenance_gate(), batch, dry_run=dry_run)

    async def asweep(self, *, batch: int = 1_000, dry_run: bool = False) -> SweepReport:
        """As `sweep`."""
        return await greenlet_spawn(self._sweep_all, self.backend.maintenance.async_gate(), batch, dry_run=dry_run)

    def _tenant_info(self, tenant_id: str) -> Work[TenantInfo | None]:
        """The entry of a tenant in the registry, or None."""
        check_text(tenant_id, "tenant", MAX_NAME_BYTES)
        return lambda gate: registry.tenant(gate, self.backend.scope(gate, tenant_id))

    tenant_info, atenant_info = twins(_tenant_info)

    def _list_spaces(self) -> Work[list[SpaceInfo]]:
        """All registered spaces, with their numbers."""
        return lambda gate: registry.spaces(gate.outside, self.backend.scope(gate, "-"))

    list_spaces, alist_spaces = twins(_list_spaces)
    spaces, aspaces = renamed("spaces", list_spaces, alist_spaces)

    def _add_space(self, space: EmbedSpace) -> Work[int]:
        """Register a space before its first use; returns its number."""
        if not isinstance(space, EmbedSpace):
            raise ConfigurationError(f"space is {type(space).__name__}; expected pgrecall.EmbedSpace")
        return lambda gate: self.backend.space_ids.ensure(gate.outside, self.backend.scope(gate, "-"), space)

    add_space, aadd_space = twins(_add_space)

    def _drop_space(self, space_id: int) -> Work[EmbedSpace]:
        """Remove a space from the registry, with its graphs; returns what it was.

        Needs the owner's login (`admin_url`).
        Raises: NotFound; Refused while collections or memories use it; ConfigurationError; Conflict; Unavailable.
        """
        number = whole_number(space_id, "space_id", 1)
        return lambda gate: self.backend.as_owner(
            gate, "a space", "dropped", lambda owner, stopped: spaces.drop(owner, number, stopped)
        )

    drop_space, adrop_space = twins(_drop_space)

    def _use_of_spaces(self, gate: Gate) -> dict[int, SpaceUse]:
        return registry.space_use(gate, self.backend.maintenance_scope(gate))

    def space_use(self) -> dict[int, SpaceUse]:
        """How many collections and memories use each space, by its id; unused spaces are left out.

        Needs a login that may act as pgrecall_maintenance.
        """
        return self._use_of_spaces(self.backend.maintenance_gate())

    async def aspace_use(self) -> dict[int, SpaceUse]:
        """As `space_use`."""
        return await greenlet_spawn(self._use_of_spaces, self.backend.maintenance.async_gate())

    def _mark(self, environment: Environment) -> Work[str]:
        """Mark the database as "development", so that `reset` accepts it, or as "production"; returns its name.

        Needs the owner's login (`admin_url`). Raises: InvalidInput, ConfigurationError, Unavailable.
        """
        one_of(environment, get_args(Environment), "environment")

        def work(owner: sa.URL, _: object) -> str:
            from pgrecall.admin import environment as environments  # which needs Alembic: 0.2 s to import

            return environments.mark(owner, environment)

        return lambda gate: self.backend.as_owner(gate, "a database", "marked", work)

    mark, amark = twins(_mark)

    def _reset(self) -> Work[str | None]:
        """Drop all of pgrecall's tables, with the data of all tenants, and create empty ones; returns the revision.

        Only for the embedded database and those that `mark("development")` marked. Needs the owner's login
        (`admin_url`). Other processes must not use the database meanwhile.
        Raises: Refused; ConfigurationError; Conflict if a table stays locked for ten seconds; Unavailable.
        """

        def work(owner: sa.URL, _: object) -> str | None:
            from pgrecall.admin import environment as environments

            return environments.reset(owner, embedded=self.is_embedded)

        return lambda gate: self.backend.as_owner(gate, "a database", "reset", work)

    reset, areset = twins(_reset)

    def _all_tenants(self, gate: Gate) -> list[TenantInfo]:
        return registry.tenants(gate, self.backend.maintenance_scope(gate))

    def list_tenants(self) -> list[TenantInfo]:
        """All tenants, deleted ones included. Needs a login that may act as pgrecall_maintenance."""
        return self._all_tenants(self.backend.maintenance_gate())

    async def alist_tenants(self) -> list[TenantInfo]:
        """As `list_tenants`."""
        return await greenlet_spawn(self._all_tenants, self.backend.maintenance.async_gate())

    tenants, atenants = renamed("tenants", list_tenants, alist_tenants)

    def _maintain(
        self,
        space_id: int | None = None,
        *,
        rebuild: bool = False,
        wait: float = 0.0,
        build: GraphBuild | None = None,
        progress: MaintenanceProgress | None = None,
    ) -> Work[list[MaintenanceResult]]:
        """Maintain the graphs of large collections: add waiting rows to them, or build a new one if that is cheaper.

        A graph makes searches of large collections fast. Results are correct and writes work before, during and after
        maintenance. Needs the maintenance login and the owner's login (`admin_url`), both on a direct connection.

        Args:
            space_id: Maintain only this space; by default all of them.
            rebuild: Build new graphs, even if the present ones are good.
            wait: Seconds to wait for another process's maintenance; only one process maintains at a time.
            build: The memory, workers and parameters of a build; by default chosen from the server's settings.
            progress: A function of (what, done, total), called a few times per second.

        Returns:
            What was done, one `MaintenanceResult` per space.

        Raises:
            ConfigurationError: A login is missing, or this is inside an atomic block.
            Conflict: Another process is maintaining.
            InvalidInput: An argument is malformed.
            NotFound: The space does not exist.
            Unavailable: The database cannot be reached.
        """

        options: dict[str, Any] = {"rebuild": rebuild, "wait": wait, "build": build, "progress": progress}
        return lambda gate: self.backend.maintain(gate, space_id, **options)

    maintain, amaintain = twins(_maintain)

    def close(self) -> None:
        """Close the connections that were opened here, and release the embedded server; idempotent."""
        self.backend.close()
        if self._embedded is not None:
            self._embedded.release()

    async def aclose(self) -> None:
        """As `close`, for asynchronous code; it does not wait for anything."""
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
