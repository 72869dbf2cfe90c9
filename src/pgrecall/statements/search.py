"""Search: the chunks nearest to a vector, exactly or by a graph; the chunks with a text's words; both, fused.

SQLAlchemy composes the statements, because they have filters. Each form is compiled once. Every form returns the same
columns: whether the collection can answer this query, the ranks, the parts of a Hit, and counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by

from pgrecall.hits import SearchMode
from pgrecall.schema import chunk_vectors, chunks, collections, documents, embed_spaces
from pgrecall.statements import keys, words
from pgrecall.statements.compose import bound, compiled, divided
from pgrecall.statements.fusion import min_max, reciprocal_rank
from pgrecall.statements.reads import CHUNK, Where, code_points, here, in_space, lookup, matching, satisfying
from pgrecall.types import Distance

#: pgvector's operator of each distance.
OPERATORS: dict[str, str] = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}
EXPLAIN = "EXPLAIN (ANALYZE, BUFFERS) "


class Graph(NamedTuple):
    """The numbers of a space's graph. Literals in the statement, so that the planner can use its index."""

    space_id: int
    dim: int
    generation: int


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a search, without its condition. Equal if the SQL is. Without a graph the dense leg is exact.

    With `if_small` the search answers only if the collection has fewer rows than `most`. Each row has the count, in the
    column `candidates`.
    """

    distance: Distance
    mode: SearchMode = "dense"
    graph: Graph | None = None
    fusion: Literal["reciprocal", "weighted"] = "weighted"
    with_vectors: bool = False
    counts: bool = False
    if_small: bool = False


class FoundChunk(NamedTuple):
    """A row of any form. The columns from `text` on are a Hit's. `chunk_id` is NULL if nothing was found."""

    same: bool
    chunk_id: str | None
    distance: float | None
    dense_rank: int | None
    text_score: float | None
    sparse_rank: int | None
    score: float | None
    text: str
    metadata: dict[str, Any]
    doc_id: str | None
    chunk_index: int | None
    payload: dict[str, Any] | None
    source: str | None
    uri: str | None
    vector: bytes | None
    dense_found: int | None
    sparse_found: int | None
    candidates: int | None


class _Leg(NamedTuple):
    """The results of one way of searching, best first, and the number of candidates if it is counted."""

    rows: sa.CTE
    candidates: Any


@lru_cache(maxsize=1024)
def search(form: Form, where: Where) -> str:
    """The statement of a search. It returns at least one row if the collection exists."""
    none = sa.null()
    order: Any
    if form.mode == "sparse":
        leg = _sparse(where, "k")
        near, ranked = leg.rows, [none, none, leg.rows.c.text_score, none, none]
        order, counts = leg.rows.c.text_score.desc(), [none, leg.candidates, none]
    elif form.mode == "dense":
        leg = _dense(form, where, "k")
        near, ranked = leg.rows, [leg.rows.c.distance, none, none, none, none]
        order, counts = leg.rows.c.distance, [_count(leg.rows), none, leg.candidates]
    else:
        dense, sparse = _dense(form, where, "dense_k"), _sparse(where, "sparse_k")
        near = _fused(form, dense.rows, sparse.rows)
        ranked = [near.c[n] for n in ("distance", "dense_rank", "text_score", "sparse_rank", "score")]
        order, counts = near.c.score.desc(), [_count(dense.rows), sparse.candidates, dense.candidates]
    if form.graph is None and not form.counts:
        counts = [none, none, leg.candidates if form.if_small else none]
    return compiled(_hits(form, near, ranked, order, counts))


def _materialized(select: Any, name: str) -> sa.CTE:
    cte: sa.CTE = select.cte(name).prefix_with("MATERIALIZED")
    return cte


def _count(rows: sa.CTE) -> sa.ScalarSelect[Any]:
    return sa.select(sa.func.count()).select_from(rows).scalar_subquery()


def _dense(form: Form, where: Where, k: str) -> _Leg:
    """The `k` nearest: (chunk_id, distance)."""
    return _exactly(form, where, k) if form.graph is None else _by_graph(form, form.graph, where, k)


