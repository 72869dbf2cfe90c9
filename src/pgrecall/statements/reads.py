"""Search, reads and deletes over chunks: composed by SQLAlchemy, because they carry filters.

Texts are compiled once for each shape of filter; the values are bound at each call.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql.psycopg import dialect
from sqlalchemy.sql.selectable import LateralFromClause

from pgrecall.filters import Filter, bind_values, compile_filter, shape
from pgrecall.schema import chunk_vectors, chunks, collections, documents, embed_spaces
from pgrecall.types import Distance

_DIALECT = dialect()  # type: ignore[no-untyped-call]
_OPERATORS: dict[str, str] = {"cosine": "<=>", "l2": "<->", "ip": "<#>"}


@dataclass(frozen=True, slots=True)
class Where:
    """Which chunks of a collection: by filter, ids and documents, all ANDed. Equal where the SQL is equal."""

    by_ids: bool
    by_documents: bool
    but_ids: bool
    shape: Hashable
    tree: Filter | None = field(compare=False)

    @classmethod
    def of(
        cls,
        filters: Filter | None,
        *,
        by_ids: bool = False,
        by_documents: bool = False,
        but_ids: bool = False,
    ) -> Where:
        """The condition for these parts; `but_ids` turns the ids round: all but them."""
        return cls(by_ids, by_documents, but_ids, None if filters is None else shape(filters), filters)

    def __bool__(self) -> bool:
        return self.by_ids or self.by_documents or self.tree is not None


def params(where: Where, ids: Any = None, doc_ids: Any = None) -> dict[str, Any]:
    """The values that belong to `where`."""
    values = {} if where.tree is None else bind_values(where.tree)
    if where.by_ids:
        values["ids"] = ids
    if where.by_documents:
        values["doc_ids"] = doc_ids
    return values


class _Untyped(sa.types.UserDefinedType[Any]):
    """Leaves the type to the cast around it or the column beside it: SQLAlchemy's own would add `::VARCHAR`.

    text = varchar is no operator of Postgres' own: it would take text = text, or what others made that fits better.
    """

    cache_ok = True


def _bound(name: str) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=_Untyped())


def _here(table: sa.Table) -> list[sa.ColumnElement[bool]]:
    return [table.c.tenant_id == _bound("tenant"), table.c.collection == _bound("collection")]


def _matching(where: Where) -> list[sa.ColumnElement[bool]]:
    conditions = []
    if where.by_ids:
        ids = sa.cast(_bound("ids"), ARRAY(sa.Text))
        conditions.append(chunks.c.id != sa.all_(ids) if where.but_ids else chunks.c.id == sa.any_(ids))
    if where.by_documents:
        conditions.append(chunks.c.doc_id == sa.any_(sa.cast(_bound("doc_ids"), ARRAY(sa.Text))))
    if where.tree is not None:
        conditions.append(compile_filter(where.tree, chunks.c.metadata)[0])
    return conditions


def _in_space() -> sa.ColumnElement[bool]:
    return chunk_vectors.c.space_id == _bound("space")


def _same_space() -> sa.ColumnElement[bool]:
    """Whether the collection answers in the caller's space, and the number that was bound stands for it."""
    parts = (embed_spaces.c[part] == _bound(part) for part in ("provider", "model", "dim", "distance"))
    return sa.and_(collections.c.space_id == _bound("space"), *parts)


def _one(select: sa.Select[Any], table: sa.Table, *key: sa.ColumnElement[bool]) -> LateralFromClause:
    """The row of `table` with this key, looked up for each row on the left.

    A plain join leaves the choice to the planner, who on a table without statistics takes the collection for one row
    and walks it again for each row on the left: a filtered search of 6,000 chunks took 42 s. LIMIT keeps it a lookup.
    """
    return select.where(*_here(table), *key).limit(sa.literal_column("1")).lateral()


def _text(statement: sa.sql.ClauseElement) -> str:
    return str(statement.compile(dialect=_DIALECT))


