"""Reads, metadata updates and deletes of a collection's chunks."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any

from pgrecall.arguments import whole_number
from pgrecall.errors import FilterError, InvalidInput
from pgrecall.filters import Filter, constant
from pgrecall.jsonable import json_object
from pgrecall.operations.chunks import keys
from pgrecall.operations.chunks.packing import id_array
from pgrecall.operations.registry import Place
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Gate
from pgrecall.statements import deletes, reads
from pgrecall.statements import keys as key_sql
from pgrecall.statements.reads import Where
from pgrecall.types import Chunk, DeleteReport, Document, Metadata, StoredChunk

#: Rows per page when a whole collection is read.
PAGE = 1_000


def condition(
    filters: Filter | None, ids: Sequence[str] | None = None, doc_ids: Sequence[str] | None = None
) -> tuple[Where, dict[str, Any]]:
    """A condition and its bound values. Raises: InvalidInput, FilterError."""
    if filters is not None and not isinstance(filters, Filter):
        raise FilterError(f"filters is {type(filters).__name__}; expected a filter such as F.lang == 'de'")
    where = Where.of(filters, by_ids=ids is not None, by_documents=doc_ids is not None)
    return where, reads.params(
        where,
        None if ids is None else id_array(ids, "ids"),
        None if doc_ids is None else id_array(doc_ids, "doc_ids"),
    )


def _chunk(row: tuple[Any, ...]) -> Chunk:
    chunk_id, text, metadata, doc_id, index, payload, *sent = row
    if not sent:
        return Chunk(chunk_id, text, None, doc_id, index, metadata, payload)
    vector = None if sent[0] is None else wire.halfvec_values(sent[0])
    return StoredChunk(chunk_id, text, vector, doc_id, index, metadata, payload, sent[1])


def get(gate: Gate, place: Place, ids: Sequence[str], *, with_embeddings: bool) -> list[Chunk]:
    """The chunks with these ids that exist, in the order of `ids`."""
    where, values = condition(None, ids=ids)
    if len(ids) == 0:
        return []
    statement = reads.listing(where, with_vectors=with_embeddings, page=False)
    rows = gate.read(place.scope, "get", lambda tx: tx.last(statement, place.at(**values)))
    found = {row[0]: _chunk(row) for row in rows}
    return [found[i] for i in ids if i in found]


def listing(
    gate: Gate,
    place: Place,
    where: Where,
    values: dict[str, Any],
    *,
    limit: int,
    offset: int,
    with_embeddings: bool,
) -> list[Chunk]:
    """Chunks that match, ordered by id."""
    page = {"limit": whole_number(limit, "limit", 0), "offset": whole_number(offset, "offset", 0), "after": ""}
    statement = reads.listing(where, with_vectors=with_embeddings, page=True)
    rows = gate.read(place.scope, "list", lambda tx: tx.last(statement, place.at(**values, **page)))
    return [_chunk(row) for row in rows]


def scan(gate: Gate, place: Place) -> Iterator[Chunk]:
    """Every chunk with its stored vector, ordered by id. Each page is read in its own transaction."""
    statement, after = reads.listing(Where.of(None), with_vectors=True, page=True), ""
    while True:
        page = place.at(limit=PAGE, offset=0, after=after)
        rows = gate.read(place.scope, "scan", operator.methodcaller("last", statement, page))
        yield from map(_chunk, rows)
        if len(rows) < PAGE:
            return
        after = rows[-1][0]


def scan_documents(gate: Gate, place: Place) -> Iterator[Document]:
    """Every document, ordered by id. Each page is read in its own transaction."""
    after = ""
    while True:
        page = place.at(ids=None, limit=PAGE, offset=0, after=after)
        rows = gate.read(place.scope, "scan documents", operator.methodcaller("last", reads.DOCUMENTS, page))
        yield from (Document(*row) for row in rows)
        if len(rows) < PAGE:
            return
        after = rows[-1][0]


def documents(gate: Gate, place: Place, *, limit: int, offset: int, ids: Sequence[str] | None) -> list[Document]:
    """Documents with their provenance, ordered by id. If `ids` is None, all of them."""
    page = {"limit": whole_number(limit, "limit", 0), "offset": whole_number(offset, "offset", 0)}
    chosen = None if ids is None else id_array(ids, "ids")
    values = place.at(ids=chosen, after="", **page)
    return [Document(*row) for row in gate.read(place.scope, "documents", lambda tx: tx.last(reads.DOCUMENTS, values))]


def count(gate: Gate, place: Place, where: Where, values: dict[str, Any]) -> int:
    """How many chunks match."""
    [(count,)] = gate.read(place.scope, "count", lambda tx: tx.last(reads.count(where), place.at(**values)))
    return int(count)


def retag(gate: Gate, place: Place, where: Where, values: dict[str, Any], metadata: Metadata, *, replace: bool) -> int:
    """Merge keys into the metadata of matching chunks, or replace it; returns how many chunks changed."""
    refuse_everything(where)
    new = json_object(metadata, "the metadata")

    def body() -> int:
        with gate.transaction(place.scope, "retag") as tx:
            change = (reads.retag(where, replace=replace), place.at(new_metadata=new, **values))
            held, changed = tx.many([(key_sql.HOLD, place.at()), change])
            if changed and held[0][0]:
                tx.many(keys.entries(place, wire.text_array([row[0] for row in changed]), held[0][0]))
            return len(changed)

    return gate.retrying(body)


def refuse_everything(where: Where) -> None:
    """Raise InvalidInput if the condition matches the whole collection, which is likely a mistake."""
    if not (where.by_ids or where.by_documents) and (where.tree is None or constant(where.tree) is True):
        raise InvalidInput(
            "the condition matches the whole collection; pass ids= or filters= that select chunks. To delete all of "
            "them, call clear()"
        )


def delete(gate: Gate, place: Place, where: Where, values: dict[str, Any]) -> DeleteReport:
    """Delete matching chunks and their vectors, but not their documents."""
    refuse_everything(where)

    def body() -> DeleteReport:
        with gate.transaction(place.scope, "delete") as tx:
            return DeleteReport(*tx.last(reads.delete(where), place.at(**values))[0])

    return gate.retrying(body)


def delete_documents(gate: Gate, place: Place, doc_ids: Sequence[str]) -> DeleteReport:
    """Delete documents with their chunks and vectors. Unknown ids are ignored."""
    asked = id_array(doc_ids, "doc_ids")

    def body() -> DeleteReport:
        with gate.transaction(place.scope, "delete document") as tx:
            # Only documents that were locked: one that is added concurrently is not deleted.
            held = [row[0] for row in tx.rows(deletes.LOCK_DOCUMENTS, place.at(doc_ids=asked))]
            if not held:
                return DeleteReport()
            where, values = condition(None, doc_ids=held)
            gone = (reads.delete(where), place.at(**values))
            counts, documents = tx.many([gone, (deletes.DOCUMENTS, place.at(doc_ids=id_array(held, "doc_ids")))])
            return DeleteReport(*counts[0], *documents[0])

    return gate.retrying(body)
