"""Roles and logins: whether they have the rights that they need, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pgrecall.doctor.findings import Check, Finding, FindingStatus, quoted
from pgrecall.errors import PgRecallError
from pgrecall.postgres.engines import Engines
from pgrecall.postgres.transactions import Gate
from pgrecall.schema import APP_ROLE, MAINTENANCE_ROLE
from pgrecall.statements import doctor as sql

ROLES = {"app": APP_ROLE, "maintenance": MAINTENANCE_ROLE}
_ATTRIBUTES = ("LOGIN", "SUPERUSER", "BYPASSRLS", "CREATEROLE", "CREATEDB", "REPLICATION")


class Login(NamedTuple):
    """A login's rights, and the roles that it may act as."""

    name: str
    superuser: bool
    bypasses: bool
    replicates: bool
    may_app: bool
    may_maintenance: bool
    reaches_maintenance: bool
    owners: list[str]
    server_roles: list[str]


def read_login(gate: Gate) -> Login:
    """The gate's own login."""
    with gate.bare() as tx:
        return Login(*tx.rows(sql.LOGIN, ROLES)[0])


def check_roles(gate: Gate, *, citus: bool) -> Finding:
    """Whether the two roles exist without rights of their own. On Citus they need LOGIN, to reach the workers."""
    login = "with" if citus else "without"
    check = Check("roles", f"two roles {login} LOGIN, without privileges or memberships of their own")
    with gate.bare() as tx:
        rows = tx.rows(sql.ROLES, {"roles": list(ROLES.values())})
    found = {name: (attributes, above, closed) for name, *attributes, above, closed in rows}
    problems, fixes = [], []
    for role in ROLES.values():
        if role not in found:
            problems.append(f"{role} is missing")
            fixes.append(f"CREATE ROLE {role} NOLOGIN NOBYPASSRLS; (`pgrecall db check` lists its grants)")
            continue
        attributes, above, closed = found[role]
        if citus:
            if not attributes[0]:
                problems.append(f"{role} may not log in, but Citus connects to its workers as that role")
                fixes.append(f"on every node (pgrecall db distribute does this): ALTER ROLE {role} LOGIN;")
            attributes = [False, *attributes[1:]]
        if too_much := [name for name, has in zip(_ATTRIBUTES, attributes, strict=True) if has]:
            problems.append(f"{role} has {', '.join(too_much)}")
            fixes.append(f"ALTER ROLE {role} {' '.join('NO' + name for name in too_much)};")
        if above:
            problems.append(f"{role} is a member of {', '.join(above)}")
            fixes.append(f"REVOKE {', '.join(map(quoted, above))} FROM {role};")
        if closed:
            problems.append(f"{role} may not use schema {closed}, which has pgvector")
            fixes.append(f"GRANT USAGE ON SCHEMA {quoted(closed)} TO {role};")
    if problems:
        return check.fail("; ".join(problems), " ".join(fixes))
    return check.ok(f"{APP_ROLE} and {MAINTENANCE_ROLE} are as expected")


def check_login(login: Login, weak: FindingStatus) -> Iterator[Finding]:
    """The application's login. `weak` is the status if it has too many rights."""
    check = Check("login", f"a login that may act as {APP_ROLE}, and as no role with more rights")
    if not login.may_app:
        yield check.fail(f"{login.name!r} may not SET ROLE {APP_ROLE}", _grant(APP_ROLE, login.name))
    powers = _powers(login)
    if login.reaches_maintenance and not login.superuser:
        powers.append(f"may act as {MAINTENANCE_ROLE}")
    if powers:
        usual = ", which is usual in development"
        so = usual if weak == "warn" else ": an SQL injection would reach every tenant"
        fix = f"in production, use a separate login in PGRECALL_URL: CREATE ROLE app LOGIN; {_grant(APP_ROLE, 'app')}"
        yield check.bad(weak, f"{login.name!r} {' and '.join(powers)}{so}", fix)
    elif login.may_app:
        yield check.ok(f"{login.name!r} may act as {APP_ROLE} only")


def _grant(role: str, login: str) -> str:
    return f"GRANT {role} TO {quoted(login)} WITH INHERIT FALSE, SET TRUE;"


def _powers(login: Login) -> list[str]:
    if login.superuser:
        return ["is a superuser"]
    powers = ["bypasses row-level security"] if login.bypasses else []
    if login.replicates:
        powers.append("may copy the whole server (REPLICATION)")
    if login.owners:
        powers.append(f"may act as the tables' owner ({', '.join(login.owners)})")
    return powers + [f"may act as {role}" for role in login.server_roles]


def check_maintenance_login(engines: Engines, weak: FindingStatus) -> Finding:
    """The maintenance login, if there is a separate one."""
    check = Check("maintenance login", f"a login that may act as {MAINTENANCE_ROLE}, and owns no tables")
    try:
        login = read_login(engines.sync_gate())
    except PgRecallError as exc:
        return check.fail(str(exc), "correct PGRECALL_MAINTENANCE_URL")
    if not login.may_maintenance:
        return check.fail(f"{login.name!r} may not SET ROLE {MAINTENANCE_ROLE}", _grant(MAINTENANCE_ROLE, login.name))
    if powers := _powers(login):
        return check.bad(weak, f"{login.name!r} {' and '.join(powers)}", "use a separate login for maintenance")
    return check.ok(f"{login.name!r} may act as {MAINTENANCE_ROLE}")
