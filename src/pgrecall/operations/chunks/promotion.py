"""Adds rows to a graph: in batches during maintenance, and a few after each small upsert."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from pgrecall.errors import ConfigurationError, PgRecallError
from pgrecall.operations.registry import Place
from pgrecall.operations.search.routes import MAX_DIM, Route, Routes, exact_max
from pgrecall.postgres.transactions import Gate
from pgrecall.statements import graphs as sql
from pgrecall.types import EmbedSpace, MaintenanceAction, OptimizeResult

logger = logging.getLogger("pgrecall")

#: Rows per transaction that adds them to a live graph, at 1 to 3 ms each, and per transaction that only marks them.
ENTER_BATCH, MARK_BATCH = 100, 5_000
#: Rows that `optimize` adds itself if it cannot build a graph; this takes a few seconds.
OPTIMIZE_MOST = 2_000
#: Rows that an upsert adds to the graph for each row that it wrote. More than one, so that the backlog shrinks; not
#: many more, so that writing one chunk takes about 10 ms longer and not 200.
PAYBACK = 4
#: Timeouts of the transaction that adds rows after an upsert, because a vacuum of the graph could block it.
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
    """Add up to `most` waiting rows of a collection to the graph of `generation`; returns how many.

    It skips rows that a writer has locked, because they are about to change. It calls `moved` with the size of each
    batch. `most` bounds it, because writers may add rows faster than the graph takes them in.
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
    """Do what the application's role can do for a collection. Raises ConfigurationError if it needs a new graph."""
    if route.rows <= exact_max(space.dim) or space.dim > MAX_DIM:
        return optimized(gate, place, space_id, route.generation, "exact")
    if not route.built:
        raise ConfigurationError(
            f"collection {place.collection!r} has more than {exact_max(space.dim):,} rows, but its space {space_id} "
            "has no graph, and building one requires the owner's login. Pass connect(…, admin_url=…), set "
            "PGRECALL_ADMIN_URL, or run `pgrecall maintain`. Until then, searches are exact"
        )
    entered = promote(gate, place, space_id, route.generation, most=OPTIMIZE_MOST, batch=ENTER_BATCH)
    return optimized(gate, place, space_id, route.generation, "entered" if entered else "none")


def optimized(gate: Gate, place: Place, space_id: int, generation: int, action: MaintenanceAction) -> OptimizeResult:
    """The result: what was done, and the collection's row counts now."""
    with gate.transaction(place.scope, "optimized") as tx:
        [(in_graph, waiting)] = tx.last(sql.HELD, place.at(space=space_id, generation=generation))
    return OptimizeResult(action, in_graph, waiting)


@dataclass(frozen=True, slots=True)
class Caretaker:
    """Adds a few rows to the graph after each small upsert has committed, without ever failing the upsert."""

    routes: Routes

    def after_upsert(self, gate: Gate, place: Place, space: EmbedSpace, space_id: int, written: int) -> None:
        """Add a few waiting rows if the collection is in a valid graph. Errors are only logged.

        Does nothing after a call that wrote more than a batch: maintenance is cheaper for many rows (a build takes
        0.3 ms a row, adding it later 1 to 3 ms), and `Routes` logs when it is due. Does nothing within an atomic block
        either, because that has not committed yet.
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
            logger.info("an upsert could not add rows to the graph of space %d: %s", space_id, exc)