def _exactly(form: Form, where: Where, k: str) -> _Leg:
    """The exact leg. It orders by the column itself, which no graph's index can match."""
    if where:
        found = matching(where)
        own = (chunk_vectors.c.chunk_id == found.c.id, in_space())
        vector = lookup(sa.select(chunk_vectors.c.embedding), chunk_vectors, *own)
        chunk_id, embedding = found.c.id, vector.c.embedding
        candidates = sa.select(chunk_id.label("chunk_id")).select_from(found.rows.join(vector, sa.true()))
        candidates = candidates.where(*found.conditions)
    else:
        chunk_id, embedding = chunk_vectors.c.chunk_id, chunk_vectors.c.embedding
        # `graph >= 0` is true of every row; only statements with this condition can use the scan index (see schema).
        every = chunk_vectors.c.graph >= sa.literal_column("0")
        candidates = sa.select(chunk_id).where(*here(chunk_vectors), in_space(), every)
    counted: Any = sa.null()
    if form.if_small:
        # Counted once, then a one-time filter: no vector of a large collection is read.
        every = chunk_vectors.c.graph >= sa.literal_column("0")
        bounded: Any = sa.select(sa.literal_column("1")).where(*here(chunk_vectors), in_space(), every)
        rows = sa.select(sa.func.count().label("rows")).select_from(bounded.limit(bound("most")).subquery("some"))
        counted = sa.select(_materialized(rows, "counted").c.rows).scalar_subquery()
        candidates = candidates.where(counted < sa.cast(bound("most"), sa.BigInteger))
    apart = _apart(form, embedding, sa.cast(bound("query"), HALFVEC))
    nearest = candidates.add_columns(apart.label("distance")).order_by(apart, code_points(chunk_id)).limit(bound(k))
    return _Leg(_materialized(nearest, "near"), counted)


def _apart(form: Form, embedding: Any, query: Any) -> Any:
    return embedding.op(OPERATORS[form.distance], return_type=sa.Float())(query)


def _by_graph(form: Form, graph: Graph, where: Where, k: str) -> _Leg:
    """The leg by the space's graph, and exactly over the rows that wait to enter it.

    The rows are right for any generation: a newer graph has all rows of an older one, and without a graph both parts
    are exact. The graph returns rows in approximate order, so `fetch` of them are sorted again. This happens in a CTE
    and by another expression, else the planner would take the approximate order for the right one, and stop at `k`.

    With a condition, up to `most` matching chunks are collected first. If these are all, they are searched exactly.
    Else the graph is searched, and the condition is checked for each of its rows.
    """
    query = sa.cast(bound("query"), HALFVEC)
    space = chunk_vectors.c.space_id == sa.literal_column(str(graph.space_id), sa.SmallInteger)
    held = sa.literal_column(str(graph.generation), sa.SmallInteger)
    as_indexed = _apart(
        form, sa.cast(chunk_vectors.c.embedding, HALFVEC(graph.dim)), sa.cast(bound("query"), HALFVEC(graph.dim))
    )
    as_stored = _apart(form, chunk_vectors.c.embedding, query)
    conditions: list[Any] = [*here(chunk_vectors), space]
    legs: list[Any] = []
    collected: Any = sa.null()
    if where:
        candidates, collected = _candidates(where)
        own = (chunk_vectors.c.chunk_id == candidates.c.id, in_space())
        vector = lookup(sa.select(chunk_vectors.c.embedding), chunk_vectors, *own)
        apart = _apart(form, vector.c.embedding, query)
        few = sa.select(candidates.c.id.label("chunk_id"), apart.label("distance")).join(vector, sa.true())
        few = few.where(collected < sa.cast(bound("most"), sa.BigInteger))
        legs.append(few.order_by(apart, code_points(candidates.c.id)).limit(bound(k)))
        # A scalar subquery is evaluated row by row in the graph's order; EXISTS could become a join that sorts.
        one = sa.select(sa.true()).where(*here(chunks), chunks.c.id == chunk_vectors.c.chunk_id, *satisfying(where))
        matches = one.limit(sa.literal_column("1")).correlate(chunk_vectors).scalar_subquery()
        conditions += [collected >= sa.cast(bound("most"), sa.BigInteger), sa.func.coalesce(matches, sa.false())]
    for apart, in_leg, order, limit in (
        (as_indexed, chunk_vectors.c.graph <= held, (as_indexed,), "fetch"),
        (as_stored, chunk_vectors.c.graph > held, (as_stored, code_points(chunk_vectors.c.chunk_id)), k),
    ):
        leg = sa.select(chunk_vectors.c.chunk_id, apart.label("distance")).where(*conditions, in_leg)
        leg = leg.order_by(*order).limit(bound(limit))
        if limit == "fetch":
            held_rows = _materialized(leg, "held")
            # `+ 0`, because since Postgres 17 the planner knows the order of a CTE's rows.
            again = held_rows.c.distance + sa.literal_column("0::float8")
            leg = sa.select(held_rows.c.chunk_id, again.label("distance"))
        legs.append(leg)
    both = sa.union_all(*(sa.select(leg.subquery()) for leg in legs)).subquery()
    nearest = sa.select(both.c.chunk_id, both.c.distance)
    nearest = nearest.order_by(both.c.distance, code_points(both.c.chunk_id)).limit(bound(k))
    return _Leg(_materialized(nearest, "near"), collected)


