"""Where the tables are: in one database, in partitions, or on the nodes of a Citus cluster."""

from __future__ import annotations

from pgrecall.doctor.findings import Check, Finding
from pgrecall.doctor.server import ServerFacts
from pgrecall.postgres.transactions import Gate
from pgrecall.statements import citus, partitions
from pgrecall.statements.citus import Placed


def check_placement(gate: Gate, server: ServerFacts) -> Finding:
    """Whether the tables are local or distributed, and whether any table is missing or not co-located."""
    check = Check("placement", "every table in one database, or on Citus, co-located by tenant")
    with gate.bare() as tx:
        parts = tx.rows(partitions.COUNT, {})
        placed = [Placed(*row) for row in tx.rows(citus.PLACED, {})] if server.citus else []
    if not placed:
        how = f"the large tables in {parts[0][0]} partitions each" if parts else "not partitioned"
        return check.ok(f"in this database, {how}{'; Citus is installed, but not used' if server.citus else ''}")
    by_tenant = {one.table: one for one in placed if one.by_tenant}
    everywhere = {one.table for one in placed if one.method == "n"}
    forgotten = [table.name for table in citus.DISTRIBUTED if table.name not in by_tenant]
    forgotten += [table.name for table in citus.REFERENCE if table.name not in everywhere]
    if forgotten:
        left = f"{', '.join(forgotten)} are not, so statements can't join them"
        return check.fail(f"{len(by_tenant)} tables are distributed, but {left}", "pgrecall db distribute")
    if len({one.colocation for one in by_tenant.values()}) > 1:
        groups: dict[int, list[str]] = {}
        for one in by_tenant.values():
            groups.setdefault(one.colocation, []).append(one.table)
        *few, _ = sorted(groups.values(), key=len)
        apart = [name for group in few for name in group]
        fix = " ".join(
            f"SELECT update_distributed_table_colocation('pgrecall.{name}', colocate_with => 'pgrecall.tenants');"
            for name in apart
        )
        return check.fail(f"{', '.join(apart)} are not co-located with the other tables", fix)
    shards = by_tenant["tenants"].shards
    return check.ok(
        f"on Citus: {len(by_tenant)} tables by tenant in {shards} shards, co-located; "
        f"{', '.join(sorted(everywhere))} on every node"
    )
