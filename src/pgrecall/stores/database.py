"""`connect` and what it returns: a database, and handles on its tenants."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from pgrecall import embedded
from pgrecall.engines import Engines, parse_url
from pgrecall.errors import ConfigurationError, MigrationRequired
from pgrecall.maintenance import Maintained, Maintainer
from pgrecall.operations import registry
from pgrecall.operations.embedding import Embed
from pgrecall.operations.graphs import Routes
from pgrecall.stores.twins import R, Work, twins
from pgrecall.stores.vectors import PostgresVectorStore
from pgrecall.tenancy import Gate, Scope
from pgrecall.types import MAX_NAME_BYTES, CollectionInfo, DeleteReport, EmbedSpace, SpaceInfo, TenantInfo, check_text


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
        self._routes = Routes({})

    def __repr__(self) -> str:
        return f"<pgrecall.Database {'embedded' if self._embedded else 'remote'}>"

    def _run(self, work: Work[R]) -> R:
        return work(self._engines.sync_gate())

    async def _arun(self, work: Work[R]) -> R:
        return await greenlet_spawn(work, self._engines.async_gate())

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
            found = self._scopes[tenant] = Scope.of_tenant(tenant, self._probed(gate).vector_schema)
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

    def _delete_tenant(self, tenant_id: str) -> Work[DeleteReport]:
        """Delete everything of a tenant, verified, and leave a tombstone that refuses late writers."""
        check_text(tenant_id, "tenant", MAX_NAME_BYTES)
        return lambda gate: registry.delete_tenant(gate, self._scope(gate, tenant_id))

    delete_tenant, adelete_tenant = twins(_delete_tenant)

    def _tenant_info(self, tenant_id: str) -> Work[TenantInfo | None]:
        """What the registry says of one tenant, or None."""
        check_text(tenant_id, "tenant", MAX_NAME_BYTES)
        return lambda gate: registry.tenant(gate, self._scope(gate, tenant_id))

    tenant_info, atenant_info = twins(_tenant_info)

    def _spaces(self) -> Work[list[SpaceInfo]]:
        """The registry of spaces."""
        return lambda gate: registry.spaces(gate, self._scope(gate, "-"))

    spaces, aspaces = twins(_spaces)

    def _add_space(self, space: EmbedSpace) -> Work[int]:
        """Register a space ahead of its first use; returns its number."""
        if not isinstance(space, EmbedSpace):
            raise ConfigurationError(f"space is {type(space).__name__}; expected pgrecall.EmbedSpace")
        return lambda gate: self._space_id(gate, self._scope(gate, "-"), space)

    add_space, aadd_space = twins(_add_space)

    def _maintenance_gate(self) -> Gate:
        """The synchronous gate for work across tenants (`PGRECALL_MAINTENANCE_URL`)."""
        return self._maintenance.sync_gate()

    def _maintenance_scope(self, gate: Gate) -> Scope:
        """The scope for work across tenants, which `gate` is for."""
        if self._server is None:
            self._server = registry.probe(gate, maintenance=True)
        return Scope.of_maintenance(self._server.vector_schema)

    def _all_tenants(self, gate: Gate) -> list[TenantInfo]:
        return registry.tenants(gate, self._maintenance_scope(gate))

    def tenants(self) -> list[TenantInfo]:
        """Every tenant, tombstones included. Needs a login that may act as pgrecall_maintenance."""
        return self._all_tenants(self._maintenance_gate())

    async def atenants(self) -> list[TenantInfo]:
        """As `tenants`."""
        return await greenlet_spawn(self._all_tenants, self._maintenance.async_gate())

    def maintain(self, space_id: int | None = None, *, rebuild: bool = False) -> list[Maintained]:
        """Take waiting rows of large collections into their space's graph, or build a new one where that is cheaper.

        Searches are right, and rows can be written, before, meanwhile and after; a graph makes searches of
        large collections fast. `space_id` names one space; `rebuild` makes graphs anew. Needs the maintenance login
        and the owner's (`admin_url`), on a direct connection. Returns what was done, one for each space.
        Raises: ConfigurationError, Conflict where another process maintains, NotFound, Unavailable.
        """
        if self.admin_url is None:
            raise ConfigurationError(
                "indexes are made by the tables' owner, whose login is not known: connect(…, admin_url=…), or "
                "PGRECALL_ADMIN_URL. Without a graph every search is exact"
            )
        gate = self._maintenance_gate()
        self._maintenance_scope(gate)
        assert self._server is not None
        done = Maintainer(gate, self._server.vector_schema, self.admin_url).run(space_id, rebuild=rebuild)
        self._routes.known.clear()
        return done

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


class Tenant:
    """One tenant of a database. What is made from it is bound to it: no argument of a call can choose another."""

    def __init__(self, database: Database, tenant_id: str) -> None:
        self._database = database
        self._tenant_id = tenant_id

    @property
    def tenant_id(self) -> str:
        """The tenant's name."""
        return self._tenant_id

    def __repr__(self) -> str:
        return f"<pgrecall.Tenant {self.tenant_id!r}>"

    def _run(self, work: Work[R]) -> R:
        return self._database._run(work)

    async def _arun(self, work: Work[R]) -> R:
        return await self._database._arun(work)

    def vectors(
        self,
        collection: str = "default",
        space: EmbedSpace | None = None,
        *,
        embed: Embed | None = None,
        text_config: str | None = None,
    ) -> PostgresVectorStore:
        """The vector store of one collection; made in the database by its first write.

        `space` says what its vectors are made by; left out, it is the collection's own. `embed`, a function from a
        list of texts to their vectors (sync or async), embeds chunks that come without one, and its fingerprint is
        compared with the collection's on first use. `text_config`, a Postgres text search configuration such as
        "english", makes a new collection keep full text too (it halves the speed of ingest).
        """
        check_text(collection, "collection", MAX_NAME_BYTES)
        if space is not None and not isinstance(space, EmbedSpace):
            raise ConfigurationError(f"space is {type(space).__name__}; expected pgrecall.EmbedSpace")
        if text_config is not None:
            check_text(text_config, "text_config", MAX_NAME_BYTES)
        return PostgresVectorStore(
            self._database, self.tenant_id, collection, space, embed=embed, text_config=text_config
        )

    def _collections(self) -> Work[list[CollectionInfo]]:
        """The tenant's collections with their spaces and counts."""
        return lambda gate: registry.collections(gate, self._database._scope(gate, self.tenant_id))

    collections, acollections = twins(_collections)

    def _collection(self, name: str) -> Work[CollectionInfo | None]:
        """One collection, or None."""
        check_text(name, "collection", MAX_NAME_BYTES)

        def work(gate: Gate) -> CollectionInfo | None:
            return next(iter(registry.collections(gate, self._database._scope(gate, self.tenant_id), name)), None)

        return work

    collection, acollection = twins(_collection)

    def _drop_collection(self, name: str) -> Work[DeleteReport]:
        """Delete a collection with everything in it. Raises NotFound."""
        return self.vectors(name)._drop()

    drop_collection, adrop_collection = twins(_drop_collection)


