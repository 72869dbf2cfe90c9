"""Graphs: whether large collections have one, how many rows wait or are gone, and the recall of searches."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pgrecall.doctor.findings import Check, Finding
from pgrecall.errors import DatabaseError, InvalidInput, PgRecallError
from pgrecall.operations.registry import Place
from pgrecall.operations.search.routes import MAX_DIM, MOST_EF_SEARCH, exact_max, look
from pgrecall.operations.search.sampling import distances, share, stored
from pgrecall.operations.search.shapes import Query, exact, graph
from pgrecall.postgres.transactions import Gate, Ground, Scope
from pgrecall.statements import graphs as sql
from pgrecall.statements.reads import Where
from pgrecall.types import EmbedSpace

if TYPE_CHECKING:
    from pgrecall.stores.database import Database

#: Shares of the rows in large collections above which maintenance is due. Rows that wait outside the graph are read one
#: by one by every search; rows that were deleted or changed since are still visited by every search.
UNPROMOTED_SHARE = LOST_SHARE = 0.2
#: Recall below which a graph should be rebuilt, or built denser. A new one with pgvector's defaults has .97 or more.
LEAST_RECALL = 0.95


@dataclass(frozen=True, slots=True)
class Sampling:
    """How recall is measured: the `k` nearest rows of `queries` stored vectors of each space, within `seconds` in all.

    With `queries=0` recall is not measured. Raises InvalidInput.
    """

    queries: int = 20
    k: int = 10
    seconds: float = 5.0

    def __post_init__(self) -> None:
        if self.queries < 0 or self.seconds < 0 or not 1 <= self.k < MOST_EF_SEARCH // 2:
            raise InvalidInput(
                f"recall can't be measured with {self.queries} queries, k={self.k} and {self.seconds} seconds; "
                f"expected 0 or more queries and seconds, and k from 1 to {MOST_EF_SEARCH // 2 - 1}"
            )


@dataclass(frozen=True, slots=True)
class GraphState:
    """A space with large collections, which have `rows` rows together. `waiting` of them are not in the graph.

    `lost_share` is the share of the graph's rows that were deleted or changed. `recall` is the share of an exact
    search's results that a search of the graph finds, from 0 to 1, over `recall_queries` stored vectors; None if it was
    not measured.
    """

    space_id: int
    space: str
    generation: int
    valid: bool
    large_collections: int
    rows: int
    waiting: int
    waiting_share: float
    lost_share: float
    recall: float | None
    recall_queries: int


class _Large(NamedTuple):
    tenant: str
    collection: str
    in_graph: int
    waiting: int


def look_at_graphs(database: Database, sampling: Sampling) -> list[GraphState] | None:
    """The graphs of all spaces with a large collection; None if the login may not act as the maintenance role."""
    until = time.monotonic() + sampling.seconds
    try:
        gate = database.backend.maintenance_gate()
        scope = database.backend.maintenance_scope(gate)
        with gate.transaction(scope, "doctor graphs") as tx:
            spaces = tx.last(sql.SPACES, {})
        found = (_look(gate, database.backend.maintenance_ground(gate), row, sampling, until) for row in spaces)
        return [state for state in found if state is not None]
    except PgRecallError:
        return None


def _look(gate: Gate, ground: Ground, row: tuple[Any, ...], sampling: Sampling, until: float) -> GraphState | None:
    number, *identity, generation, built = row
    space = EmbedSpace(*identity)
    with gate.transaction(Scope.of_maintenance(ground), "doctor graph") as tx:
        held = [_Large(*h) for h in tx.rows(sql.COLLECTIONS, {"space": number, "generation": generation})]
        valid = (generation,) in tx.last(sql.VALID, sql.names_of(number))
    large = [h for h in held if h.in_graph + h.waiting > exact_max(space.dim)]
    if not large or space.dim > MAX_DIM:
        return None
    rows, waiting = sum(h.in_graph + h.waiting for h in large), sum(h.waiting for h in large)
    shares: list[float] = []
    if valid:
        within = [h for h in large if h.in_graph]
        shares = list(_recall(gate, ground, number, space, within, sampling, until))
    return GraphState(
        space_id=number,
        space=str(space),
        generation=generation,
        valid=valid,
        large_collections=len(large),
        rows=rows,
        waiting=waiting,
        waiting_share=waiting / rows,
        lost_share=max(0.0, 1 - sum(h.in_graph for h in held) / built) if valid and built else 0.0,
        recall=sum(shares) / len(shares) if shares else None,
        recall_queries=len(shares),
    )


def _recall(
    gate: Gate,
    ground: Ground,
    number: int,
    space: EmbedSpace,
    collections: list[_Large],
    sampling: Sampling,
    until: float,
) -> Iterator[float]:
    """The recall of each sampled query, tenant by tenant, until the time is up."""
    chosen = random.sample(collections, min(len(collections), sampling.queries))
    for at, held in enumerate(chosen):
        count = sampling.queries // len(chosen) + (at < sampling.queries % len(chosen))
        try:
            place = _timed(ground, held, until)
            route = look(gate, place, space, number)
            for question in stored(gate, place, number, route, held.in_graph, count):
                if time.monotonic() >= until:
                    return
                query = Query(
                    _timed(ground, held, until),
                    space,
                    number,
                    sampling.k + 1,
                    Where.of(None),
                    {},
                    route,
                    question.vector,
                )
                right, got = (distances(shape(gate, query), question, sampling.k) for shape in (exact, graph))
                if right:
                    yield share(right, got)
        except DatabaseError:
            return  # out of time


def _timed(ground: Ground, held: _Large, until: float) -> Place:
    left = max(1, int((until - time.monotonic()) * 1_000))
    scope = Scope.of_maintenance_for(held.tenant, ground).setting({"statement_timeout": str(left)})
    return Place(scope, held.collection)


def check_graphs(states: list[GraphState]) -> Iterator[Finding]:
    """Whether large collections have a graph, and whether its recall is sufficient."""
    check = Check("graphs", "a valid graph for each space with a large collection, and few waiting rows")
    problems = []
    for state in states:
        if not state.valid:
            problems.append(f"space {state.space_id} has {state.large_collections} large collections, but no graph")
        elif state.waiting_share > UNPROMOTED_SHARE:
            problems.append(f"space {state.space_id}: {_percent(state.waiting_share)} of its rows are not in the graph")
        elif state.lost_share > LOST_SHARE:
            problems.append(f"space {state.space_id}: {_percent(state.lost_share)} of its graph was deleted or changed")
    if problems:
        yield check.bad("warn", "; ".join(problems) + ". Searches are slower than necessary", "pgrecall maintain")
    else:
        yield check.ok("every large collection is in a graph")
    for state in states:
        if state.recall is None:
            continue
        check = Check("recall", f"a recall of {LEAST_RECALL} or more, compared with exact searches")
        found = f"space {state.space_id}: {state.recall:.3f} over {state.recall_queries} samples"
        if state.recall < LEAST_RECALL:
            again = f"pgrecall spaces index {state.space_id}"
            yield check.bad("warn", found, f"{again}; if that is not enough, {again} --m 32 --ef-construction 128")
        else:
            yield check.ok(found)


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")
