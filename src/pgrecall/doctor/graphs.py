"""Graphs: whether large collections have theirs, and what waits beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgrecall.doctor.findings import Check, Finding
from pgrecall.errors import PgRecallError
from pgrecall.operations import graphs
from pgrecall.statements import graphs as sql
from pgrecall.types import EmbedSpace

if TYPE_CHECKING:
    from pgrecall.stores.database import Database

#: A share of a space's rows in large collections that wait beside its graph, above which searches get slow.
UNPROMOTED_SHARE = 0.2


def check_graphs(database: Database) -> Iterator[Finding]:
    """Whether large collections have their graph; only a login for maintenance sees them."""
    check = Check("graphs", "a valid graph for each space with a large collection, and few rows that wait for it")
    try:
        gate = database._maintenance_gate()
        with gate.transaction(database._maintenance_scope(gate), "doctor graphs") as tx:
            problems = []
            for number, *identity, generation, _ in tx.rows(sql.SPACES, {}):
                space = EmbedSpace(*identity)
                if space.dim > graphs.MAX_DIM:
                    continue
                held = tx.rows(sql.COLLECTIONS, {"space": number, "generation": generation})
                large = [(i, w) for _, _, i, w in held if i + w > graphs.exact_max(space.dim)]
                inside, waiting = sum(i for i, _ in large), sum(w for _, w in large)
                pattern = f"^chunk_vectors_graph_{number}_{generation}$"
                if large and not any(valid for _, valid in tx.rows(sql.INDEXES, {"pattern": pattern})):
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
