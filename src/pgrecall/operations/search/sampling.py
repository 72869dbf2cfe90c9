"""Measures a graph's recall: searches for a sample of stored vectors by the graph and exactly, and compares."""

from __future__ import annotations

from typing import NamedTuple

from pgrecall.operations.registry import Place
from pgrecall.operations.search.routes import Route
from pgrecall.operations.search.shapes import Sent
from pgrecall.postgres.transactions import Gate
from pgrecall.postgres.wire import halfvec_values
from pgrecall.statements import graphs as sql
from pgrecall.types import Vector

#: The sample is taken from at most this many rows of a collection.
SAMPLED_FROM = 50_000


class Question(NamedTuple):
    """A query vector. `chunk_id` is the chunk that the vector belongs to, if any."""

    chunk_id: str | None
    vector: Vector


def stored(gate: Gate, place: Place, space_id: int, route: Route, rows: int, count: int) -> list[Question]:
    """Up to `count` vectors of the graph, evenly spread over the collection's `rows` rows."""
    step = max(1, min(rows, SAMPLED_FROM) // count)
    values = place.at(space=space_id, generation=route.generation, most=SAMPLED_FROM, step=step, count=count)
    found = gate.read(place.scope, "sample", lambda tx: tx.last(sql.SAMPLE, values))
    return [Question(chunk_id, halfvec_values(vector)) for chunk_id, vector in found]


def distances(sent: Sent, question: Question, k: int) -> list[float]:
    """Distances of the `k` nearest, without the question's own chunk. Search for k + 1 if it has one."""
    rows = (r for r in sent.rows if r.distance is not None and r.chunk_id != question.chunk_id)
    return [r.distance for r in rows if r.distance is not None][:k]


def share(right: list[float], got: list[float]) -> float:
    """Recall: the share of the `right` distances that `got` reaches. Equal distances are equally right."""
    return sum(distance <= right[-1] + 1e-6 for distance in got) / len(right)
