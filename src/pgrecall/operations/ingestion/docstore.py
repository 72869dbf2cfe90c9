"""The docstore: what an ingestion pipeline remembers about documents, by id, in one collection of one tenant."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from pgrecall.arguments import MAX_ID_BYTES, OnNul, check_text
from pgrecall.errors import InvalidInput
from pgrecall.jsonable import json_object
from pgrecall.operations import tombstones
from pgrecall.operations.chunks.packing import id_array
from pgrecall.operations.registry import Place
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Gate, Rows, Transaction
from pgrecall.statements import docstore as sql
from pgrecall.types import DocstoreEntry, DocumentReference

#: Entries per statement.
BATCH = 1_000


def distinct(entries: Iterable[DocstoreEntry]) -> list[tuple[DocstoreEntry, int]]:
    """Distinct entries with their positions in the call, in lock order (by id). Raises InvalidInput.

    If an id occurs twice, the later entry wins.
    """
    found: dict[str, tuple[DocstoreEntry, int]] = {}
    for position, entry in enumerate(entries):
        if not isinstance(entry, DocstoreEntry):
            raise InvalidInput(f"an entry is {type(entry).__name__}; expected pgrecall.DocstoreEntry")
        check_text(entry.id, "an entry's id", MAX_ID_BYTES)
        found[entry.id] = (entry, position)
    return [found[i] for i in sorted(found)]


def _pack(entries: Sequence[tuple[DocstoreEntry, int]], on_nul: OnNul) -> dict[str, Any]:
    def json(value: Any, what: str) -> str | None:
        return None if value is None else json_object(value, what, on_nul)

    def text(value: str | None, what: str) -> str | None:
        return None if value is None else check_text(value, what, MAX_ID_BYTES)

    named = [(entry, f"of entry {entry.id!r:.80}") for entry, _ in entries]
    return {
        "ids": wire.text_array([entry.id for entry, _ in entries]),
        "hashes": wire.text_array([text(e.hash, f"the hash {of}") for e, of in named]),
        "ref_doc_ids": wire.text_array([text(e.ref_doc_id, f"the ref_doc_id {of}") for e, of in named]),
        "metadata": wire.jsonb_array([json(e.metadata, f"the metadata {of}") for e, of in named]),
        "payloads": wire.jsonb_array([json(e.payload, f"the payload {of}") for e, of in named]),
        "positions": wire.int4_array([position for _, position in entries]),
    }


def put(
    gate: Gate,
    place: Place,
    entries: Sequence[tuple[DocstoreEntry, int]],
    *,
    create_tenants: bool,
    new_only: bool,
    on_nul: OnNul,
) -> int:
    """Write entries in one transaction; returns how many changed.

    Raises InvalidInput if `new_only` is set and an entry exists.
    """
    packed = [_pack(entries[at : at + BATCH], on_nul) for at in range(0, len(entries), BATCH)]

    def body() -> int:
        with gate.transaction(place.scope, "docstore put") as tx:
            tombstones.ensure_tenant(tx, place.scope, create=create_tenants)
            if new_only:
                _refuse_held(tx, place, entries)
            return sum(tx.count(sql.PUT, place.at(**part)) for part in packed)

    return gate.retrying(body) if packed else 0


def _refuse_held(tx: Transaction, place: Place, entries: Sequence[tuple[DocstoreEntry, int]]) -> None:
    held = tx.rows(sql.HELD, place.at(ids=wire.text_array([entry.id for entry, _ in entries])))
    if held:
        raise InvalidInput(
            f"entry {held[0][0]!r:.80} already exists, but new_only allows only new entries; nothing was written"
        )


def _entries(rows: Rows) -> list[DocstoreEntry]:
    return [DocstoreEntry(*row) for row in rows]


def get(gate: Gate, place: Place, ids: Sequence[str]) -> list[DocstoreEntry]:
    """The entries with these ids that exist, in the order of `ids`."""
    asked = id_array(ids, "ids")
    if len(ids) == 0:
        return []
    with gate.transaction(place.scope, "docstore get") as tx:
        found = {entry.id: entry for entry in _entries(tx.last(sql.GET, place.at(ids=asked)))}
    return [found[i] for i in ids if i in found]


def listing(gate: Gate, place: Place) -> list[DocstoreEntry]:
    """All entries, in the order in which they were first written."""
    with gate.transaction(place.scope, "docstore list") as tx:
        return _entries(tx.last(sql.LIST, place.at()))


def hashes(gate: Gate, place: Place, ids: Collection[str] | None) -> dict[str, str]:
    """Hashes by id, of all entries or of `ids`, in the order in which they were first written."""
    asked = None if ids is None else id_array(list(ids), "ids")
    with gate.transaction(place.scope, "docstore hashes") as tx:
        return dict(tx.last(sql.HASHES, place.at(ids=asked)))


def references(gate: Gate, place: Place, doc_ids: Sequence[str] | None) -> dict[str, DocumentReference]:
    """What was derived from each document, or from each of `doc_ids`: entries first, then the collection's chunks."""
    asked = place.at(ids=None if doc_ids is None else id_array(doc_ids, "doc_ids"))
    with gate.transaction(place.scope, "docstore references") as tx:
        entries, chunks = tx.many([(sql.ENTRIES_OF, asked), (sql.CHUNKS_OF, asked)], commit=True)
    ids: dict[str, dict[str, None]] = {}
    metadata: dict[str, dict[str, Any]] = {}
    for doc_id, own_id, own in entries:
        ids.setdefault(doc_id, {})[own_id] = None
        metadata[doc_id] = metadata.get(doc_id, {}) | (own or {})
    for doc_id, own_id, own in chunks:
        ids.setdefault(doc_id, {})[own_id] = None
        metadata[doc_id] = metadata.get(doc_id) or own
    return {doc_id: DocumentReference(list(own), metadata[doc_id]) for doc_id, own in ids.items()}


def delete(gate: Gate, place: Place, ids: Sequence[str]) -> int:
    """Delete entries; returns how many of `ids` existed.

    When the last entry of a document is deleted, the document's own entry is deleted, too.
    """
    asked = id_array(ids, "ids")

    def body() -> int:
        with gate.transaction(place.scope, "docstore delete") as tx:
            gone = tx.rows(sql.DELETE, place.at(ids=asked))
            documents = sorted({ref for (ref,) in gone if ref is not None})
            if documents:
                tx.rows(sql.DELETE_LEFT_ALONE, place.at(ids=wire.text_array(documents)))
            return len(gone)

    return gate.retrying(body)


def delete_document(gate: Gate, place: Place, doc_id: str) -> int:
    """Delete a document's own entry and the entries derived from it; returns how many."""
    asked = id_array([doc_id], "doc_id")

    def body() -> int:
        with gate.transaction(place.scope, "docstore delete document") as tx:
            return int(tx.last(sql.DELETE_DOCUMENT, place.at(ids=asked))[0][0])

    return gate.retrying(body)
