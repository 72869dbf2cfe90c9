"""Reads and deletes of chunks. SQLAlchemy composes them, because they have filters.

A statement is compiled once for each shape of filter. Values are bound at each call.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.sql.selectable import LateralFromClause

from pgrecall.filters import Filter, bind_values, compile_filter, shape
from pgrecall.schema import chunk_vectors, chunks, collections
from pgrecall.statements import keys
from pgrecall.statements.compose import bound, compiled


@dataclass(frozen=True, slots=True)
class Where:
    """Which chunks of a collection: by filter, ids and documents, all ANDed. Two are equal if their SQL is equal."""

    by_ids: bool
    by_documents: bool
    but_ids: bool
    shape: Hashable
    tree: Filter | None = field(compare=False)
    #: The part of the filter that declared keys look up, if any (`filters.keys.Lookup.form`).
    keys: tuple[Any, ...] | None = None
    #: Whether that is the whole filter.
    by_keys_alone: bool = False

    @classmethod
    def of(
        cls,
        filters: Filter | None,
        *,
        by_ids: bool = False,
        by_documents: bool = False,
        but_ids: bool = False,
    ) -> Where:
        """The condition for these parts. `but_ids` selects all chunks except those with the ids."""
        return cls(by_ids, by_documents, but_ids, None if filters is None else shape(filters), filters)

    def __bool__(self) -> bool:
        return self.by_ids or self.by_documents or self.tree is not None


def params(where: Where, ids: Any = None, doc_ids: Any = None) -> dict[str, Any]:
    """The parameters of `where`."""
    values = {} if where.tree is None else bind_values(where.tree)
    if where.by_ids:
        values["ids"] = ids
    if where.by_documents:
        values["doc_ids"] = doc_ids
    return values


def here(table: sa.Table) -> list[sa.ColumnElement[bool]]:
    """The condition for rows of the tenant's collection."""
    return [table.c.tenant_id == bound("tenant"), table.c.collection == bound("collection")]


def satisfying(where: Where) -> list[sa.ColumnElement[bool]]:
    """The conditions of `where` on chunks."""
    conditions = []
    if where.by_ids:
        ids = sa.cast(bound("ids"), ARRAY(sa.Text))
        conditions.append(chunks.c.id != sa.all_(ids) if where.but_ids else chunks.c.id == sa.any_(ids))
    if where.by_documents:
        conditions.append(chunks.c.doc_id == sa.any_(sa.cast(bound("doc_ids"), ARRAY(sa.Text))))
    if where.tree is not None:
        conditions.append(compile_filter(where.tree, chunks.c.metadata)[0])
    return conditions


def in_space() -> sa.ColumnElement[bool]:
    """The condition for vectors of the space in the parameters."""
    return chunk_vectors.c.space_id == bound("space")


def lookup(select: sa.Select[Any], table: sa.Table, *key: sa.ColumnElement[bool]) -> LateralFromClause:
    """The row of `table` with this key, looked up for each row on the left.

    A plain join leaves the choice to the planner. On a table without statistics it expects one row in the collection,
    and reads the whole collection for each row on the left: a filtered search of 6,000 chunks took 42 s. LIMIT forces
    a lookup.
    """
    return select.where(*here(table), *key).limit(sa.literal_column("1")).lateral()


