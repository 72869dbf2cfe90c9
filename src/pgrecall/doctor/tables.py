"""The tables: their revision, row-level security, drift, indexes and statistics."""

from __future__ import annotations

import re

from pgrecall.admin import drift
from pgrecall.doctor.findings import Check, Finding, quoted
from pgrecall.doctor.logins import Login
from pgrecall.doctor.server import ServerFacts
from pgrecall.errors import PgRecallError
from pgrecall.postgres.transactions import Gate, Ground, Scope
from pgrecall.schema import REVISION
from pgrecall.statements import doctor as sql

#: Without an ANALYZE, the planner guesses for tables of more rows than this.
UNANALYZED_ROWS = 10_000


def check_revision(gate: Gate, server: ServerFacts, login: Login, *, migrated: bool) -> Finding:
    """Whether the schema's revision is this package's."""
    check = Check("revision", f"revision {REVISION}")
    if not migrated:
        return check.fail("this database has no pgrecall schema", "pgrecall db upgrade")
    if not login.may_app or server.vector_schema is None:
        return check.fail("could not be read", "fix what the checks of pgvector, roles and login report first")
    try:
        with gate.transaction(Scope.of_tenant("-", Ground(server.vector_schema, server.citus)), "doctor") as tx:
            [(revision,)] = tx.last(sql.REVISION, {}) or [("base",)]
    except PgRecallError as exc:
        return check.fail(f"could not be read: {exc}", "see which grants are missing: pgrecall db check")
    if revision == "base" or revision < REVISION:
        return check.fail(f"revision {revision}", "pgrecall db upgrade")
    if revision > REVISION:
        return check.bad("warn", f"revision {revision}, newer than this package", "upgrade the package")
    return check.ok(f"revision {revision}")


def check_row_security(gate: Gate) -> Finding:
    """Whether row-level security is on and forced."""
    check = Check("row security", "on and forced on every table that has tenant_id")
    with gate.bare() as tx:
        tables = tx.rows(sql.ROW_SECURITY, {})
    loose = [name for name, enabled, forced in tables if not (enabled and forced)]
    if loose:
        force = "ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
        fix = " ".join(f"ALTER TABLE pgrecall.{quoted(name)} {force};" for name in loose)
        return check.fail(f"not on and forced on {', '.join(loose)}", fix)
    return check.ok(f"on and forced on {len(tables)} tables")


def check_drift(gate: Gate) -> Finding:
    """Whether the schema is as declared."""
    check = Check("drift", "tables, policies, grants and indexes as this version declares them")
    try:
        with gate.bare() as tx:
            different = drift.compare(tx.rows)
    except PgRecallError as exc:
        return check.fail(f"could not be read: {exc}", "see the message")
    if not different:
        return check.ok("none")
    more = f" (and {len(different) - 3} more)" if len(different) > 3 else ""
    return check.fail("; ".join(different[:3]) + more, "see all differences: pgrecall db check")


def check_indexes(gate: Gate) -> Finding:
    """Whether every index is valid."""
    check = Check("indexes", "every index valid")
    with gate.bare() as tx:
        invalid = [name for (name,) in tx.rows(sql.INVALID_INDEXES, {})]
    if not invalid:
        return check.ok("all valid")
    left = all(re.fullmatch(r"chunk_vectors_graph_\d+_\d+(_p\d+)?", name) for name in invalid)
    fix = " ".join(f"DROP INDEX CONCURRENTLY pgrecall.{quoted(name)};" for name in invalid)
    found = f"INVALID: {', '.join(invalid)}. Writes maintain them, but searches can't use them"
    return check.fail(found, "pgrecall maintain" if left else f"unless they are being built right now: {fix}")


def check_statistics(gate: Gate) -> Finding:
    """Whether the planner has statistics of the large tables."""
    check = Check("statistics", f"statistics for tables of more than {UNANALYZED_ROWS:,} rows")
    with gate.bare() as tx:
        tables = tx.rows(sql.TABLES, {})
    never = [name for name, _, live, _, _, analyzed in tables if live > UNANALYZED_ROWS and not analyzed]
    if never:
        fix = "ANALYZE " + ", ".join(f"pgrecall.{name}" for name in never) + "; and keep autovacuum on"
        return check.bad("warn", f"never analyzed: {', '.join(never)}", fix)
    return check.ok("the planner has statistics of the large tables")
