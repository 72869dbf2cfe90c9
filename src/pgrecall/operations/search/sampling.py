"""How much a graph finds of what is there: stored vectors of a collection, asked by the graph and exactly."""

from __future__ import annotations

from typing import NamedTuple

from pgrecall.operations.registry import Place
from pgrecall.operations.search.routes import Route
from pgrecall.operations.search.shapes import Sent
from pgrecall.postgres.transactions import Gate
from pgrecall.postgres.wire import halfvec_values
from pgrecall.statements import graphs as sql
from pgrecall.types import Vector

#: Rows of a collection among which a sample is taken.
SAMPLED_FROM = 50_000


class Question(NamedTuple):
    """A vector to ask with; `chunk_id` is its own chunk, if it has one."""

    chunk_id: str | None
    vector: Vector


def stored(gate: Gate, place: Place, space_id: int, route: Route, rows: int, count: int) -> list[Question]:
    """Up to `count` vectors of the graph, spread over the collection, which holds `rows` of it."""
    step = max(1, min(rows, SAMPLED_FROM) // count)
    values = place.at(space=space_id, generation=route.generation, most=SAMPLED_FROM, step=step, count=count)
    found = gate.read(place.scope, "sample", lambda tx: tx.last(sql.SAMPLE, values))
    return [Question(chunk_id, halfvec_values(vector)) for chunk_id, vector in found]


def distances(sent: Sent, question: Question, k: int) -> list[float]:
    """Of the `k` nearest. A stored vector finds itself, which says nothing: ask for one more."""
    rows = (r for r in sent.rows if r.distance is not None and r.chunk_id != question.chunk_id)
    return [r.distance for r in rows if r.distance is not None][:k]


def share(right: list[float], got: list[float]) -> float:
    """Recall: the share of what is right that was got. Equal distances are equally right."""
    return sum(distance <= right[-1] + 1e-6 for distance in got) / len(right)
