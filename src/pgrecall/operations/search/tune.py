"""Tunes a collection's `ef_search`: measures recall, and stores the smallest value that reaches the target."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence

from pgrecall.arguments import whole_number
from pgrecall.errors import ConfigurationError, InvalidInput, NotFound
from pgrecall.operations.registry import Place
from pgrecall.operations.search import sampling
from pgrecall.operations.search.routes import MAX_DIM, MOST_EF_SEARCH, exact_max, look
from pgrecall.operations.search.sampling import Question
from pgrecall.operations.search.shapes import Query, exact, graph
from pgrecall.postgres.transactions import Gate
from pgrecall.statements import graphs as sql
from pgrecall.statements.reads import Where
from pgrecall.types import EmbedSpace, TunePoint, TuneResult, Vector

#: The values that are tried, in this order.
TRIED = (20, 40, 60, 80, 100, 150, 200, 300, 400, 600, 800, MOST_EF_SEARCH)


def tune(
    gate: Gate,
    place: Place,
    space: EmbedSpace,
    space_id: int,
    *,
    target: float,
    k: int,
    queries: int,
    vectors: Sequence[Vector] | None,
) -> TuneResult:
    """Find and store the smallest `ef_search` whose recall@k reaches `target`, or the best one if none does.

    Raises: ConfigurationError, InvalidInput, NotFound.
    """
    route = look(gate, place, space, space_id)
    if route.rows <= exact_max(space.dim) or space.dim > MAX_DIM:
        return TuneResult(None, None, target, ())  # searched exactly: nothing to tune
    if not route.built:
        raise ConfigurationError(
            f"collection {place.collection!r} is large, but its space {space_id} has no valid graph to tune; build it "
            "first: pgrecall maintain"
        )
    if vectors is None:
        asked = sampling.stored(gate, place, space_id, route, max(route.rows, route.noted), queries)
    else:
        asked = [Question(None, vector) for vector in vectors]

    def query(question: Question, ef_search: int | None) -> Query:
        depth = k + (question.chunk_id is not None)
        return Query(place, space, space_id, depth, Where.of(None), {}, route, question.vector, ef_search=ef_search)

    right = [sampling.distances(exact(gate, query(q, None)), q, k) for q in asked]
    asked, right = [q for q, r in zip(asked, right, strict=True) if r], [r for r in right if r]
    if not asked:
        raise InvalidInput("there are no query vectors; expected at least one. Pass some, or omit `vectors`")
    points: list[TunePoint] = []
    for ef_search in (e for e in TRIED if e >= 2 * (k + 1) or e == MOST_EF_SEARCH):
        took, shares = [], []
        for question, wanted in zip(asked, right, strict=True):
            started = time.perf_counter()
            sent = graph(gate, query(question, ef_search))
            took.append(time.perf_counter() - started)
            shares.append(sampling.share(wanted, sampling.distances(sent, question, k)))
        points.append(TunePoint(ef_search, statistics.mean(shares), statistics.median(took) * 1e3))
        if points[-1].recall >= target:
            break
    best = max(points, key=lambda point: point.recall)  # ties go to the first, which is the smallest
    keep(gate, place, best.ef_search)
    return TuneResult(best.ef_search, best.recall, target, tuple(points))


def checked(ef_search: object) -> int:
    """Validate an `ef_search`. Raises InvalidInput."""
    number = whole_number(ef_search, "ef_search", 1)
    if number > MOST_EF_SEARCH:
        raise InvalidInput(f"ef_search is {number}; expected at most {MOST_EF_SEARCH}, which is pgvector's limit")
    return number


def keep(gate: Gate, place: Place, ef_search: int | None) -> None:
    """Store the collection's default `ef_search`; None restores the default by size. Raises NotFound."""
    noted = json.dumps({"ef_search": ef_search})
    statement = sql.FORGET_BREADTH if ef_search is None else sql.NOTE
    with gate.transaction(place.scope, "keep ef_search") as tx:
        if not tx.count(statement, place.at(noted=noted)):
            raise NotFound(f"tenant {place.scope.tenant!r} has no collection {place.collection!r}")
