"""Who a transaction acts as: its role, its tenant and its settings, each a literal SET LOCAL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from psycopg import sql

from pgrecall.arguments import MAX_NAME_BYTES, check_text
from pgrecall.schema import APP_ROLE, MAINTENANCE_ROLE, TENANT_SETTING


class Ground(NamedTuple):
    """What all scopes of a database share: the schema of pgvector, and whether its tables may be on Citus."""

    vector_schema: str
    citus: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """Who a transaction acts as. `opening` sets the role, and the tenant that it is bound to (None for maintenance).

    `local` sets further server settings, and `undo` resets them if the transaction goes on. `separate_messages`:
    each of these statements is sent as a message of its own, which Citus needs.
    """

    tenant: str | None
    opening: tuple[str, ...]
    local: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    separate_messages: bool = False

    @classmethod
    def of_tenant(cls, tenant: str, ground: Ground) -> Scope:
        """The application's role, bound to one tenant. Raises InvalidInput."""
        check_text(tenant, "tenant", MAX_NAME_BYTES)
        return cls(tenant, _opening(APP_ROLE, tenant, ground), separate_messages=ground.citus)

    @classmethod
    def of_maintenance(cls, ground: Ground) -> Scope:
        """The maintenance role, for work across tenants."""
        return cls(None, _opening(MAINTENANCE_ROLE, None, ground), separate_messages=ground.citus)

    @classmethod
    def of_maintenance_for(cls, tenant: str, ground: Ground) -> Scope:
        """The maintenance role at work on one tenant: its statements, and the policy of the trail, are bound to it."""
        check_text(tenant, "tenant", MAX_NAME_BYTES)
        return cls(tenant, _opening(MAINTENANCE_ROLE, tenant, ground), separate_messages=ground.citus)

    def setting(self, settings: Mapping[str, str]) -> Scope:
        """This scope with more server settings, for the length of the transaction."""
        local, undo = _local(tuple(settings.items()))
        return replace(self, local=self.local + local, undo=self.undo + undo)


@lru_cache(maxsize=512)
def _local(settings: tuple[tuple[str, str], ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The statements that set and reset these settings. Cached: quoting three took 0.4 of a graph search's 1.5 ms."""
    local = (sql.SQL("SET LOCAL {} = {}").format(_name(name), sql.Literal(value)) for name, value in settings)
    undo = (sql.SQL("SET LOCAL {} = DEFAULT").format(_name(name)) for name, _ in settings)
    return tuple(s.as_string(None) for s in local), tuple(s.as_string(None) for s in undo)


def _name(setting: str) -> sql.Composed:
    return sql.SQL(".").join(sql.Identifier(part) for part in setting.split("."))


@lru_cache(maxsize=4_096)
def _opening(role: str, tenant: str | None, ground: Ground) -> tuple[str, ...]:
    # READ COMMITTED explicitly: the locks rely on it, and the default of a server or a caller may differ.
    # The search path makes pgvector's operators visible in whatever schema it is. If others may create functions in
    # that schema, Postgres prefers theirs if they match better, so statements use exactly the declared types.
    # pg_temp is listed last; if it were omitted, types would be looked up there first.
    parts = [
        sql.SQL("BEGIN ISOLATION LEVEL READ COMMITTED"),
        sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)),
        sql.SQL("SET LOCAL search_path = pg_catalog, {}, pg_temp").format(sql.Identifier(ground.vector_schema)),
    ]
    if ground.citus:
        # First, so that the settings after it reach the workers, which enforce row-level security. By SET LOCAL,
        # because a role's own setting has no effect after SET ROLE.
        parts.insert(1, sql.SQL("SET LOCAL citus.propagate_set_commands = 'local'"))
    if tenant is not None:
        parts.append(sql.SQL("SET LOCAL {} = {}").format(_name(TENANT_SETTING), sql.Literal(tenant)))
    return tuple(part.as_string(None) for part in parts)