def _code_points(column: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    return sa.collate(column, "C")


@lru_cache(maxsize=512)
def nearest(distance: Distance, where: Where, *, with_vectors: bool = False) -> str:
    """Exact search: the k nearest first, then their text; one row at least where the collection exists.

    The raw column stands in ORDER BY, so that no graph's index can ever match this statement. Whether
    the collection answers in this space comes along in every row, so that asking it costs no round trip.
    """
    operator, query = _OPERATORS[distance], sa.cast(_bound("query"), HALFVEC)
    if where:
        vector = _one(
            sa.select(chunk_vectors.c.embedding),
            chunk_vectors,
            chunk_vectors.c.chunk_id == chunks.c.id,
            _in_space(),
        )
        chunk_id, embedding = chunks.c.id, vector.c.embedding
        candidates = sa.select(chunk_id).join(vector, sa.true()).where(*_here(chunks), *_matching(where))
    else:
        chunk_id, embedding = chunk_vectors.c.chunk_id, chunk_vectors.c.embedding
        # `graph >= 0` holds for every row; it is how a statement asks for the scan index (see schema).
        every = chunk_vectors.c.graph >= sa.literal_column("0")
        candidates = sa.select(chunk_id).where(*_here(chunk_vectors), _in_space(), every)
    apart = embedding.op(operator, return_type=sa.Float())(query).label("distance")
    near = (
        candidates.add_columns(apart)
        .order_by(apart, _code_points(chunk_id))
        .limit(_bound("k"))
        .cte("near")
        .prefix_with("MATERIALIZED")
    )
    return _text(_hits(near, near.c[chunk_id.name], with_vectors=with_vectors))


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
    operator = _OPERATORS[distance]
    query = sa.cast(_bound("query"), HALFVEC)
    space = chunk_vectors.c.space_id == sa.literal_column(str(space_id), sa.SmallInteger)
    held = sa.literal_column(str(generation), sa.SmallInteger)
    as_indexed = sa.cast(chunk_vectors.c.embedding, HALFVEC(dim)).op(operator, return_type=sa.Float())(
        sa.cast(_bound("query"), HALFVEC(dim))
    )
    as_stored = chunk_vectors.c.embedding.op(operator, return_type=sa.Float())(query)
    conditions, legs, collected = [*_here(chunk_vectors), space], [], None
    if where:
        matching = sa.select(chunks.c.id).where(*_here(chunks), *_matching(where)).limit(_bound("most"))
        candidates = matching.cte("candidates").prefix_with("MATERIALIZED")
        collected = sa.select(sa.func.count()).select_from(candidates).scalar_subquery()
        own = (chunk_vectors.c.chunk_id == candidates.c.id, _in_space())
        vector = _one(sa.select(chunk_vectors.c.embedding), chunk_vectors, *own)
        apart = vector.c.embedding.op(operator, return_type=sa.Float())(query)
        few = sa.select(candidates.c.id.label("chunk_id"), apart.label("distance")).join(vector, sa.true())
        few = few.where(collected < sa.cast(_bound("most"), sa.BigInteger))
        legs.append(few.order_by(apart, _code_points(candidates.c.id)).limit(_bound("k")))
        # A scalar subquery is asked row by row, in the graph's order; EXISTS could become a join that sorts all.
        one = sa.select(sa.true()).where(*_here(chunks), chunks.c.id == chunk_vectors.c.chunk_id, *_matching(where))
        matches = one.limit(sa.literal_column("1")).correlate(chunk_vectors).scalar_subquery()
        conditions += [collected >= sa.cast(_bound("most"), sa.BigInteger), sa.func.coalesce(matches, sa.false())]
    for apart, in_leg, order, limit in (
        (as_indexed, chunk_vectors.c.graph <= held, (as_indexed,), "fetch"),
        (as_stored, chunk_vectors.c.graph > held, (as_stored, _code_points(chunk_vectors.c.chunk_id)), "k"),
    ):
        leg = sa.select(chunk_vectors.c.chunk_id, apart.label("distance")).where(*conditions, in_leg)
        legs.append(leg.order_by(*order).limit(_bound(limit)))
    both = sa.union_all(*(sa.select(leg.subquery()) for leg in legs)).subquery()
    near = (
        sa.select(both.c.chunk_id, both.c.distance)
        .order_by(both.c.distance, _code_points(both.c.chunk_id))
        .limit(_bound("k"))
        .cte("near")
        .prefix_with("MATERIALIZED")
    )
    hits = _hits(near, near.c.chunk_id, with_vectors=with_vectors)
    return _text(hits if collected is None else hits.add_columns(collected.label("candidates")))


def _hits(near: sa.CTE, near_id: sa.ColumnElement[str], *, with_vectors: bool) -> sa.Select[Any]:
    """What a Hit is made of, for the ids and distances of `near`; one row at least where the collection exists."""
    chunk = _one(sa.select(*_CHUNK), chunks, chunks.c.id == near_id)
    document = _one(sa.select(documents.c.source, documents.c.uri), documents, documents.c.id == chunk.c.doc_id)
    hits = near.join(chunk, sa.true()).outerjoin(document, sa.true())
    columns = [_same_space().label("same"), near_id, near.c.distance, *chunk.c, *document.c]
    if with_vectors:
        sent = sa.select(sa.func.halfvec_send(chunk_vectors.c.embedding))
        vector = _one(sent, chunk_vectors, chunk_vectors.c.chunk_id == near_id, _in_space())
        hits = hits.outerjoin(vector, sa.true())
        columns += vector.c
    return (
        sa.select(*columns)
        .select_from(
            collections.join(embed_spaces, embed_spaces.c.id == collections.c.space_id).outerjoin(hits, sa.true())
        )
        .where(collections.c.tenant_id == _bound("tenant"), collections.c.name == _bound("collection"))
        .order_by(near.c.distance, _code_points(near_id))
    )


_CHUNK = (
    chunks.c.text,
    chunks.c.metadata,
    chunks.c.doc_id,
    chunks.c.chunk_index,
    chunks.c.payload,
)


@lru_cache(maxsize=512)
def listing(where: Where, *, with_vectors: bool, page: bool) -> str:
    """Chunks by id, code point order; `page` adds limit and offset, and `after` (keyset)."""
    columns: list[sa.ColumnElement[Any]] = [chunks.c.id, *_CHUNK]
    source: sa.FromClause = chunks
    if with_vectors:
        as_stored = sa.select(sa.func.halfvec_send(chunk_vectors.c.embedding), chunk_vectors.c.embed_norm)
        own = (chunk_vectors.c.chunk_id == chunks.c.id, chunk_vectors.c.space_id == _active_space())
        vector = _one(as_stored, chunk_vectors, *own)
        columns += vector.c
        source = chunks.outerjoin(vector, sa.true())
    statement = sa.select(*columns).select_from(source).where(*_here(chunks), *_matching(where))
    statement = statement.order_by(_code_points(chunks.c.id))
    if page:
        statement = (
            statement.where(_code_points(chunks.c.id) > sa.cast(_bound("after"), sa.Text))
            .limit(sa.cast(_bound("limit"), sa.BigInteger))
            .offset(sa.cast(_bound("offset"), sa.BigInteger))
        )
    return _text(statement)


def _active_space() -> sa.ScalarSelect[Any]:
    mine = (collections.c.tenant_id == _bound("tenant"), collections.c.name == _bound("collection"))
    return sa.select(collections.c.space_id).where(*mine).scalar_subquery()


@lru_cache(maxsize=512)
def count(where: Where) -> str:
    """How many chunks match."""
    return _text(sa.select(sa.func.count()).select_from(chunks).where(*_here(chunks), *_matching(where)))


@lru_cache(maxsize=512)
def retag(where: Where, *, replace: bool) -> str:
    """Change the metadata of matching chunks; their vectors are not touched."""
    new = sa.cast(_bound("new_metadata"), JSONB)
    value = new if replace else chunks.c.metadata.op("||")(new)
    locked = _locked(where, key_share=True)
    statement = sa.update(chunks).values(metadata=value).where(*_same(chunks, chunks.c.id, locked))
    return _text(statement.where(chunks.c.metadata.is_distinct_from(value)))


def _locked(where: Where, *, key_share: bool = False) -> sa.CTE:
    """The matching chunks, locked by id in code point order as every writer locks them."""
    matching = sa.select(chunks.c.collection, chunks.c.id).where(*_here(chunks), *_matching(where))
    return (
        matching.order_by(_code_points(chunks.c.id))
        .with_for_update(key_share=key_share)
        .cte("locked")
        .prefix_with("MATERIALIZED")
    )


def _same(table: sa.Table, key: sa.ColumnElement[str], locked: sa.CTE) -> list[sa.ColumnElement[bool]]:
    # The collection comes from the locked row, not as a constant: without statistics the planner would take the
    # collection for one row, and walk it for each row locked (7.5 s for 2,700 of 8,000 chunks).
    return [
        table.c.tenant_id == _bound("tenant"),
        table.c.collection == locked.c.collection,
        key == locked.c.id,
    ]


@lru_cache(maxsize=512)
def delete(where: Where) -> str:
    """Delete the matching chunks; returns one row, the counts of vectors and of chunks.

    One statement, so that exactly the locked rows go: asked for again, the condition could match rows that were written
    meanwhile, and take their locks in the wrong order. A chunk is locked before its vector, in the order of every
    writer; vectors are deleted by name and not by the foreign key's cascade, which runs row by row and counts nothing.
    """
    locked, one = _locked(where), sa.literal_column("1", sa.Integer).label("one")
    counts = []
    for table, key in ((chunk_vectors, chunk_vectors.c.chunk_id), (chunks, chunks.c.id)):
        gone = sa.delete(table).where(*_same(table, key, locked)).returning(one).cte(f"gone_{table.name}")
        counts.append(sa.select(sa.func.count()).select_from(gone).scalar_subquery())
    return _text(sa.select(*counts))


DOCUMENTS = """
SELECT id, source, uri, content_hash, metadata FROM pgrecall.documents
WHERE tenant_id = %(tenant)s AND collection = %(collection)s
  AND (%(ids)s::text[] IS NULL OR id = ANY (%(ids)s::text[])) AND id COLLATE "C" > %(after)s
ORDER BY id COLLATE "C" LIMIT %(limit)s OFFSET %(offset)s
"""