def code_points(column: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """The column in code point order, which is the primary key's order whatever the database's collation."""
    return sa.collate(column, "C")


class MatchingChunks(NamedTuple):
    """Matching chunks: the FROM clause, its columns, and the remaining conditions."""

    rows: sa.FromClause
    c: sa.ColumnCollection[str, sa.ColumnElement[Any]]
    conditions: list[sa.ColumnElement[bool]]


Lock: TypeAlias = Callable[[sa.Select[Any]], sa.Select[Any]]


def matching(where: Where, ids: sa.ColumnElement[Any] | None = None, lock: Lock | None = None) -> MatchingChunks:
    """The matching chunks: read, or looked up by `ids` or declared keys, and locked one by one by `lock`.

    Chunks are looked up rather than joined, or found by `id = ANY (…)`: without statistics the planner checked that
    condition on each row of the collection, which takes the product of both.
    """
    if where.keys is None:
        return MatchingChunks(chunks, chunks.c, [*here(chunks), *satisfying(where)])
    named = sa.select(sa.func.unnest(keys.every_id(where.keys) if ids is None else ids).label("id")).subquery()
    distinct = sa.select(code_points(named.c.id).label("id")).distinct()
    each = (distinct.order_by(sa.literal_column("id")) if lock else distinct).subquery("each")
    one = sa.select(chunks.c.collection, chunks.c.id, *CHUNK).where(*satisfying(where))
    chunk = lookup(lock(one) if lock else one, chunks, chunks.c.id == each.c.id)
    return MatchingChunks(each.join(chunk, sa.true()), chunk.c, [])


CHUNK = (
    chunks.c.text,
    chunks.c.metadata,
    chunks.c.doc_id,
    chunks.c.chunk_index,
    chunks.c.payload,
)


@lru_cache(maxsize=512)
def listing(where: Where, *, with_vectors: bool, page: bool) -> str:
    """Chunks by id in code point order. `page` adds `limit`, `offset` and `after` (keyset pagination)."""
    found = matching(where)
    columns: list[sa.ColumnElement[Any]] = [found.c.id, *(found.c[column.name] for column in CHUNK)]
    source = found.rows
    if with_vectors:
        as_stored = sa.select(sa.func.halfvec_send(chunk_vectors.c.embedding), chunk_vectors.c.embed_norm)
        own = (chunk_vectors.c.chunk_id == found.c.id, chunk_vectors.c.space_id == _active_space())
        vector = lookup(as_stored, chunk_vectors, *own)
        columns += vector.c
        source = source.outerjoin(vector, sa.true())
    statement = sa.select(*columns).select_from(source).where(*found.conditions)
    statement = statement.order_by(code_points(found.c.id))
    if page:
        statement = (
            statement.where(code_points(found.c.id) > sa.cast(bound("after"), sa.Text))
            .limit(sa.cast(bound("limit"), sa.BigInteger))
            .offset(sa.cast(bound("offset"), sa.BigInteger))
        )
    return compiled(statement)


def _active_space() -> sa.ScalarSelect[Any]:
    mine = (collections.c.tenant_id == bound("tenant"), collections.c.name == bound("collection"))
    return sa.select(collections.c.space_id).where(*mine).scalar_subquery()


@lru_cache(maxsize=512)
def count(where: Where) -> str:
    """Count the matching chunks."""
    found = matching(where)
    return compiled(sa.select(sa.func.count()).select_from(found.rows).where(*found.conditions))


@lru_cache(maxsize=512)
def retag(where: Where, *, replace: bool) -> str:
    """Change the metadata of matching chunks; returns their ids. Vectors stay unchanged."""
    new = sa.cast(bound("new_metadata"), JSONB)
    value = new if replace else chunks.c.metadata.op("||")(new)
    locked = _locked(where, key_share=True)
    statement = sa.update(chunks).values(metadata=value).where(*_same(chunks, chunks.c.id, locked))
    return compiled(statement.where(chunks.c.metadata.is_distinct_from(value)).returning(chunks.c.id))


def _locked(where: Where, *, key_share: bool = False) -> sa.CTE:
    """The matching chunks, locked by id in code point order, like by every writer."""

    def lock(select: sa.Select[Any]) -> sa.Select[Any]:
        return select.with_for_update(key_share=key_share)

    found = matching(where, lock=lock)
    locked = sa.select(found.c.collection, found.c.id).select_from(found.rows).where(*found.conditions)
    if found.rows is chunks:
        locked = lock(locked.order_by(code_points(chunks.c.id)))
    return locked.cte("locked").prefix_with("MATERIALIZED")


def _same(table: sa.Table, key: sa.ColumnElement[str], locked: sa.CTE) -> list[sa.ColumnElement[bool]]:
    # The collection comes from the locked row, not as a constant: without statistics the planner would expect one row
    # in the collection, and read all of it for each locked row (7.5 s for 2,700 of 8,000 chunks).
    return [
        table.c.tenant_id == bound("tenant"),
        table.c.collection == locked.c.collection,
        key == locked.c.id,
    ]


@lru_cache(maxsize=512)
def delete(where: Where) -> str:
    """Delete the matching chunks; returns one row with the counts of vectors and of chunks.

    It is one statement, so that exactly the locked rows are deleted. A second evaluation of the condition could match
    rows that were written meanwhile, and lock them in the wrong order. A chunk is locked before its vector, like by
    every writer. Vectors are deleted explicitly instead of by the foreign key's cascade, which runs row by row and
    counts nothing.
    """
    locked, one = _locked(where), sa.literal_column("1", sa.Integer).label("one")
    counts = []
    for table, key in ((chunk_vectors, chunk_vectors.c.chunk_id), (chunks, chunks.c.id)):
        gone = sa.delete(table).where(*_same(table, key, locked)).returning(one).cte(f"gone_{table.name}")
        counts.append(sa.select(sa.func.count()).select_from(gone).scalar_subquery())
    return compiled(sa.select(*counts))


DOCUMENTS = """
SELECT id, source, uri, content_hash, metadata FROM pgrecall.documents
WHERE tenant_id = %(tenant)s AND collection = %(collection)s
  AND (%(ids)s::text[] IS NULL OR id = ANY (%(ids)s::text[])) AND id COLLATE "C" > %(after)s
ORDER BY id COLLATE "C" LIMIT %(limit)s OFFSET %(offset)s
"""
