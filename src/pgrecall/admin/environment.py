"""What a database is for: marked as development it may be reset, which deletes everything in it.

The mark is a setting of the database itself (ALTER DATABASE … SET pgrecall.environment), so no dump carries it to
another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import sqlalchemy as sa
from psycopg import sql

from pgrecall.admin import migrate, partitions
from pgrecall.arguments import one_of
from pgrecall.errors import Refused
from pgrecall.postgres.driver import wrapped
from pgrecall.revisions import SAFE_PATH
from pgrecall.schema import SCHEMA
from pgrecall.statements import doctor
from pgrecall.types import Environment


@contextmanager
def connected(url: sa.URL) -> Iterator[sa.Connection]:
    """A connection as the owner, in autocommit mode. Raises: Unavailable, ConfigurationError, DatabaseError."""
    utf8 = {"client_encoding": "utf8"}
    owner = url.set(drivername="postgresql+psycopg")  # a bare postgresql:// means psycopg2 to SQLAlchemy 2.0
    engine = sa.create_engine(owner, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT", connect_args=utf8)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(SAFE_PATH)
            yield connection
    except sa.exc.DBAPIError as exc:
        raise wrapped(exc.orig or exc) from exc
    finally:
        engine.dispose()


def database_name(connection: sa.Connection) -> str:
    """The connected database's name."""
    return str(connection.scalar(sa.text("SELECT current_database()")))


def is_development(connection: sa.Connection) -> bool:
    """Whether the database is marked as development."""
    return bool(connection.scalar(sa.text(doctor.DEVELOPMENT)))


def mark(url: sa.URL, environment: Environment) -> str:
    """Mark a database as its owner; returns the database's name.

    Raises: InvalidInput, Unavailable, DatabaseError if the login does not own the database.
    """
    one_of(environment, get_args(Environment), "environment")
    what = "SET pgrecall.environment = 'development'" if environment == "development" else "RESET pgrecall.environment"
    with connected(url) as connection:
        name = database_name(connection)
        statement = sql.SQL("ALTER DATABASE {} " + what).format(sql.Identifier(name))
        connection.exec_driver_sql(statement.as_string(None).replace("%", "%%"))
    return name


def check_resettable(url: sa.URL, *, embedded: bool = False) -> str:
    """The name of a database that may be reset: the embedded one, or one marked as development. Raises Refused."""
    with connected(url) as connection:
        return _resettable(connection, embedded=embedded)


def reset(url: sa.URL, *, embedded: bool = False) -> str | None:
    """Drop the schema with everything in it, and create empty tables with as many partitions; returns the revision.

    What others created in the schema, or on its tables (views, for example), is dropped too.
    Raises: Refused unless `check_resettable` allows it; Conflict if a table stays locked for ten seconds; Unavailable.
    """
    with connected(url) as connection:
        _resettable(connection, embedded=embedded)
        parts = partitions.number(connection)
        connection.exec_driver_sql("SET lock_timeout = '10s'")
        connection.execute(sa.schema.DropSchema(SCHEMA, cascade=True, if_exists=True))
    return migrate.upgrade(url, parts=parts)[1]


def _resettable(connection: sa.Connection, *, embedded: bool) -> str:
    name = database_name(connection)
    if not (embedded or is_development(connection)):
        raise Refused(
            f"database {name!r} is not marked as development, and only a development database can be reset; "
            "if it is one, mark it: pgrecall db mark development"
        )
    return name
