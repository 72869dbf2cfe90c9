"""Search: the router, which chooses the shape that answers a query, and the shapes, exact and graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from pgrecall import guards, wire
from pgrecall.operations import mmr
from pgrecall.operations.chunks import whole_number
from pgrecall.operations.graphs import CANDIDATES, EF_SEARCH, Route
from pgrecall.operations.registry import Place, StaleSpace, find_collection, refuse_space, space_params
from pgrecall.statements import search as statements
from pgrecall.statements.reads import Where
from pgrecall.tenancy import Gate, Rows
from pgrecall.types import Distance, EmbedSpace, Hit, Vector


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for, and where. `values` are those that `where` binds."""

    place: Place
    space: EmbedSpace
    space_id: int
    vector: Vector
    top_k: int
    where: Where
    values: dict[str, Any]
    route: Route
    with_vectors: bool = False


#: A shape's rows: whether the collection answers in the query's space, then what a Hit is made of, best first.
#: One row at least where the collection exists; its chunk id is NULL where nothing matches.
Shape: TypeAlias = Callable[[Gate, Query], Rows]


def route(query: Query) -> Shape:
    """The shape that answers a query best: exact below some thousand rows, else the graph."""
    if query.route.by_graph(query.space, query.top_k):
        return graph
    return exact


def _params(query: Query) -> dict[str, Any]:
    stored = guards.to_stored([query.vector], query.space, ["the query"]).vectors[0]
    return query.place.at(
        space=query.space_id,
        k=whole_number(query.top_k, "top_k", 1),
        query=wire.halfvec(stored),
        **space_params(query.space),
        **query.values,
    )


def exact(gate: Gate, query: Query) -> Rows:
    """A scan of the collection, or of what matches: recall 1.0, about 1 µs a row at 384 dims."""
    with gate.transaction(query.place.scope, "search exact") as tx:
        return tx.last(
            statements.nearest(query.space.distance, query.where, with_vectors=query.with_vectors), _params(query)
        )


def graph(gate: Gate, query: Query) -> Rows:
    """The graph, and an exact scan of what waits to enter it; all of it exactly where that gives fewer than k rows."""
    fetch, most = max(EF_SEARCH, query.top_k * 2), max(CANDIDATES, query.top_k)
    settings = {
        "hnsw.ef_search": str(fetch),
        # Goes on where other tenants' rows, or dead ones, were nearer, until enough are found.
        "hnsw.iterative_scan": "relaxed_order",
        # The router decided; the planner, who has no statistics of a new tenant, would sort the collection instead.
        "enable_sort": "off",
    }
    space = query.space
    built = (query.space_id, space.dim, query.route.generation)
    statement = statements.nearest_by_graph(space.distance, query.where, *built, with_vectors=query.with_vectors)
    scope = query.place.scope.setting(settings)
    with gate.transaction(scope, "search graph") as tx:
        rows = tx.last(statement, _params(query) | {"fetch": fetch, "most": most})
    sure = False
    if query.where:
        sure = bool(rows) and rows[0][-1] < most
        rows = [row[:-1] for row in rows]
    if rows and rows[0][0] and len(rows) < query.top_k and not sure:
        return exact(gate, query)
    return rows


def search(gate: Gate, query: Query) -> list[Hit]:
    """The chunks nearest to the query's vector. Raises as its shape does, EmbedSpaceMismatch and StaleSpace."""
    return [_hit(row, query.space.distance) for row in _found(gate, query)]


def diverse(gate: Gate, query: Query, k: int, lambda_mult: float) -> list[Hit]:
    """Of the query's nearest chunks `k` that are unlike each other, in the order of MMR. Raises as `search` does."""
    rows = _found(gate, replace(query, with_vectors=True))
    if not rows:
        return []
    vectors = np.stack([wire.halfvec_values(row[-1]) for row in rows]).astype(np.float32)
    taken = mmr.order(np.asarray(query.vector, dtype=np.float32), vectors, k, lambda_mult)
    return [_hit(rows[i], query.space.distance) for i in taken]


def _found(gate: Gate, query: Query) -> Rows:
    rows = route(query)(gate, query)
    if rows and not rows[0][0]:
        _explain(gate, query)
    return [row for row in rows if row[1] is not None]


def _hit(row: tuple[Any, ...], distance_kind: Distance) -> Hit:
    _, chunk_id, distance, text, metadata, doc_id, index, payload, source, uri = row[:10]
    return Hit(
        chunk_id=chunk_id,
        score=similarity(distance, distance_kind),
        distance=distance,
        text=text,
        metadata=metadata,
        doc_id=doc_id,
        index=index,
        source=source,
        uri=uri,
        payload=payload,
    )


def similarity(distance: float, kind: Distance) -> float:
    """A distance of pgvector as a score, higher is better."""
    if kind == "cosine":
        return 1.0 - distance
    return -distance if kind == "ip" else 1.0 / (1.0 + distance)


def _explain(gate: Gate, query: Query) -> None:
    """Raise EmbedSpaceMismatch; or StaleSpace, where the collection's space is the right one after all."""
    held = find_collection(gate, query.place)
    if held is not None and held.space != query.space:
        refuse_space(f"collection {query.place.collection!r}", held.space, query.space)
    raise StaleSpace
