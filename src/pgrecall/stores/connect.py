"""`connect`: opens a database by URL, through a caller's engines, or the embedded one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from pgrecall import embedded
from pgrecall.errors import ConfigurationError, MigrationRequired
from pgrecall.postgres.engines import Engines, parse_url
from pgrecall.stores.backend import Backend
from pgrecall.stores.database import Database


def connect(
    url: str | sa.URL | None = None,
    *,
    engine: sa.Engine | None = None,
    async_engine: AsyncEngine | None = None,
    admin_url: str | sa.URL | None = None,
    maintenance_url: str | sa.URL | None = None,
    read_url: str | sa.URL | None = None,
    home: str | Path | None = None,
    require_known_tenants: bool = False,
    promote_on_upsert: bool = True,
    prepare: bool = True,
    pool_size: int = 5,
    max_overflow: int = 10,
    pool_timeout: float = 30.0,
    connect_timeout: int = 10,
) -> Database:
    """Open a database: by URL, through a caller's own SQLAlchemy engine(s), or, with neither, the embedded Postgres.

    Settings come from the arguments, then from `PGRECALL_URL`, `PGRECALL_ADMIN_URL` (what needs the owner),
    `PGRECALL_MAINTENANCE_URL` (work across tenants) and `PGRECALL_READ_URL` (a replica). With a URL nothing is
    connected before the first call, and the schema must be there (`pgrecall db upgrade`); the embedded server is
    started and migrated here, its data kept under `home` (or `PGRECALL_HOME`, or the user's data folder). Engines that
    a caller passes are never disposed of.

    `read_url` is a streaming replica, or several, with the same login: searches and other reads go there, unless it has
    not yet replayed what this database wrote for the tenant, or does not answer; then to the primary. Inside an atomic
    block everything goes to the primary.

    `promote_on_upsert`: after its commit a small upsert enters up to 100 waiting rows into the graph that its
    collection is in, four for each row that it wrote, at 1 to 3 ms each; off where maintenance runs often enough.

    `prepare`: the server keeps the plans of searches without a filter for each connection, a third of their time. Where
    a pooler loses them, searches go on without; False spares it the attempt. Never through a caller's engines.

    `pool_size` connections are kept and `max_overflow` more may open, for each event loop and for the sync side, and as
    many again to each of `maintenance_url` and `read_url`; `pool_timeout` and `connect_timeout` are in seconds.

    Raises: ConfigurationError, EmbeddedServerError, MigrationRequired.
    """
    sizes: dict[str, Any] = {
        "pool_size": pool_size,
        "max_overflow": max_overflow,
        "pool_timeout": pool_timeout,
        "connect_timeout": connect_timeout,
        "prepare": prepare,
    }
    given = engine is not None or async_engine is not None
    if given and url is not None:
        raise ConfigurationError("both a URL and an engine were given; pass one of them")
    if url is None and not given:
        url = os.environ.get("PGRECALL_URL") or None
    admin_url = admin_url or os.environ.get("PGRECALL_ADMIN_URL")
    maintenance_url = maintenance_url or os.environ.get("PGRECALL_MAINTENANCE_URL")
    read_url = os.environ.get("PGRECALL_READ_URL") if read_url is None else read_url  # "" is none, whatever that says
    admin = parse_url(admin_url) if admin_url else None
    server = None
    if not given and url is None:
        server = embedded.start(home)
        url = server.url
        # The embedded server is its user's own: one login for everything, whatever the environment says of others.
        admin, maintenance_url, read_url = parse_url(url), None, None
    try:
        replica = Engines(parse_url(read_url), **sizes) if read_url else None
        primary = None if url is None else parse_url(url)
        engines = Engines(primary, engine=engine, async_engine=async_engine, replica=replica, **sizes)
        maintenance = Engines(parse_url(maintenance_url), **sizes) if maintenance_url else None
        backend = Backend(
            engines,
            maintenance,
            admin_url=admin,
            require_known_tenants=require_known_tenants,
            promote_on_upsert=promote_on_upsert,
        )
        database = Database(backend, server)
        if server is not None:
            _migrate(database)
    except BaseException:
        if server is not None:
            server.release()
        raise
    return database


#: What adapters accept as their database: a `Database`, a URL, SQLAlchemy engines, or None for the embedded server.
DatabaseLike: TypeAlias = (
    Database | str | sa.URL | sa.Engine | AsyncEngine | tuple[sa.Engine | AsyncEngine, sa.Engine | AsyncEngine] | None
)


def as_database(connection: DatabaseLike = None) -> Database:
    """The database itself where one is given; else one opened by URL, through one or two engines, or the embedded one.

    One that is opened here is the caller's to close. Raises as `connect` does.
    """
    if isinstance(connection, Database):
        return connection
    if connection is None or isinstance(connection, str | sa.URL):
        return connect(connection)
    engines = connection if isinstance(connection, tuple) else (connection,)
    sync = [e for e in engines if isinstance(e, sa.Engine)]
    asynchronous = [e for e in engines if isinstance(e, AsyncEngine)]
    if len(sync) > 1 or len(asynchronous) > 1 or len(sync) + len(asynchronous) < len(engines):
        kinds = ", ".join(type(e).__name__ for e in engines)
        raise ConfigurationError(
            f"connection is {kinds}; expected a pgrecall.Database, a URL, a SQLAlchemy Engine or AsyncEngine, a pair "
            "of the two, or None for the embedded Postgres"
        )
    return connect(engine=next(iter(sync), None), async_engine=next(iter(asynchronous), None))


def _migrate(database: Database) -> None:
    try:
        database.backend.run(database.backend.server)
    except MigrationRequired:
        from pgrecall.admin import leakproof as tuning
        from pgrecall.admin import migrate  # Alembic takes 0.2 s to import, and is needed on the first run only

        assert database.admin_url is not None
        migrate.upgrade(database.admin_url)
        tuning.tune(database.admin_url)
        database.backend.run(database.backend.server)
