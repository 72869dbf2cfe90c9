"""LEAKPROOF marks: they let row-level security use the GIN indexes of metadata and full text.

Under row-level security Postgres uses an index for a condition only if the condition's function is LEAKPROOF: it
reveals nothing about rows that the policy hides. jsonb containment and tsvector matches raise no error that quotes a
value, but Postgres does not mark them. Only a superuser may do so. Marks are stored in the database's own catalog, so a
dump does not include them.
"""

from __future__ import annotations

import psycopg
import sqlalchemy as sa

from pgrecall.errors import ConfigurationError, DatabaseError
from pgrecall.postgres.driver import wrapped
from pgrecall.statements import citus

#: The functions behind `@>` on jsonb and `@@`.
FUNCTIONS = ("pg_catalog.jsonb_contains(jsonb, jsonb)", "pg_catalog.ts_match_vq(tsvector, tsquery)")

# Concurrent changes of one function fail with "tuple concurrently updated".
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('pgrecall.tune', 0::int8))"
_LOOK = "SELECT proleakproof FROM pg_catalog.pg_proc WHERE oid = %s::text::regprocedure"


def tune(url: sa.URL, *, undo: bool = False) -> list[str]:
    """Set the marks, or remove them with `undo`; returns the functions that changed.

    Raises: ConfigurationError if the login is not a superuser; Unavailable, DatabaseError.
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
                    # The nodes that have the rows enforce row-level security.
                    if connection.execute(citus.INSTALLED).fetchone() == (True,):
                        rows = connection.execute(citus.on_workers(mark).encode()).fetchall()
                        if said := citus.refused(rows):
                            raise DatabaseError(f"a worker did not mark {function}: {said}")
    except psycopg.errors.InsufficientPrivilege as exc:
        raise ConfigurationError(
            "only a superuser may mark functions LEAKPROOF, but this login is not one. Without the marks filters are "
            "still correct, but read the tenant's rows instead of an index. For filters on a large collection, "
            "index keys: pgrecall collections index-key COLLECTION KEY:TYPE"
        ) from exc
    except psycopg.Error as exc:
        raise wrapped(exc) from exc
    return changed
