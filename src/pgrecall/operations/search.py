"""Search: the router, which chooses the shape that answers a query, and the shapes. So far there is one, exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from pgrecall import guards, wire
from pgrecall.operations.chunks import whole_number
from pgrecall.operations.registry import Place, StaleSpace, find_collection, refuse_space, space_params
from pgrecall.statements import reads
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


#: A shape's rows: whether the collection answers in the query's space, then what a Hit is made of, best first.
#: One row at least where the collection exists; its chunk id is NULL where nothing matches.
Shape: TypeAlias = Callable[[Gate, Query], Rows]


def route(_query: Query) -> Shape:
    """The shape that answers a query best."""
    return exact


def exact(gate: Gate, query: Query) -> Rows:
    """A scan of the collection, or of what matches: recall 1.0, about 1 µs a row at 384 dims."""
    stored = guards.to_stored([query.vector], query.space, ["the query"]).vectors[0]
    params = query.place.at(
        space=query.space_id,
        k=whole_number(query.top_k, "top_k", 1),
        query=wire.halfvec(stored),
        **space_params(query.space),
        **query.values,
    )
    with gate.transaction(query.place.scope, "search exact") as tx:
        return tx.last(reads.nearest(query.space.distance, query.where), params)


def search(gate: Gate, query: Query) -> list[Hit]:
    """The chunks nearest to the query's vector. Raises as its shape does, EmbedSpaceMismatch and StaleSpace."""
    rows = route(query)(gate, query)
    if rows and not rows[0][0]:
        _explain(gate, query)
    return [
        Hit(
            chunk_id=chunk_id,
            score=similarity(distance, query.space.distance),
            distance=distance,
            text=text,
            metadata=metadata,
            doc_id=doc_id,
            index=index,
            source=source,
            uri=uri,
            payload=payload,
        )
        for _, chunk_id, distance, text, metadata, doc_id, index, payload, source, uri in rows
        if chunk_id is not None
    ]


def similarity(distance: float, kind: Distance) -> float:
    """A distance of pgvector as a score, higher is better."""
    if kind == "cosine":
        return 1.0 - distance
    return -distance if kind == "ip" else 1.0 / (1.0 + distance)


def _explain(gate: Gate, query: Query) -> None:
    """Raise EmbedSpaceMismatch; or StaleSpace, where the collection's space is the right one after all."""
    held = find_collection(gate, query.place)
    if held is not None and held.space != query.space:
        refuse_space(query.place.collection, held.space, query.space)
    raise StaleSpace
