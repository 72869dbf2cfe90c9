"""`connect` opens a database: by URL, through a caller's engines, or the embedded one."""

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
    """Open a database: by URL, through the caller's own SQLAlchemy engines, or, with neither, the embedded Postgres.

    With a URL or engines nothing is connected before the first call, and the schema must exist (`pgrecall db upgrade`).
    The embedded server is started and migrated here.

    Args:
        url: The application's login, such as ``postgresql://user:password@host:5432/database``. By default the
            environment variable `PGRECALL_URL`; without it, the embedded server.
        engine: A SQLAlchemy engine to use instead of a URL. It is never disposed of.
        async_engine: The same for asynchronous calls. Either engine, or both, can be given.
        admin_url: The login of the tables' owner, for what needs it, such as building graphs. By default
            `PGRECALL_ADMIN_URL`.
        maintenance_url: A login that may act as pgrecall_maintenance, for work across tenants. By default
            `PGRECALL_MAINTENANCE_URL`, otherwise the application's login.
        read_url: A streaming replica, or several, with the application's login. Reads go there, unless the replica has
            not yet replayed what this process wrote for the tenant, or does not answer. Reads inside an atomic block go
            to the primary. By default `PGRECALL_READ_URL`; "" disables it.
        home: The folder of the embedded server's data. By default `PGRECALL_HOME`, otherwise the user's data folder.
        require_known_tenants: Refuse writes of tenants that `create_tenant` did not register (UnknownTenant). By
            default False: a tenant's first write registers it.
        promote_on_upsert: After a small upsert has committed, add up to 100 waiting rows to the collection's graph,
            four for each row written, at 1 to 3 ms each. By default True; pass False if maintenance runs often.
        prepare: Let the server keep the plans of searches without a filter, which saves a third of their time. By
            default True. It is not done through a caller's engines, and ends if a pooler loses the statements.
        pool_size: The connections that are kept open: for each event loop, for synchronous calls, and again for each of
            `maintenance_url` and `read_url`. By default 5.
        max_overflow: The connections that may be opened beyond `pool_size`. By default 10.
        pool_timeout: Seconds to wait for a connection from the pool. By default 30.
        connect_timeout: Seconds to wait for a new connection. By default 10.

    Raises:
        ConfigurationError: A URL or an engine can't be used.
        EmbeddedServerError: The embedded server did not start.
        MigrationRequired: The embedded server's schema is of a newer version.
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
    read_url = os.environ.get("PGRECALL_READ_URL") if read_url is None else read_url  # "" turns off the environment's
    admin = parse_url(admin_url) if admin_url else None
    server = None
    if not given and url is None:
        server = embedded.start(home)
        url = server.url
        # The embedded server has one login for everything, so the environment's other logins are ignored.
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
    """The database itself if one is given; otherwise opens one by URL, through one or two engines, or the embedded one.

    A database that is opened here must be closed by the caller. Raises as `connect` does.
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
        from pgrecall.admin import (
            leakproof,
            migrate,  # Alembic takes 0.2 s to import, and is needed on the first run only
        )

        assert database.admin_url is not None
        migrate.upgrade(database.admin_url)
        leakproof.tune(database.admin_url)
        database.backend.run(database.backend.server)
