"""LEAKPROOF marks: they let row-level security use the GIN indexes of metadata and full text.

Under row-level security Postgres gives a tenant's condition to an index only where its function is marked as one that
tells nothing of the rows it is refused. Containment of jsonb and the match of a tsvector raise no error that quotes
a value, but Postgres ships them without the mark; only a superuser may give it. Marks belong to the database's own
catalog: a dump does not carry them.
"""

from __future__ import annotations

import psycopg
import sqlalchemy as sa

from pgrecall.errors import ConfigurationError, DatabaseError
from pgrecall.postgres.driver import wrapped
from pgrecall.statements import citus

#: The functions behind `@>` on jsonb and `@@`.
FUNCTIONS = ("pg_catalog.jsonb_contains(jsonb, jsonb)", "pg_catalog.ts_match_vq(tsvector, tsquery)")

# Two that change one function at the same moment fail: "tuple concurrently updated".
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('pgrecall.tune', 0::int8))"
_LOOK = "SELECT proleakproof FROM pg_catalog.pg_proc WHERE oid = %s::text::regprocedure"


def tune(url: sa.URL, *, undo: bool = False) -> list[str]:
    """Give the marks, or take them back; returns the functions that changed.

    Raises: ConfigurationError where the login is no superuser; Unavailable.
    """
    changed = []
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        with psycopg.connect(dsn) as connection:
            connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
            connection.execute(_LOCK)
            for function in FUNCTIONS:
                [marked] = connection.execute(_LOOK, (function,)).fetchone() or (False,)
                if marked is undo:
                    mark = f"ALTER FUNCTION {function} {'NOT ' if undo else ''}LEAKPROOF"
                    connection.execute(mark.encode())
                    changed.append(function)
                    # Row-level security is at work on the nodes that have the rows.
                    if connection.execute(citus.INSTALLED).fetchone() == (True,):
                        rows = connection.execute(citus.on_workers(mark).encode()).fetchall()
                        if said := citus.refused(rows):
                            raise DatabaseError(f"a worker did not mark {function}: {said}")
    except psycopg.errors.InsufficientPrivilege as exc:
        raise ConfigurationError(
            "only a superuser may mark functions LEAKPROOF, and this login is none. Filters stay right without it: "
            "they read the tenant's own rows instead of an index. For those on a large collection: "
            "pgrecall collections index-key COLLECTION KEY:TYPE"
        ) from exc
    except psycopg.Error as exc:
        raise wrapped(exc) from exc
    return changed
