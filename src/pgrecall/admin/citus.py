"""Distribute the tables with Citus, on the owner's own connection. What is printed is what runs."""

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

#: Called with each statement before it runs.
Report = Callable[[str], None]


def distribute(
    url: sa.URL, *, shards: int | None = None, dry_run: bool = False, report: Report = lambda _: None
) -> list[str]:
    """Distribute the tables that are not yet distributed, co-located by tenant; returns the statements.

    The registry of spaces is placed on every node. `shards` is the number of shards of each table (default: Citus' own
    setting). `dry_run` runs none of the statements. Afterwards `pgrecall maintain` builds the graphs.

    Raises: ConfigurationError if this is not a Citus coordinator or the tables are partitioned; MigrationRequired,
    InvalidInput, DatabaseError.
    """
    if shards is not None and (isinstance(shards, bool) or not isinstance(shards, int) or not 1 <= shards <= 64_000):
        raise InvalidInput(f"shards is {shards!r}; expected a number from 1 to 64,000")
    migrate.check_revision(url)
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        with psycopg.connect(dsn, autocommit=True, prepare_threshold=None, client_encoding="utf8") as connection:
            connection.execute(SAFE_PATH)
            listed = statements.distribute(_look(connection), shards)
            if not dry_run:
                _run(connection, listed, report)
            return listed
    except psycopg.Error as exc:
        raise wrapped(exc) from exc


def _look(connection: psycopg.Connection) -> State:
    [installed] = connection.execute(statements.INSTALLED).fetchone() or (False,)
    if not installed:
        raise ConfigurationError(
            "the extension citus is not installed in this database. Load its library on every node "
            "(shared_preload_libraries), then run on the coordinator: CREATE EXTENSION citus; "
            "SELECT citus_set_coordinator_host(…); SELECT citus_add_node(…)"
        )
    if parts := connection.execute(COUNT).fetchone():
        raise ConfigurationError(
            f"the large tables have {parts[0]} partitions each, but Citus shards the tables itself; distribute a "
            "database that was created without --partitions"
        )
    placed = [Placed(*row) for row in connection.execute(statements.PLACED)]
    lacking, graphs = (
        [name for (name,) in connection.execute(names)] for names in (statements.NO_LOGIN, statements.GRAPHS)
    )
    [vector_schema] = connection.execute(statements.VECTOR_SCHEMA).fetchone() or ("public",)
    return State(placed, lacking, graphs, vector_schema)


def _run(connection: psycopg.Connection, listed: list[str], report: Report) -> None:
    try:
        for statement in listed:
            report(statement)
            cursor = connection.execute(statement.encode())
            if "run_command_on_workers" in statement and (said := statements.refused(cursor.fetchall())):
                raise DatabaseError(f"a worker refused a statement: {said}")
    except BaseException:
        with suppress(psycopg.Error):
            connection.execute("ROLLBACK")
        raise
