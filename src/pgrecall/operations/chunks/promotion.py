"""Rows enter a graph: in batches by maintenance, and a few by each small upsert, where nobody maintains."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pgrecall.errors import ConfigurationError, PgRecallError
from pgrecall.operations.registry import Place
from pgrecall.operations.search.routes import MAX_DIM, Route, Routes, exact_max
from pgrecall.postgres.transactions import Gate
from pgrecall.statements import graphs as sql
from pgrecall.types import Action, EmbedSpace, OptimizeResult

logger = logging.getLogger("pgrecall")

#: Rows of a transaction that enters them into a live graph, at 1 to 3 ms each; and of one that only marks them.
ENTER_BATCH, MARK_BATCH = 100, 5_000
#: Rows that `optimize` enters by itself, where it can't have a graph built: some seconds.
OPTIMIZE_MOST = 2_000
#: Rows that an upsert enters for each that it wrote. Above one, so that what waits gets less; not all at once, so that
#: writing one chunk takes some 10 ms more and not 200.
PAYBACK = 4
#: What the transaction of an upsert's promotion may take: a vacuum of the graph could hold it up.
LIMITS = {"lock_timeout": "1s", "statement_timeout": "3s"}


def promote(
    gate: Gate,
    place: Place,
    space_id: int,
    generation: int,
    *,
    most: int,
    batch: int,
    moved: Callable[[int], None] = lambda _: None,
) -> int:
    """Move up to `most` waiting rows of a collection to `generation`; returns how many.

    Never waits for a writer: the row that one holds is about to change. `moved` hears of each batch.
    Bounded by `most`, because writers may add rows faster than a graph takes them in.
    """
    total = 0
    while total < most:
        size = min(batch, most - total)
        with gate.transaction(place.scope, "promote") as tx:
            count = tx.count(sql.PROMOTE, place.at(space=space_id, generation=generation, batch=size))
        total += count
        moved(count)
        if count < size:
            break
    return total


def optimize(gate: Gate, place: Place, space: EmbedSpace, space_id: int, route: Route) -> OptimizeResult:
    """What the application itself can do for a collection. Raises ConfigurationError where only an index would help."""
    if route.rows <= exact_max(space.dim) or space.dim > MAX_DIM:
        return optimized(gate, place, space_id, route.generation, "exact")
    if not route.built:
        raise ConfigurationError(
            f"collection {place.collection!r} has more than {exact_max(space.dim):,} rows, and its space {space_id} "
            "has no graph. An index is made by the tables' owner, whose login is not known: connect(…, admin_url=…), "
            "or PGRECALL_ADMIN_URL, or run `pgrecall maintain`. Until then searches are exact"
        )
    entered = promote(gate, place, space_id, route.generation, most=OPTIMIZE_MOST, batch=ENTER_BATCH)
    return optimized(gate, place, space_id, route.generation, "entered" if entered else "none")


def optimized(gate: Gate, place: Place, space_id: int, generation: int, action: Action) -> OptimizeResult:
    """The report: what was done, and what the collection holds now."""
    with gate.transaction(place.scope, "optimized") as tx:
        [(in_graph, waiting)] = tx.last(sql.HELD, place.at(space=space_id, generation=generation))
    return OptimizeResult(action, in_graph, waiting)


@dataclass(frozen=True, slots=True)
class Caretaker:
    """What an upsert does for the graph after its commit: a little, and never at the upsert's cost."""

    routes: Routes

    def tend(self, gate: Gate, place: Place, space: EmbedSpace, space_id: int, written: int) -> None:
        """Enter a few waiting rows where the collection is in a valid graph; whatever goes wrong is only logged.

        Nothing after a call that wrote more than a batch: for many rows maintenance is cheaper (a build takes 0.3 ms
        a row, entering 1 to 3), and `Routes` says when it is due. Nor within an atomic block, which commits later.
        """
        if not 0 < written <= ENTER_BATCH or gate.outside is not gate:
            return
        try:
            route = self.routes.find(gate, place, space, space_id)
            if route.by_graph(space, 1) and route.entered:
                most = min(ENTER_BATCH, PAYBACK * written)
                bounded = Place(place.scope.setting(LIMITS), place.collection)
                promote(gate, bounded, space_id, route.generation, most=most, batch=most)
        except PgRecallError as exc:
            logger.info("an upsert could not enter rows into space %d's graph: %s", space_id, exc)
