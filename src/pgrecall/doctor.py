"""Looks a database over: what is wrong with it, what was expected, what to do about it. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from pgrecall import drift
from pgrecall.advisories import OLDEST_PGVECTOR, Version, dotted, faults, version
from pgrecall.engines import Engines
from pgrecall.errors import PgRecallError
from pgrecall.operations import graphs
from pgrecall.schema import APP_ROLE, MAINTENANCE_ROLE, REVISION
from pgrecall.statements import doctor as sql
from pgrecall.statements import graphs as graph_sql
from pgrecall.tenancy import Gate, Scope
from pgrecall.types import EmbedSpace

if TYPE_CHECKING:
    from pgrecall.stores.database import Database

Status: TypeAlias = Literal["ok", "warn", "fail"]

OLDEST_SERVER = 16
#: A table of more rows than this that was never analyzed is planned for by guesswork.
UNANALYZED_ROWS = 10_000
#: A share of a space's rows in large collections that wait beside its graph, above which searches get slow.
UNPROMOTED_SHARE = 0.2

_ROLES = {"app": APP_ROLE, "maintenance": MAINTENANCE_ROLE}
_ATTRIBUTES = ("LOGIN", "SUPERUSER", "BYPASSRLS", "CREATEROLE", "CREATEDB", "REPLICATION")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `fix` is empty where there is nothing to do."""

    check: str
    status: Status
    found: str
    expected: str
    fix: str = ""


class _Check(NamedTuple):
    name: str
    expected: str

    def ok(self, found: str) -> Finding:
        return Finding(self.name, "ok", found, self.expected)

    def bad(self, status: Status, found: str, fix: str) -> Finding:
        return Finding(self.name, status, found, self.expected, fix)

    def fail(self, found: str, fix: str) -> Finding:
        return self.bad("fail", found, fix)


class _Server(NamedTuple):
    version: str
    number: int
    bits_64: bool
    pgvector: str | None
    pgvector_available: str | None
    vector_schema: str | None
    database: str
    collation: str | None
    collation_now: str | None


class _Login(NamedTuple):
    name: str
    superuser: bool
    bypasses: bool
    replicates: bool
    may_app: bool
    may_maintenance: bool
    reaches_maintenance: bool
    owners: list[str]
    server_roles: list[str]


def diagnose(database: Database) -> list[Finding]:
    """Check what can be checked from here, the most basic first; what rests on something missing is left out.

    What weakens isolation fails in production and warns in development: on the embedded server, or where the
    database is marked by `pgrecall db mark development`. Raises: Unavailable.
    """
    return list(_diagnose(database))


def _diagnose(database: Database) -> Iterator[Finding]:
    gate = database._engines.sync_gate()
    with gate.bare() as tx:
        server = _Server(*tx.rows(sql.SERVER, {})[0])
        [(marked,)] = tx.rows(sql.DEVELOPMENT, {})
        [(migrated,)] = tx.rows(sql.MIGRATED, {})
    check = _Check("server", f"Postgres {OLDEST_SERVER} or later")
    if server.number < OLDEST_SERVER * 10_000:
        yield check.fail(f"Postgres {server.version}", "upgrade the server")
        return
    yield check.ok(f"Postgres {server.version}, database {server.database!r}")
    yield from _collation(server)
    yield from check_pgvector(server.pgvector, server.pgvector_available, bits_64=server.bits_64)
    login = _login(gate)
    yield _revision(gate, server, login, migrated=migrated)
    if not migrated:
        return
    yield _roles(gate)
    yield _row_security(gate)
    yield _drift(gate)
    yield _indexes(gate)
    weak: Status = "warn" if marked or database._embedded is not None else "fail"
    yield from _application(login, weak)
    if database._maintenance._url != database._engines._url:
        yield _maintenance(database._maintenance, weak)
    yield _statistics(gate)
    yield from _graphs(database)


def _collation(server: _Server) -> Iterator[Finding]:
    if server.collation != server.collation_now:
        check = _Check("collation", "indexes built by the system's own version: else they may miss rows")
        name = _quoted(server.database)
        yield check.bad(
            "warn",
            f"the system sorts text by version {server.collation_now}, indexes by {server.collation}",
            f"REINDEX DATABASE {name}; ALTER DATABASE {name} REFRESH COLLATION VERSION;",
        )


def check_pgvector(installed: str | None, available: str | None, *, bits_64: bool = True) -> list[Finding]:
    """What there is to say of pgvector's version; `available` is the one that the server's files install."""
    check = _Check("pgvector", f"pgvector {dotted(OLDEST_PGVECTOR)} or later, without known faults")
    create = "CREATE EXTENSION vector;"
    if installed is None:
        fix = create if available else f"install pgvector on the server, then {create}"
        return [check.fail("extension vector is not installed in this database", fix)]
    if version(installed) < OLDEST_PGVECTOR:
        return [check.fail(f"pgvector {installed}, without halfvec", _update(OLDEST_PGVECTOR, available))]
    found = [
        _Check("pgvector", f"pgvector {dotted(fault.fixed)} or later").bad(
            fault.status,
            f"pgvector {installed} has {fault.name}: {fault.what}",
            _update(fault.fixed, available),
        )
        for fault in faults(installed, bits_64=bits_64)
    ]
    return found or [check.ok(f"pgvector {installed}")]