def _candidates(where: Where) -> tuple[sa.CTE, sa.ScalarSelect[int]]:
    """Up to `most` matching chunks, and their number; a number of `most` means that there may be more.

    Declared keys are read for as many ids, or for four times as many if the rest of the filter removes some. If they
    find more, the graph is used, and no chunk is read.
    """
    if where.keys is None:
        every = sa.select(chunks.c.id).where(*here(chunks), *satisfying(where))
        candidates = _materialized(every.limit(bound("most")), "candidates")
        return candidates, _count(candidates)
    most = sa.cast(bound("most"), sa.BigInteger)
    times = sa.literal_column("1" if where.by_keys_alone else "4", sa.BigInteger)
    ids = keys.few_ids(where.keys, most * times).label("ids")
    found = _materialized(sa.select(ids), "found")
    known = sa.cast(sa.select(found.c.ids).scalar_subquery(), ARRAY(sa.Text))
    few = matching(where, known)
    candidates = _materialized(sa.select(few.c.id).select_from(few.rows).limit(bound("most")), "candidates")
    collected = sa.select(sa.case((found.c.ids.is_not(None), _count(candidates)), else_=most).label("rows"))
    return candidates, sa.select(_materialized(collected, "collected").c.rows).scalar_subquery()


def _weight(text_search: Any, query: Any) -> Any:
    """How well a text matches a query: repeated words count more, and words in a text of many words count less.

    This is Postgres' rank with all weights 1 and normalization 16 (divided by 1 + the logarithm of the number of unique
    words).
    """
    ones: Any = sa.literal_column("'{1,1,1,1}'::float4[]")
    return sa.func.ts_rank(ones, text_search, query, sa.literal_column("16"), type_=sa.REAL())


def _sparse(where: Where, k: str) -> _Leg:
    """The `k` chunks that match the words best: (chunk_id, text_score).

    Of up to `ranked` matches, the `pool` with the highest ts_rank are scored by the ts_rank of each word times the
    word's rarity as in BM25 (Robertson and Zaragoza, 2009): ln(1 + (N - n + 0.5) / (n + 0.5)), where n is the number of
    chunks in the pool that have the word. N is the collection's row count, as far as it was counted.
    """
    parts = words.alternatives()
    wanted, unwanted = words.wanted(parts), words.unwanted()
    # As subqueries they are evaluated once instead of once per row, and an index can be used.
    any_wanted, any_unwanted = (sa.select(cte.c.query).scalar_subquery() for cte in (wanted, unwanted))
    said = (
        sa.select(chunks.c.id, chunks.c.text_search)
        .where(*here(chunks), *satisfying(where), chunks.c.text_search.bool_op("@@")(any_wanted))
        .where(sa.not_(sa.func.coalesce(chunks.c.text_search.bool_op("@@")(any_unwanted), sa.false())))
        .limit(bound("ranked"))
        .subquery("matching")
    )
    rough = _weight(said.c.text_search, any_wanted)
    # An empty concatenation unpacks the value here, once, instead of for each word: 28 % of a search of long texts.
    unpacked = said.c.text_search.op("||")(sa.literal_column("''::tsvector")).label("text_search")
    best = sa.select(said.c.id.label("chunk_id"), unpacked)
    pooled = _materialized(best.order_by(rough.desc(), code_points(said.c.id)).limit(bound("pool")), "pooled")
    part = sa.select(parts.c.part, sa.func.row_number().over().label("number")).subquery("part")
    share = _weight(pooled.c.text_search, part.c.part).label("share")
    each = sa.select(pooled.c.chunk_id, part.c.number, share)
    shares = _materialized(each.where(pooled.c.text_search.bool_op("@@")(part.c.part)), "shares")
    having = sa.func.count().over(partition_by=shares.c.number).label("having")
    weighed = sa.select(*shares.c, having).subquery("weighed")
    rows = sa.func.greatest(sa.cast(bound("rows"), sa.BigInteger), _count(pooled))
    half: Any = sa.literal_column("0.5::float8")
    odds = divided(rows - weighed.c.having + half, weighed.c.having + half)
    rarity = sa.func.ln(sa.literal_column("1") + odds)
    # In the order of the words and as float4, so that equal texts get equal scores.
    total = sa.func.sum(aggregate_order_by(weighed.c.share * rarity, weighed.c.number))
    score = sa.cast(total, sa.REAL).label("text_score")
    scored = sa.select(weighed.c.chunk_id, score).group_by(weighed.c.chunk_id)
    scored = scored.order_by(score.desc(), code_points(weighed.c.chunk_id))
    return _Leg(_materialized(scored.limit(bound(k)), "said"), _count(pooled))


