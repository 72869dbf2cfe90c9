"""Put the tenants' tables on Citus, through the owner's own connection; what is printed is what is run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import psycopg
import sqlalchemy as sa

from pgrecall.admin import migrate
from pgrecall.errors import ConfigurationError, DatabaseError, InvalidInput
from pgrecall.postgres.driver import wrapped
from pgrecall.revisions import SAFE_PATH
from pgrecall.statements import citus as statements
from pgrecall.statements.citus import Placed, State
from pgrecall.statements.partitions import COUNT

#: What hears of each statement before it is run.
Told = Callable[[str], None]


def distribute(
    url: sa.URL, *, shards: int | None = None, dry_run: bool = False, told: Told = lambda _: None
) -> list[str]:
    """Distribute what is not yet, co-located by tenant, the registry of spaces on every node; returns the statements.

    `shards` is the number of shards of each table (Citus' own setting where left out). `dry_run` runs none of them.
    Afterwards `pgrecall maintain` builds the graphs. Raises: ConfigurationError where this is no Citus coordinator, or
    the tables are partitioned; MigrationRequired; InvalidInput; DatabaseError as Citus says it.
    """
    if shards is not None and (isinstance(shards, bool) or not isinstance(shards, int) or not 1 <= shards <= 64_000):
        raise InvalidInput(f"{shards!r} shards; expected a number from 1 to 64,000")
    migrate.check_revision(url)
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        with psycopg.connect(dsn, autocommit=True, prepare_threshold=None, client_encoding="utf8") as connection:
            connection.execute(SAFE_PATH)
            listed = statements.distribute(_look(connection), shards)
            if not dry_run:
                _run(connection, listed, told)
            return listed
    except psycopg.Error as exc:
        raise wrapped(exc) from exc


def _look(connection: psycopg.Connection) -> State:
    [installed] = connection.execute(statements.INSTALLED).fetchone() or (False,)
    if not installed:
        raise ConfigurationError(
            "this database has no extension citus. Load its library on every node (shared_preload_libraries), then, on "
            "the coordinator: CREATE EXTENSION citus; SELECT citus_set_coordinator_host(…); SELECT citus_add_node(…)"
        )
    if parts := connection.execute(COUNT).fetchone():
        raise ConfigurationError(
            f"the large tables have {parts[0]} partitions each, and Citus' shards are partitions already: distribute a "
            "database that was made without --partitions"
        )
    placed = [Placed(*row) for row in connection.execute(statements.PLACED)]
    lacking, graphs = (
        [name for (name,) in connection.execute(names)] for names in (statements.NO_LOGIN, statements.GRAPHS)
    )
    [vector_schema] = connection.execute(statements.VECTOR_SCHEMA).fetchone() or ("public",)
    return State(placed, lacking, graphs, vector_schema)


def _run(connection: psycopg.Connection, listed: list[str], told: Told) -> None:
    try:
        for statement in listed:
            told(statement)
            cursor = connection.execute(statement.encode())
            if "run_command_on_workers" in statement and (said := statements.refused(cursor.fetchall())):
                raise DatabaseError(f"a worker refused what was sent to it: {said}")
    except BaseException:
        with suppress(psycopg.Error):
            connection.execute("ROLLBACK")
        raise
