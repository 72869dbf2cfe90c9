"""Who a transaction acts as: its role, its tenant, and the settings that say so, each a literal SET LOCAL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from psycopg import sql

from pgrecall.arguments import MAX_NAME_BYTES, check_text
from pgrecall.schema import APP_ROLE, MAINTENANCE_ROLE, TENANT_SETTING


class Ground(NamedTuple):
    """What every scope of a database stands on: where pgvector lives, and whether its tables may be on Citus."""

    vector_schema: str
    citus: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """Who a transaction acts as: `opening` sets the role, and the tenant it is bound to (None for maintenance).

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
        """The application's role, bound to one tenant."""
        check_text(tenant, "tenant", MAX_NAME_BYTES)
        return cls(tenant, _opening(APP_ROLE, tenant, ground), separate_messages=ground.citus)

    @classmethod
    def of_maintenance(cls, ground: Ground) -> Scope:
        """The role for work across tenants."""
        return cls(None, _opening(MAINTENANCE_ROLE, None, ground), separate_messages=ground.citus)

    @classmethod
    def of_maintenance_for(cls, tenant: str, ground: Ground) -> Scope:
        """The role for work across tenants, at work on one: its statements, and the policy of the trail, bind it."""
        check_text(tenant, "tenant", MAX_NAME_BYTES)
        return cls(tenant, _opening(MAINTENANCE_ROLE, tenant, ground), separate_messages=ground.citus)

    def setting(self, settings: Mapping[str, str]) -> Scope:
        """The same, with these of the server's settings for the length of the transaction."""
        local, undo = _local(tuple(settings.items()))
        return replace(self, local=self.local + local, undo=self.undo + undo)


@lru_cache(maxsize=512)
def _local(settings: tuple[tuple[str, str], ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What sets these, and what undoes it. Kept: quoting a graph search's three took 0.4 of its client's 1.5 ms."""
    local = (sql.SQL("SET LOCAL {} = {}").format(_name(name), sql.Literal(value)) for name, value in settings)
    undo = (sql.SQL("SET LOCAL {} = DEFAULT").format(_name(name)) for name, _ in settings)
    return tuple(s.as_string(None) for s in local), tuple(s.as_string(None) for s in undo)


def _name(setting: str) -> sql.Composed:
    return sql.SQL(".").join(sql.Identifier(part) for part in setting.split("."))


@lru_cache(maxsize=4_096)
def _opening(role: str, tenant: str | None, ground: Ground) -> tuple[str, ...]:
    # Read committed by name: the locking below relies on it, and a server's or a caller's default may differ.
    # The search path is ours: pgvector's operators are found wherever it lives. Where others may create in its schema,
    # Postgres still takes theirs if they fit better, so statements call its own with exactly the types declared.
    # pg_temp comes last by name; unsaid, types would be looked for there first.
    parts = [
        sql.SQL("BEGIN ISOLATION LEVEL READ COMMITTED"),
        sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)),
        sql.SQL("SET LOCAL search_path = pg_catalog, {}, pg_temp").format(sql.Identifier(ground.vector_schema)),
    ]
    if ground.citus:
        # First, so that what follows reaches the workers, where row-level security is: by SET LOCAL, because a role's
        # own setting has no effect after SET ROLE.
        parts.insert(1, sql.SQL("SET LOCAL citus.propagate_set_commands = 'local'"))
    if tenant is not None:
        parts.append(sql.SQL("SET LOCAL {} = {}").format(_name(TENANT_SETTING), sql.Literal(tenant)))
    return tuple(part.as_string(None) for part in parts)