def connect(
    url: str | sa.URL | None = None,
    *,
    engine: sa.Engine | None = None,
    async_engine: AsyncEngine | None = None,
    admin_url: str | sa.URL | None = None,
    maintenance_url: str | sa.URL | None = None,
    home: str | Path | None = None,
    require_known_tenants: bool = False,
    pool_size: int = 5,
    max_overflow: int = 10,
    pool_timeout: float = 30.0,
    connect_timeout: int = 10,
) -> Database:
    """Open a database: by URL, through a caller's own SQLAlchemy engine(s), or, with neither, the embedded Postgres.

    Settings come from the arguments, then from `PGRECALL_URL`, `PGRECALL_ADMIN_URL` (what needs the owner) and
    `PGRECALL_MAINTENANCE_URL` (work across tenants). With a URL nothing is connected before the first call, and the
    schema must be there (`pgrecall db upgrade`); the embedded server is started and migrated here, its data kept
    under `home` (or `PGRECALL_HOME`, or the user's data folder). Engines that a caller passes are never disposed of.

    `pool_size` connections are kept and `max_overflow` more may open, for each event loop and for the sync side;
    `pool_timeout` and `connect_timeout` are in seconds.

    Raises: ConfigurationError, EmbeddedServerError, MigrationRequired.
    """
    sizes: dict[str, Any] = {
        "pool_size": pool_size,
        "max_overflow": max_overflow,
        "pool_timeout": pool_timeout,
        "connect_timeout": connect_timeout,
    }
    given = engine is not None or async_engine is not None
    if given and url is not None:
        raise ConfigurationError("both a URL and an engine were given; pass one of them")
    if url is None and not given:
        url = os.environ.get("PGRECALL_URL") or None
    admin_url = admin_url or os.environ.get("PGRECALL_ADMIN_URL")
    maintenance_url = maintenance_url or os.environ.get("PGRECALL_MAINTENANCE_URL")
    admin = parse_url(admin_url) if admin_url else None
    server = None
    if not given and url is None:
        server = embedded.start(home)
        url = server.url
        # The embedded server is its user's own: one login for everything, whatever the environment says of others.
        admin, maintenance_url = parse_url(url), None
    try:
        engines = Engines(None if url is None else parse_url(url), engine=engine, async_engine=async_engine, **sizes)
        maintenance = Engines(parse_url(maintenance_url), **sizes) if maintenance_url else None
        database = Database(
            engines, maintenance, admin_url=admin, require_known_tenants=require_known_tenants, server=server
        )
        if server is not None:
            _migrate(database)
    except BaseException:
        if server is not None:
            server.release()
        raise
    return database


def _migrate(database: Database) -> None:
    try:
        database._run(database._probed)
    except MigrationRequired:
        from pgrecall import migrate, tuning  # Alembic takes 0.2 s to import, and is needed on the first run only

        assert database.admin_url is not None
        migrate.upgrade(database.admin_url)
        tuning.tune(database.admin_url)
        database._run(database._probed)
