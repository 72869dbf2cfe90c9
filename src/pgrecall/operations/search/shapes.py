"""Searches: chooses between a scan and the graph, runs the statement, and converts its rows to hits."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from pgrecall import guards
from pgrecall.errors import ConfigurationError
from pgrecall.hits import Explanation, Fusion, Hit, Hits, ReciprocalRank, SearchMode, SearchStep, Weighted
from pgrecall.operations.registry import Place, StaleSpace, find_collection, refuse_space, space_params
from pgrecall.operations.search import mmr
from pgrecall.operations.search.routes import CANDIDATES, SMALL, UNKNOWN, Large, Route, exact_max
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Gate, Scope
from pgrecall.statements import search as statements
from pgrecall.statements.reads import Where
from pgrecall.statements.search import Form, FoundChunk, Graph
from pgrecall.statements.words import words
from pgrecall.types import Distance, EmbedSpace, Vector

#: Default number of results that each side of a hybrid search contributes; more if `top_k` is larger. With 20 instead
#: of 50, nDCG@10 on Cranfield was lower by .005.
DEPTH = 50
#: At most RANKED chunks with the words are ranked, at 2 to 3 µs each, and the best POOL of those are scored by word.
RANKED, POOL = 200_000, 2_000
#: Matches the query's vector, which EXPLAIN prints in full, more than once.
VECTOR = re.compile(r"'\[[-+.,\de]{40,}\]'")


@dataclass(frozen=True, slots=True)
class Query:
    """A search of one collection.

    `values` are the bound values of `where`. Fields that `mode` does not need are ignored. `exact` forbids the graph;
    `ef_search` applies only if the graph is used.
    """

    place: Place
    space: EmbedSpace
    space_id: int
    top_k: int
    where: Where
    values: dict[str, Any]
    route: Route
    vector: Vector | None = None
    text: str = ""
    mode: SearchMode = "dense"
    fusion: Fusion = field(default_factory=Weighted)
    dense_k: int = DEPTH
    sparse_k: int = DEPTH
    with_vectors: bool = False
    counts: bool = False
    exact: bool = False
    ef_search: int | None = None

    @property
    def nearest(self) -> int:
        """How many results the dense side returns."""
        return self.dense_k if self.mode == "hybrid" else self.top_k


@dataclass(frozen=True, slots=True)
class Sent:
    """A statement as sent to the server, and the rows that it returned."""

    statement: str
    params: dict[str, Any]
    scope: Scope
    settings: dict[str, str]
    rows: list[FoundChunk]
    by_graph: bool
    fell_back: bool = False


#: Runs a search; rows are best first. If the collection exists, there is at least one row; its chunk id is NULL if
#: nothing matches.
Shape: TypeAlias = Callable[[Gate, Query], Sent]


def route(query: Query) -> Shape:
    """The shape for a query: the graph if it is faster and `exact` is not set, else exact."""
    if query.mode != "sparse" and not query.exact and query.route.by_graph(query.space, query.nearest):
        return graph
    return exact


def _form(query: Query, graph: Graph | None) -> Form:
    return Form(
        query.space.distance,
        query.mode,
        graph,
        "reciprocal" if isinstance(query.fusion, ReciprocalRank) else "weighted",
        query.with_vectors,
        query.counts,
    )


def _params(query: Query) -> dict[str, Any]:
    values = query.place.at(space=query.space_id, k=query.top_k, **space_params(query.space), **query.values)
    if query.mode != "sparse":
        assert query.vector is not None
        values["query"] = wire.halfvec(guards.to_stored([query.vector], query.space, ["the query"]).vectors[0])
    if query.mode != "dense":
        asked = {"text_config": query.route.text_config, "ranked": RANKED, "pool": POOL, "rows": query.route.rows}
        values |= asked | dict(words(query.text))
    if query.mode == "hybrid":
        values |= {"dense_k": query.dense_k, "sparse_k": query.sparse_k, "alpha": float(query.fusion.alpha)}
        if isinstance(query.fusion, ReciprocalRank):
            values["rank_k"] = float(query.fusion.k)
    return values


def _send(
    gate: Gate, query: Query, form: Form, params: dict[str, Any], settings: dict[str, str], *, bounded: bool
) -> Sent:
    """Send the statement. If it is `bounded`, one plan is best for every tenant, so the server may prepare it.

    The plan may date from when the tables were empty, so it must use their indexes.
    """
    prepare = bounded and query.mode == "dense" and not query.where
    if prepare:
        settings = settings | {"enable_seqscan": "off"}
    scope = query.place.scope.setting(settings) if settings else query.place.scope
    statement = statements.search(form, query.where)
    what = f"search {'exact' if form.graph is None else 'graph'}"
    rows = [FoundChunk(*row) for row in gate.read(scope, what, lambda tx: tx.last(statement, params, prepare=prepare))]
    return Sent(statement, params, scope, settings, rows, by_graph=form.graph is not None)


def exact(gate: Gate, query: Query) -> Sent:
    """Scan the collection, or the chunks that match: recall 1.0, about 1 µs per row at 384 dims.

    Raises Large if nothing is cached about the collection and it turns out to be large.
    """
    if query.route is not UNKNOWN:
        return _send(gate, query, _form(query, None), _params(query), {}, bounded=query.route is SMALL)
    most = exact_max(query.space.dim) + 1
    sent = _send(
        gate, query, replace(_form(query, None), if_small=True), _params(query) | {"most": most}, {}, bounded=True
    )
    if sent.rows and sent.rows[0].candidates == most:
        raise Large
    return sent


def graph(gate: Gate, query: Query) -> Sent:
    """Search by the graph, and scan the rows that are not in it yet. Falls back to `exact` if it finds too few rows."""
    k = query.nearest
    fetch, most = k * 2, max(CANDIDATES, k)
    settings = {
        "hnsw.ef_search": str(query.ef_search or max(query.route.breadth(filtered=bool(query.where)), fetch)),
        # Continues until enough rows are found, even if other tenants' rows, or dead ones, are nearer.
        "hnsw.iterative_scan": "relaxed_order",
        # The planner has no statistics about a new tenant, and would sort the whole collection instead.
        "enable_sort": "off",
    }
    built = Graph(query.space_id, query.space.dim, query.route.generation)
    sent = _send(
        gate, query, _form(query, built), _params(query) | {"fetch": fetch, "most": most}, settings, bounded=True
    )
    if not sent.rows or not sent.rows[0].same:
        return sent
    first = sent.rows[0]
    # With a filter, all matching rows may have been searched one by one. Then there are no more to find.
    sure = first.candidates is not None and first.candidates < most
    if first.dense_found is not None and first.dense_found < k and not sure:
        return replace(exact(gate, query), fell_back=True)
    return sent


def search(gate: Gate, query: Query) -> Hits:
    """The best hits of the query. Raises: EmbedSpaceMismatch, ConfigurationError, StaleSpace, Large."""
    return Hits(_hit(row, n, query) for n, row in enumerate(_found(gate, query)[0], 1))


def diverse(gate: Gate, query: Query, k: int, lambda_mult: float) -> Hits:
    """`k` of the query's best hits, chosen and ordered by MMR. Raises as `search` does."""
    return Hits(_picked(_found(gate, replace(query, with_vectors=True))[0], query, k, lambda_mult))


