"""Search: the nearest chunks, exactly or by a graph, composed by SQLAlchemy because they carry filters."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects.postgresql import ARRAY

from pgrecall.schema import chunk_vectors, chunks, collections, documents, embed_spaces
from pgrecall.statements import keys
from pgrecall.statements.compose import bound, compiled
from pgrecall.statements.reads import CHUNK, Where, code_points, here, in_space, lookup, matching, satisfying
from pgrecall.types import Distance

#: What pgvector measures each distance by.
OPERATORS: dict[str, str] = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}


def _same_space() -> sa.ColumnElement[bool]:
    """Whether the collection answers in the caller's space, and the number that was bound stands for it."""
    parts = (embed_spaces.c[part] == bound(part) for part in ("provider", "model", "dim", "distance"))
    return sa.and_(collections.c.space_id == bound("space"), *parts)


@lru_cache(maxsize=512)
def nearest(distance: Distance, where: Where, *, with_vectors: bool = False) -> str:
    """Exact search: the k nearest first, then their text; one row at least where the collection exists.

    The raw column stands in ORDER BY, so that no graph's index can ever match this statement. Whether
    the collection answers in this space comes along in every row, so that asking it costs no round trip.
    """
    operator, query = OPERATORS[distance], sa.cast(bound("query"), HALFVEC)
    if where:
        found = matching(where)
        own = (chunk_vectors.c.chunk_id == found.c.id, in_space())
        vector = lookup(sa.select(chunk_vectors.c.embedding), chunk_vectors, *own)
        chunk_id, embedding = found.c.id, vector.c.embedding
        candidates = sa.select(chunk_id).select_from(found.rows.join(vector, sa.true())).where(*found.conditions)
    else:
        chunk_id, embedding = chunk_vectors.c.chunk_id, chunk_vectors.c.embedding
        # `graph >= 0` holds for every row; it is how a statement asks for the scan index (see schema).
        every = chunk_vectors.c.graph >= sa.literal_column("0")
        candidates = sa.select(chunk_id).where(*here(chunk_vectors), in_space(), every)
    apart = embedding.op(operator, return_type=sa.Float())(query).label("distance")
    near = (
        candidates.add_columns(apart)
        .order_by(apart, code_points(chunk_id))
        .limit(bound("k"))
        .cte("near")
        .prefix_with("MATERIALIZED")
    )
    return compiled(_hits(near, near.c[chunk_id.name], with_vectors=with_vectors))


@lru_cache(maxsize=512)
def nearest_by_graph(
    distance: Distance, where: Where, space_id: int, dim: int, generation: int, *, with_vectors: bool = False
) -> str:
    """The k nearest of a large collection: by the space's graph, and exactly over the rows that wait to enter it.

    The numbers stand in the text, so that the planner can prove that a partial index serves. Any generation gives right
    rows: a newer graph holds all that an older one does, and without one both halves are exact. `fetch` rows of the
    graph are sorted again, because it gives them in nearly the right order.

    With a condition, up to `most` of the chunks that match are collected first; where these are all, they are searched
    exactly, else the graph is, checking each row that it gives. Each row ends with how many those were.
    """
    operator = OPERATORS[distance]
    query = sa.cast(bound("query"), HALFVEC)
    space = chunk_vectors.c.space_id == sa.literal_column(str(space_id), sa.SmallInteger)
    held = sa.literal_column(str(generation), sa.SmallInteger)
    as_indexed = sa.cast(chunk_vectors.c.embedding, HALFVEC(dim)).op(operator, return_type=sa.Float())(
        sa.cast(bound("query"), HALFVEC(dim))
    )
    as_stored = chunk_vectors.c.embedding.op(operator, return_type=sa.Float())(query)
    conditions, legs, collected = [*here(chunk_vectors), space], [], None
    if where:
        candidates, collected = _candidates(where)
        own = (chunk_vectors.c.chunk_id == candidates.c.id, in_space())
        vector = lookup(sa.select(chunk_vectors.c.embedding), chunk_vectors, *own)
        apart = vector.c.embedding.op(operator, return_type=sa.Float())(query)
        few = sa.select(candidates.c.id.label("chunk_id"), apart.label("distance")).join(vector, sa.true())
        few = few.where(collected < sa.cast(bound("most"), sa.BigInteger))
        legs.append(few.order_by(apart, code_points(candidates.c.id)).limit(bound("k")))
        # A scalar subquery is asked row by row, in the graph's order; EXISTS could become a join that sorts all.
        one = sa.select(sa.true()).where(*here(chunks), chunks.c.id == chunk_vectors.c.chunk_id)
        one = one.where(*satisfying(where))
        matches = one.limit(sa.literal_column("1")).correlate(chunk_vectors).scalar_subquery()
        conditions += [collected >= sa.cast(bound("most"), sa.BigInteger), sa.func.coalesce(matches, sa.false())]
    for apart, in_leg, order, limit in (
        (as_indexed, chunk_vectors.c.graph <= held, (as_indexed,), "fetch"),
        (as_stored, chunk_vectors.c.graph > held, (as_stored, code_points(chunk_vectors.c.chunk_id)), "k"),
    ):
        leg = sa.select(chunk_vectors.c.chunk_id, apart.label("distance")).where(*conditions, in_leg)
        legs.append(leg.order_by(*order).limit(bound(limit)))
    both = sa.union_all(*(sa.select(leg.subquery()) for leg in legs)).subquery()
    near = (
        sa.select(both.c.chunk_id, both.c.distance)
        .order_by(both.c.distance, code_points(both.c.chunk_id))
        .limit(bound("k"))
        .cte("near")
        .prefix_with("MATERIALIZED")
    )
    hits = _hits(near, near.c.chunk_id, with_vectors=with_vectors)
    return compiled(hits if collected is None else hits.add_columns(collected.label("candidates")))


