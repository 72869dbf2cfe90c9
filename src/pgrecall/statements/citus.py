"""Citus: the statements that distribute the tables, made from the schema and the current state.

A table can't be distributed while it has policies, or foreign keys to tables that are not distributed. So these are
dropped first and created again afterwards. A column's storage must be set before, because Citus does not pass a later
change on to the nodes; revisions set it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from pgrecall.schema import APP_ROLE, GRANTS, MAINTENANCE_ROLE, SCHEMA, TENANT_TABLES, embed_spaces, tenants
from pgrecall.statements import ddl

#: Tables that are copied to every node.
REFERENCE = (embed_spaces,)
#: Tables distributed by tenant and co-located: all rows of a tenant are on one node. Parents first.
DISTRIBUTED = tuple(reversed(TENANT_TABLES))
COLUMN = "tenant_id"
ROLES = (APP_ROLE, MAINTENANCE_ROLE)

INSTALLED = "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus')"

#: Table, its distribution ('h' by hash, 'n' a reference table), its co-location and its shards. Requires Citus.
PLACED = """
SELECT c.relname::text, p.partmethod::text, p.colocationid::int8,
  (SELECT count(*) FROM pg_catalog.pg_dist_shard s WHERE s.logicalrelid = p.logicalrelid)
FROM pg_catalog.pg_dist_partition p JOIN pg_catalog.pg_class c ON c.oid = p.logicalrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'pgrecall' ORDER BY 1
"""

GRAPHS = """
SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'pgrecall' AND c.relkind = 'i' AND c.relname ~ '^chunk_vectors_graph_[0-9]+_[0-9]+$' ORDER BY 1
"""

NO_LOGIN = """
SELECT rolname::text FROM pg_catalog.pg_roles
WHERE rolname IN ('pgrecall_app', 'pgrecall_maintenance') AND NOT rolcanlogin
"""

VECTOR_SCHEMA = """
SELECT n.nspname::text FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'vector'
"""


class Placed(NamedTuple):
    """A row of PLACED."""

    table: str
    method: str
    colocation: int
    shards: int

    @property
    def by_tenant(self) -> bool:
        """Whether it is distributed by tenant, not a reference table."""
        return self.method == "h"


class State(NamedTuple):
    """The current state: distributed tables, roles without LOGIN, graphs, and the schema of pgvector.

    Graphs are dropped first: with them copying a row would take milliseconds instead of microseconds.
    """

    placed: list[Placed]
    lacking: list[str]
    graphs: list[str]
    vector_schema: str


def _worker(*statements: str) -> str:
    """Run statements on each worker, without passing them on; returns a row for each, with whether it succeeded."""
    body = " ".join(f"{statement};" for statement in statements)
    block = f"DO $do$ BEGIN PERFORM pg_catalog.set_config('citus.enable_ddl_propagation', 'off', true); {body} END $do$"
    return "".join(("SELECT nodename, nodeport, success, result FROM run_command_on_workers($run$", block, "$run$)"))


def on_workers(statement: str) -> str:
    """Run one statement on each worker."""
    return _worker(statement)


def refused(rows: Iterable[Sequence[object]]) -> str | None:
    """The message of the first worker that failed, from the rows of such a statement."""
    return next((f"{node}:{port}: {said}" for node, port, success, said in rows if not success), None)


def logins(lacking: Collection[str]) -> Iterator[str]:
    """Create the roles with LOGIN on every node: Citus connects to its workers as the role of the transaction.

    They have no password, so that only the cluster's own pg_hba.conf admits them. `lacking` are the roles without LOGIN
    on this node.
    """
    for role in ROLES:
        attributes = "LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION"
        make = f"IF pg_catalog.to_regrole('{role}') IS NULL THEN CREATE ROLE {role} {attributes}; END IF"
        may = "".join(("(SELECT rolcanlogin FROM pg_catalog.pg_roles WHERE rolname = '", role, "')"))
        yield _worker(make, f"IF NOT {may} THEN ALTER ROLE {role} LOGIN; END IF")
        if role in lacking:
            yield f"ALTER ROLE {role} LOGIN"


def distribute(state: State, shards: int | None) -> list[str]:
    """The statements to run, in order, in autocommit mode. Empty if every table is already distributed."""
    there = {one.table for one in state.placed}
    reference = [table for table in REFERENCE if table.name not in there]
    distributed = [table for table in DISTRIBUTED if table.name not in there]
    todo = [*reference, *distributed]
    if not todo:
        return []
    names = ", ".join(f"{SCHEMA}.{table.name}" for table in todo)
    return [
        "SET search_path = pg_catalog, pg_temp",
        *logins(state.lacking),
        "BEGIN",
        # One connection to each node: several would not see each other's tables.
        "SET LOCAL citus.multi_shard_modify_mode = 'sequential'",
        "SET LOCAL citus.shard_replication_factor = 1",
        "SET LOCAL lock_timeout = '10s'",
        f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE",
        *_without_graphs(state.graphs),
        *(ddl.drop_foreign_key(table, name) for table, name, _ in _foreign_keys(todo)),
        *(line for table in distributed for line in ddl.drop_policies(table.name)),
        *(line for table in distributed for line in ddl.loosen_row_security(table.name)),
        *(f"SELECT create_reference_table('{SCHEMA}.{table.name}')" for table in reference),
        *(_distribute(table, shards) for table in distributed),
        *(add for _, _, add in _foreign_keys(todo)),
        *(line for table in distributed for line in ddl.force_row_security(table.name)),
        *(line for table in distributed for line in ddl.create_policies(table.name)),
        *_grants(state.vector_schema),
        *(line for table in reference for line in ddl.grants(table.name)),
        *(line for table in distributed for line in ddl.grants(table.name)),
        "COMMIT",
        # The rows are on the nodes now; nothing reads what is left of them here.
        *(f"SELECT truncate_local_data_after_distributing_table('{SCHEMA}.{table.name}')" for table in reversed(todo)),
    ]  # fmt: skip


def _without_graphs(graphs: Collection[str]) -> Iterator[str]:
    yield from (f"DROP INDEX {SCHEMA}.{name}" for name in graphs)
    if graphs:
        # With generation 0 every row waits, whatever its own number is.
        yield "UPDATE pgrecall.embed_spaces SET graph_generation = 0, graph_rows = 0 WHERE graph_generation <> 0"


def _foreign_keys(todo: list[sa.Table]) -> Iterator[tuple[sa.Table, str, str]]:
    """Foreign keys of these tables, and to them: the table, the name, and the statement that adds the key."""
    names = {table.name for table in todo}
    for table in DISTRIBUTED:
        for constraint in table.foreign_key_constraints:
            if table.name in names or constraint.referred_table.name in names:
                yield table, str(constraint.name), ddl.foreign_keys(table)[str(constraint.name)]


def _distribute(table: sa.Table, shards: int | None) -> str:
    how = f"colocate_with => '{SCHEMA}.{tenants.name}'"
    if table is tenants:
        how = "colocate_with => 'none'" + ("" if shards is None else f", shard_count => {shards}")
    return f"SELECT create_distributed_table('{SCHEMA}.{table.name}', '{COLUMN}', {how})"


def _grants(vector_schema: str) -> Iterator[str]:
    """Grants on schemas: pgrecall's, and pgvector's unless that is `public`."""
    for role in GRANTS[SCHEMA]:
        yield f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}"
    if vector_schema != "public":
        quoted = '"' + vector_schema.replace('"', '""') + '"'
        yield from (f"GRANT USAGE ON SCHEMA {quoted} TO {role}" for role in ROLES)