def _fused(form: Form, near: sa.CTE, said: sa.CTE) -> sa.CTE:
    """The chunks of both legs with their ranks in each, ordered by one score (see ReciprocalRank and Weighted)."""
    alpha = sa.cast(bound("alpha"), sa.Double)
    one: Any = sa.literal_column("1::float8")
    # Likeness: higher is better.
    likeness = divided(one, one + near.c.distance) if form.distance == "l2" else -near.c.distance
    dense = _ranked(near, likeness, near.c.distance.label("distance"), near.c.distance)
    text_score = sa.cast(said.c.text_score, sa.Double)
    sparse = _ranked(said, text_score, text_score.label("text_score"), text_score.desc())
    chunk_id = sa.func.coalesce(dense.c.chunk_id, sparse.c.chunk_id)
    parts: list[Any] = []
    value: Any
    for leg, weight in ((dense, alpha), (sparse, one - alpha)):
        if form.fusion == "reciprocal":
            # Times 2, so that equal weights give the published formula.
            value = sa.literal_column("2") * reciprocal_rank(leg.c.rank, sa.cast(bound("rank_k"), sa.Double))
        else:
            found = min_max(leg.c.likeness, leg.c.low, leg.c.high)
            value = sa.case((leg.c.chunk_id.is_(None), sa.literal_column("0")), else_=found)
        parts.append(weight * sa.func.coalesce(value, sa.literal_column("0")))
    score = (parts[0] + parts[1]).label("score")
    fused = (
        sa.select(
            chunk_id.label("chunk_id"),
            dense.c.distance,
            dense.c.rank.label("dense_rank"),
            sparse.c.text_score,
            sparse.c.rank.label("sparse_rank"),
            score,
        )
        .select_from(dense.join(sparse, dense.c.chunk_id == sparse.c.chunk_id, full=True))
        .order_by(score.desc(), code_points(chunk_id))
        .limit(bound("k"))
    )
    return _materialized(fused, "fused")


def _ranked(leg: sa.CTE, likeness: Any, kept: Any, order: Any) -> sa.Subquery:
    rank = sa.func.row_number().over(order_by=(order, code_points(leg.c.chunk_id)))
    low, high = sa.func.min(likeness).over(), sa.func.max(likeness).over()
    columns = (kept, likeness.label("likeness"), rank.label("rank"), low.label("low"), high.label("high"))
    return sa.select(leg.c.chunk_id, *columns).subquery()


def _answers(form: Form) -> sa.ColumnElement[bool]:
    """Whether the collection has the given space and, for words, the given text search configuration."""
    parts = [embed_spaces.c[part] == bound(part) for part in ("provider", "model", "dim", "distance")]
    if form.mode != "dense":
        pending = collections.c.settings.op("?", is_comparison=True)(sa.literal_column("'text_pending'"))
        parts += [collections.c.text_config == bound("text_config"), sa.not_(pending)]
    return sa.and_(collections.c.space_id == bound("space"), *parts)


def _hits(form: Form, near: sa.CTE, ranked: list[Any], order: Any, counts: list[Any]) -> sa.Select[Any]:
    """Join the texts to the chunks of `near`. Returns at least one row if the collection exists."""
    chunk = lookup(sa.select(*CHUNK), chunks, chunks.c.id == near.c.chunk_id)
    document = lookup(sa.select(documents.c.source, documents.c.uri), documents, documents.c.id == chunk.c.doc_id)
    hits = near.join(chunk, sa.true()).outerjoin(document, sa.true())
    vector: Any = sa.null()
    if form.with_vectors:
        sent = sa.select(sa.func.halfvec_send(chunk_vectors.c.embedding).label("sent"))
        own = lookup(sent, chunk_vectors, chunk_vectors.c.chunk_id == near.c.chunk_id, in_space())
        hits, vector = hits.outerjoin(own, sa.true()), own.c.sent
    columns = [_answers(form), near.c.chunk_id, *ranked, *chunk.c, *document.c, vector, *counts]
    active = collections.join(embed_spaces, embed_spaces.c.id == collections.c.space_id)
    return (
        sa.select(*(column.label(name) for name, column in zip(FoundChunk._fields, columns, strict=True)))
        .select_from(active.outerjoin(hits, sa.true()))
        .where(collections.c.tenant_id == bound("tenant"), collections.c.name == bound("collection"))
        .order_by(order, code_points(near.c.chunk_id))
    )