def _update(to: Version, available: str | None) -> str:
    update = "ALTER EXTENSION vector UPDATE;"
    if available is not None and version(available) >= to:
        return update
    return f"install pgvector {dotted(to)} or later on the server, restart it, then {update}"


def _login(gate: Gate) -> _Login:
    with gate.bare() as tx:
        return _Login(*tx.rows(sql.LOGIN, _ROLES)[0])


def _revision(gate: Gate, server: _Server, login: _Login, *, migrated: bool) -> Finding:
    check = _Check("revision", f"revision {REVISION}")
    if not migrated:
        return check.fail("this database has no pgrecall schema", "pgrecall db upgrade")
    if not login.may_app or server.vector_schema is None:
        return check.fail("could not be read", "what this doctor says of pgvector, roles and login comes first")
    try:
        with gate.transaction(Scope.of_tenant("-", server.vector_schema), "doctor") as tx:
            [(revision,)] = tx.last(sql.REVISION, {}) or [("base",)]
    except PgRecallError as exc:
        return check.fail(f"could not be read: {exc}", "pgrecall db check tells which grants are missing")
    if revision == "base" or revision < REVISION:
        return check.fail(f"revision {revision}", "pgrecall db upgrade")
    if revision > REVISION:
        return check.bad("warn", f"revision {revision}, newer than this package", "upgrade the package")
    return check.ok(f"revision {revision}")


def _roles(gate: Gate) -> Finding:
    check = _Check("roles", "two roles without login, privileges and memberships of their own")
    with gate.bare() as tx:
        rows = tx.rows(sql.ROLES, {"roles": list(_ROLES.values())})
    found = {name: (attributes, above, closed) for name, *attributes, above, closed in rows}
    problems, fixes = [], []
    for role in _ROLES.values():
        if role not in found:
            problems.append(f"{role} is missing")
            fixes.append(f"CREATE ROLE {role} NOLOGIN NOBYPASSRLS; (`pgrecall db check` tells its grants)")
            continue
        attributes, above, closed = found[role]
        if too_much := [name for name, has in zip(_ATTRIBUTES, attributes, strict=True) if has]:
            problems.append(f"{role} has {', '.join(too_much)}")
            fixes.append(f"ALTER ROLE {role} {' '.join('NO' + name for name in too_much)};")
        if above:
            problems.append(f"{role} is a member of {', '.join(above)}")
            fixes.append(f"REVOKE {', '.join(map(_quoted, above))} FROM {role};")
        if closed:
            problems.append(f"{role} may not use schema {closed}, where pgvector is")
            fixes.append(f"GRANT USAGE ON SCHEMA {_quoted(closed)} TO {role};")
    if problems:
        return check.fail("; ".join(problems), " ".join(fixes))
    return check.ok(f"{APP_ROLE} and {MAINTENANCE_ROLE} are as they should be")


def _row_security(gate: Gate) -> Finding:
    check = _Check("row security", "on and forced on every table that has tenant_id")
    with gate.bare() as tx:
        tables = tx.rows(sql.ROW_SECURITY, {})
    loose = [name for name, enabled, forced in tables if not (enabled and forced)]
    if loose:
        force = "ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"
        fix = " ".join(f"ALTER TABLE pgrecall.{_quoted(name)} {force};" for name in loose)
        return check.fail(f"not on and forced on {', '.join(loose)}", fix)
    return check.ok(f"on and forced on {len(tables)} tables")


def _drift(gate: Gate) -> Finding:
    check = _Check("drift", "tables, policies, grants and indexes as this version declares them")
    try:
        with gate.bare() as tx:
            different = drift.compare(tx.rows)
    except PgRecallError as exc:
        return check.fail(f"could not be looked at: {exc}", "read the message")
    if not different:
        return check.ok("none")
    more = f" (and {len(different) - 3} more)" if len(different) > 3 else ""
    return check.fail("; ".join(different[:3]) + more, "pgrecall db check tells them all")


def _indexes(gate: Gate) -> Finding:
    check = _Check("indexes", "every index valid")
    with gate.bare() as tx:
        invalid = [name for (name,) in tx.rows(sql.INVALID_INDEXES, {})]
    if not invalid:
        return check.ok("all valid")
    fix = " ".join(f"DROP INDEX CONCURRENTLY pgrecall.{_quoted(name)};" for name in invalid)
    found = f"INVALID: {', '.join(invalid)}. Each write pays for it, and no search uses it"
    return check.fail(found, f"unless it is being built right now: {fix}")


