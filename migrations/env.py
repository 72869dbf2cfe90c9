"""Alembic environment: pgrecall's tables and their version table are in schema `pgrecall`.

So it does not conflict with an application's own Alembic. A caller passes a connection in
`config.attributes["connection"]`. If Alembic's own command line runs it, it connects to PGRECALL_ADMIN_URL or
PGRECALL_URL, and takes no lock against concurrent upgrades.
"""

from __future__ import annotations

import os
import re
from typing import Any

import sqlalchemy as sa
from alembic import context

from pgrecall.revisions import PREPARE, SAFE_PATH, SETTINGS, WITH_PGVECTOR
from pgrecall.schema import SCHEMA, metadata

#: A partition of a declared table.
PARTITION = re.compile(r"\w+_p\d+")


def _include_name(name: str | None, kind: str, _parents: object) -> bool:
    if kind == "table":
        return PARTITION.fullmatch(name or "") is None
    return name == SCHEMA if kind == "schema" else True


def _include_object(item: Any, _name: str | None, kind: str, reflected: bool, _compared: object) -> bool:
    # The catalogs list a foreign key to a partitioned table for each of its partitions too.
    if kind == "foreign_key_constraint" and reflected:
        return not any(PARTITION.fullmatch(element.target_fullname.split(".")[-2]) for element in item.elements)
    return True


OPTIONS: dict[str, Any] = {
    "target_metadata": metadata,
    "version_table": "alembic_version",
    "version_table_schema": SCHEMA,
    "include_schemas": True,
    "include_name": _include_name,
    "include_object": _include_object,
    "compare_server_default": True,
}


def _offline() -> None:
    # A named parameter style, because psycopg's would print every % in a statement twice.
    context.configure(dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, literal_binds=True, **OPTIONS)
    # The first statement, because Alembic creates the version table before anything else.
    context.get_context().impl.static_output(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA};")
    _run()


def _online(connection: sa.Connection) -> None:
    if not sa.inspect(connection).has_schema(SCHEMA):
        connection.execute(sa.text(PREPARE))
    connection.commit()
    context.configure(connection=connection, **OPTIONS)
    _run()


def _run() -> None:
    with context.begin_transaction():
        context.execute(SETTINGS)
        if "revision_context" in context.get_context().opts:  # autogenerate, and `alembic check`
            context.execute(WITH_PGVECTOR)  # SQLAlchemy recognizes types by their unqualified names
        context.run_migrations()


def _from_environment() -> None:
    url = os.environ.get("PGRECALL_ADMIN_URL") or os.environ.get("PGRECALL_URL")
    if not url:
        raise SystemExit("set PGRECALL_ADMIN_URL to the database to migrate, or use `pgrecall db upgrade`")
    owner = sa.make_url(url).set(drivername="postgresql+psycopg")
    engine = sa.create_engine(owner, poolclass=sa.NullPool, connect_args={"client_encoding": "utf8"})
    with engine.connect() as connection:
        connection.exec_driver_sql(SAFE_PATH)
        _online(connection)


if context.is_offline_mode():
    _offline()
elif (given := context.config.attributes.get("connection")) is not None:
    _online(given)
else:
    _from_environment()