def _picked(rows: list[FoundChunk], query: Query, k: int, lambda_mult: float) -> list[Hit]:
    if not rows:
        return []
    vectors = np.stack([wire.halfvec_values(row.vector) for row in rows if row.vector is not None]).astype(np.float32)
    taken = mmr.order(np.asarray(query.vector, dtype=np.float64), vectors, k, lambda_mult)
    return [_hit(rows[i], i + 1, query) for i in taken]


def explained(
    gate: Gate, query: Query, steps: list[SearchStep], *, plan: bool, pick: tuple[int, float] | None = None
) -> Hits:
    """Like `search`, or like `diverse` if `pick` has its `k` and `lambda_mult`, with an explanation.

    `steps` is the list that the watched gate appends to.
    """
    query = replace(query, counts=True, with_vectors=pick is not None)
    rows, sent = _found(gate, query)
    hits = _picked(rows, query, *pick) if pick else [_hit(row, n, query) for n, row in enumerate(rows, 1)]
    taken, dense, sparse = tuple(steps), query.mode != "sparse", query.mode != "dense"
    shape: Literal["exact", "graph", "none"] = "none"
    if dense:
        shape = "graph" if sent is not None and sent.by_graph else "exact"
    first = sent.rows[0] if sent is not None and sent.rows else None
    counted = {"dense": first.dense_found, "sparse": first.sparse_found, "filter": first.candidates} if first else {}
    depth = {"dense": query.nearest} if dense else {}
    if sparse:
        depth["sparse"] = query.sparse_k if query.mode == "hybrid" else query.top_k
    return Hits(
        hits,
        Explanation(
            mode=query.mode,
            shape=shape,
            fell_back=sent is not None and sent.fell_back,
            rows=query.route.rows,
            generation=query.route.generation if shape == "graph" else None,
            top_k=query.top_k,
            depth=depth,
            candidates={name: count for name, count in counted.items() if count is not None},
            settings={} if sent is None else sent.settings,
            steps=taken,
            fusion=query.fusion if query.mode == "hybrid" else None,
            text_config=query.route.text_config if sparse else None,
            exact=query.exact,
            ef_search=query.ef_search,
            plan=_plan(gate, sent) if plan and sent is not None else None,
        ),
    )