def _application(login: _Login, weak: Status) -> Iterator[Finding]:
    check = _Check("login", f"a login that may act as {APP_ROLE}, and as nobody with more rights")
    if not login.may_app:
        yield check.fail(f"{login.name!r} may not SET ROLE {APP_ROLE}", _grant(APP_ROLE, login.name))
    powers = _powers(login)
    if login.reaches_maintenance and not login.superuser:
        powers.append(f"may act as {MAINTENANCE_ROLE}")
    if powers:
        usual = ", as is usual in development"
        so = usual if weak == "warn" else ": an SQL injection would reach every tenant"
        fix = f"in production, a login for PGRECALL_URL alone: CREATE ROLE app LOGIN; {_grant(APP_ROLE, 'app')}"
        yield check.bad(weak, f"{login.name!r} {' and '.join(powers)}{so}", fix)
    elif login.may_app:
        yield check.ok(f"{login.name!r} may act as {APP_ROLE} only")


def _grant(role: str, login: str) -> str:
    return f"GRANT {role} TO {_quoted(login)} WITH INHERIT FALSE, SET TRUE;"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _powers(login: _Login) -> list[str]:
    if login.superuser:
        return ["is a superuser"]
    powers = ["bypasses row-level security"] if login.bypasses else []
    if login.replicates:
        powers.append("may copy the whole server (REPLICATION)")
    if login.owners:
        powers.append(f"may act as the tables' owner ({', '.join(login.owners)})")
    return powers + [f"may act as {role}" for role in login.server_roles]


def _maintenance(engines: Engines, weak: Status) -> Finding:
    check = _Check("maintenance login", f"a login that may act as {MAINTENANCE_ROLE}, and owns nothing")
    try:
        login = _login(engines.sync_gate())
    except PgRecallError as exc:
        return check.fail(str(exc), "correct PGRECALL_MAINTENANCE_URL")
    if not login.may_maintenance:
        return check.fail(f"{login.name!r} may not SET ROLE {MAINTENANCE_ROLE}", _grant(MAINTENANCE_ROLE, login.name))
    if powers := _powers(login):
        return check.bad(weak, f"{login.name!r} {' and '.join(powers)}", "give maintenance a login of its own")
    return check.ok(f"{login.name!r} may act as {MAINTENANCE_ROLE}")


def _statistics(gate: Gate) -> Finding:
    check = _Check("statistics", f"tables of more than {UNANALYZED_ROWS:,} rows analyzed")
    with gate.bare() as tx:
        tables = tx.rows(sql.TABLES, {})
    never = [name for name, _, live, _, _, analyzed in tables if live > UNANALYZED_ROWS and not analyzed]
    if never:
        fix = "ANALYZE " + ", ".join(f"pgrecall.{name}" for name in never) + "; and leave autovacuum on"
        return check.bad("warn", f"never analyzed: {', '.join(never)}", fix)
    return check.ok("the planner knows the large tables")


def _graphs(database: Database) -> Iterator[Finding]:
    """Whether large collections have their graph; only a login for maintenance sees them."""
    check = _Check("graphs", "a valid graph for each space with a large collection, and few rows that wait for it")
    try:
        gate = database._maintenance_gate()
        with gate.transaction(database._maintenance_scope(gate), "doctor graphs") as tx:
            problems = []
            for number, *identity, generation, _ in tx.rows(graph_sql.SPACES, {}):
                space = EmbedSpace(*identity)
                if space.dim > graphs.MAX_DIM:
                    continue
                held = tx.rows(graph_sql.COLLECTIONS, {"space": number, "generation": generation})
                large = [(i, w) for _, _, i, w in held if i + w > graphs.exact_max(space.dim)]
                inside, waiting = sum(i for i, _ in large), sum(w for _, w in large)
                pattern = f"^chunk_vectors_graph_{number}_{generation}$"
                if large and not any(valid for _, valid in tx.rows(graph_sql.INDEXES, {"pattern": pattern})):
                    problems.append(f"space {number} has no graph for {len(large)} large collections")
                elif waiting > UNPROMOTED_SHARE * (inside + waiting):
                    problems.append(
                        f"space {number}: {waiting / (inside + waiting):.0%} of its rows wait".replace("%", " %")
                    )
    except PgRecallError:
        return
    if problems:
        yield check.bad("warn", "; ".join(problems) + ": they are searched exactly, row by row", "pgrecall maintain")
    else:
        yield check.ok("every large collection has its graph")


def metrics(database: Database) -> dict[str, Any]:
    """Numbers to watch: connections of the whole server, ages in seconds, sizes in bytes, estimates of rows.

    `dead_share` is of a table's rows, 0 to 1. An age is None where there is nothing to measure, or where the
    login sees only its own sessions (GRANT pg_monitor shows all). Raises: Unavailable.
    """
    with database._engines.sync_gate().bare() as tx:
        used, most, size, longest, prepared = tx.rows(sql.METRICS, {})[0]
        tables = tx.rows(sql.TABLES, {})
    return {
        "connections_used": used,
        "connections_max": most,
        "longest_transaction_seconds": longest,
        "oldest_prepared_transaction_seconds": prepared,
        "database_bytes": size,
        "tables": {
            name: {"rows": max(rows, live), "bytes": total, "dead_share": dead / ((live + dead) or 1)}
            for name, rows, live, dead, total, _ in tables
        },
    }
