"""Synchronizes a collection with its sources: writes only documents that are new or have changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from pgrecall.arguments import MAX_ID_BYTES, check_text, instance, several
from pgrecall.errors import InvalidInput
from pgrecall.operations.chunks import bulk
from pgrecall.operations.chunks.reads import PAGE, delete_documents, scan_documents
from pgrecall.operations.chunks.upsert import Plan, Progress, Target, unseen, upsert
from pgrecall.operations.models.calls import PLAIN, Calls
from pgrecall.operations.models.embedding import Embed
from pgrecall.operations.registry import Place
from pgrecall.postgres.transactions import Gate
from pgrecall.types import Chunk, Document, DocumentChanges, UpdateResult

#: Returns a document's chunks; called when the document is written.
ChunksOf: TypeAlias = Callable[[Document], Iterable[Chunk]]


@dataclass(frozen=True, slots=True)
class UpdateJob:
    """The options of one update."""

    chunks_of: ChunksOf
    prune: bool = False
    embed: Embed | None = None
    calls: Calls = PLAIN
    progress: Progress | None = None


def distinct(documents: Iterable[Document]) -> tuple[Document, ...]:
    """The documents as a tuple. Raises InvalidInput if two have the same id."""
    several(documents, "Document")
    found: dict[str, Document] = {}
    for document in documents:
        instance(document, Document, "a document")
        if check_text(document.id, "a document's id", MAX_ID_BYTES) in found:
            raise InvalidInput(f"two documents have the id {document.id!r:.80}; expected unique ids")
        found[document.id] = document
    return tuple(found.values())


def compare(gate: Gate, place: Place, documents: Sequence[Document]) -> DocumentChanges:
    """Compare the documents with those in the collection, by id and content hash."""
    stored = {document.id: document.content_hash for document in scan_documents(gate, place)}
    named = {document.id for document in documents}

    def unchanged(document: Document) -> bool:
        return document.content_hash is not None and stored.get(document.id) == document.content_hash

    return DocumentChanges(
        new=tuple(d for d in documents if d.id not in stored),
        changed=tuple(d for d in documents if d.id in stored and not unchanged(d)),
        unchanged=tuple(d for d in documents if unchanged(d)),
        missing=tuple(sorted(set(stored) - named)),
    )


def apply(gate: Gate, target: Callable[[], Target], changes: DocumentChanges, job: UpdateJob) -> UpdateResult:
    """Write changed documents one by one, then new ones in bulk, and then delete missing ones if `job.prune`.

    A new document's hash is written last, after all chunks. If a call is interrupted, the hash is missing, so the next
    call treats the document as changed.
    """
    report = job.progress or unseen
    total = len(changes.new) + len(changes.changed)
    chunks = done = 0

    def finished(document_chunks: int) -> None:
        nonlocal chunks, done
        chunks, done = chunks + document_chunks, done + 1
        report(done, total)

    for document in changes.changed:
        own = _own(document, job)
        upsert(gate, target(), own, Plan((document,), job.embed, replaces=document.id, calls=job.calls))
        finished(len(own))

    def of_new() -> Iterator[Chunk]:
        for document in changes.new:
            own = _own(document, job)
            yield from own
            finished(len(own))

    if changes.new:
        unfinished = (replace(document, content_hash=None) for document in changes.new)
        bulk.load(gate, target(), of_new(), unfinished, Plan(embed=job.embed, calls=job.calls))
        for start in range(0, len(changes.new), PAGE):
            upsert(gate, target(), [], Plan(changes.new[start : start + PAGE]))
    gone = 0
    if job.prune:
        for start in range(0, len(changes.missing), PAGE):
            place = target().place
            gone += delete_documents(gate, place, changes.missing[start : start + PAGE]).documents
    return UpdateResult(len(changes.new), len(changes.changed), len(changes.unchanged), gone, chunks)


def _own(document: Document, job: UpdateJob) -> list[Chunk]:
    """A document's chunks, with its `doc_id` set. Raises InvalidInput."""
    chunks = job.chunks_of(document)
    several(chunks, "Chunk")
    return owned(document, chunks)


def owned(document: Document, chunks: Iterable[Chunk]) -> list[Chunk]:
    """The chunks with the document's `doc_id` set. Raises InvalidInput if one has another `doc_id`."""
    found = []
    for chunk in chunks:
        instance(chunk, Chunk, "a chunk")
        if chunk.doc_id not in (None, document.id):
            raise InvalidInput(
                f"chunk {chunk.id!r:.80} has doc_id {chunk.doc_id!r:.80}; expected {document.id!r:.80} or None"
            )
        found.append(replace(chunk, doc_id=document.id))
    return found