def _candidates(where: Where) -> tuple[sa.CTE, sa.ScalarSelect[int]]:
    """Up to `most` chunks that match, and how many those are; `most` stands for more than can be told cheaply.

    Declared keys are asked for as many, or for four times as many where the rest of the filter leaves fewer. Where they
    find more, the graph will do, and no chunk is looked at.
    """
    if where.keys is None:
        every = sa.select(chunks.c.id).where(*here(chunks), *satisfying(where))
        candidates = every.limit(bound("most")).cte("candidates").prefix_with("MATERIALIZED")
        return candidates, sa.select(sa.func.count()).select_from(candidates).scalar_subquery()
    most = sa.cast(bound("most"), sa.BigInteger)
    times = sa.literal_column("1" if where.by_keys_alone else "4", sa.BigInteger)
    ids = keys.few_ids(where.keys, most * times).label("ids")
    found = sa.select(ids).cte("found").prefix_with("MATERIALIZED")
    known = sa.cast(sa.select(found.c.ids).scalar_subquery(), ARRAY(sa.Text))
    few = matching(where, known)
    some = sa.select(few.c.id).select_from(few.rows).limit(bound("most"))
    candidates = some.cte("candidates").prefix_with("MATERIALIZED")
    counted = sa.select(sa.func.count()).select_from(candidates).scalar_subquery()
    collected = sa.select(sa.case((found.c.ids.is_not(None), counted), else_=most).label("rows"))
    return candidates, sa.select(collected.cte("collected").prefix_with("MATERIALIZED").c.rows).scalar_subquery()


def _hits(near: sa.CTE, near_id: sa.ColumnElement[str], *, with_vectors: bool) -> sa.Select[Any]:
    """What a Hit is made of, for the ids and distances of `near`; one row at least where the collection exists."""
    chunk = lookup(sa.select(*CHUNK), chunks, chunks.c.id == near_id)
    document = lookup(sa.select(documents.c.source, documents.c.uri), documents, documents.c.id == chunk.c.doc_id)
    hits = near.join(chunk, sa.true()).outerjoin(document, sa.true())
    columns = [_same_space().label("same"), near_id, near.c.distance, *chunk.c, *document.c]
    if with_vectors:
        sent = sa.select(sa.func.halfvec_send(chunk_vectors.c.embedding))
        vector = lookup(sent, chunk_vectors, chunk_vectors.c.chunk_id == near_id, in_space())
        hits = hits.outerjoin(vector, sa.true())
        columns += vector.c
    return (
        sa.select(*columns)
        .select_from(
            collections.join(embed_spaces, embed_spaces.c.id == collections.c.space_id).outerjoin(hits, sa.true())
        )
        .where(collections.c.tenant_id == bound("tenant"), collections.c.name == bound("collection"))
        .order_by(near.c.distance, code_points(near_id))
    )