def _plan(gate: Gate, sent: Sent) -> str:
    rows = gate.read(sent.scope, "plan", lambda tx: tx.last(statements.EXPLAIN + sent.statement, sent.params))
    return VECTOR.sub("'[…]'", "\n".join(row[0] for row in rows))


def _found(gate: Gate, query: Query) -> tuple[list[FoundChunk], Sent | None]:
    """The rows that were found, and the statement. A collection that does not exist has no rows."""
    if query.mode != "dense" and not query.route.text_complete:
        _refuse(gate, query)
        return [], None
    sent = route(query)(gate, query)
    if sent.rows and not sent.rows[0].same:
        _refuse(gate, query)
    return [row for row in sent.rows if row.chunk_id is not None], sent


def _hit(row: FoundChunk, place: int, query: Query) -> Hit:
    dense_rank, sparse_rank, score = row.dense_rank, row.sparse_rank, row.score
    if query.mode == "dense":
        assert row.distance is not None
        dense_rank, score = place, similarity(row.distance, query.space.distance)
    elif query.mode == "sparse":
        sparse_rank, score = place, row.text_score
    assert row.chunk_id is not None and score is not None
    return Hit(
        chunk_id=row.chunk_id,
        score=score,
        distance=row.distance,
        text=row.text,
        metadata=row.metadata,
        doc_id=row.doc_id,
        index=row.chunk_index,
        source=row.source,
        uri=row.uri,
        payload=row.payload,
        dense_rank=dense_rank,
        sparse_rank=sparse_rank,
        text_score=row.text_score,
    )


def similarity(distance: float, kind: Distance) -> float:
    """Convert pgvector's distance to a score; higher is better."""
    if kind == "cosine":
        return 1.0 - distance
    return -distance if kind == "ip" else 1.0 / (1.0 + distance)


def _refuse(gate: Gate, query: Query) -> None:
    """Raise the reason why the collection cannot answer this query. If the collection does not exist, return.

    Raises:
        EmbedSpaceMismatch: The collection has another space.
        ConfigurationError: The query has words, and the collection has no full-text search, or not for all chunks yet.
        StaleSpace: The query is valid, but cached information about the collection is outdated.
    """
    held = find_collection(gate, query.place)
    name = query.place.collection
    if held is None:
        return
    if held.space != query.space:
        refuse_space(f"collection {name!r}", held.space, query.space)
    if query.mode != "dense" and held.text_config is None:
        raise ConfigurationError(
            f"collection {name!r} has no full-text search, so it cannot be searched by words; enable it with "
            f"tenant.set_text_config({name!r}, 'english') or pgrecall collections text {name} --config english"
        )
    if query.mode != "dense" and not held.text_complete:
        raise ConfigurationError(
            f"full-text search of collection {name!r} with text_config={held.text_config!r} does not cover all chunks "
            "yet, so it would miss some; wait until it does, or resume an interrupted call: "
            f"tenant.set_text_config({name!r}, {held.text_config!r})"
        )
    raise StaleSpace
