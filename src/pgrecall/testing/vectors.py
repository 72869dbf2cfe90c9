"""A vector store in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pgrecall import guards
from pgrecall.arguments import MAX_ID_BYTES, MAX_NAME_BYTES, check_text, storable_text, whole_number
from pgrecall.errors import (
    ConfigurationError,
    EmbedSpaceMismatch,
    FilterError,
    InvalidEmbedding,
    InvalidInput,
    NotFound,
)
from pgrecall.filters import Filter, constant
from pgrecall.hits import Fusion, Hit, SearchMode, Weighted
from pgrecall.testing import checks, words
from pgrecall.testing.checks import twin
from pgrecall.testing.filters import matches
from pgrecall.types import (
    Chunk,
    DeleteReport,
    Document,
    EmbedSpace,
    Metadata,
    UpsertResult,
    Vector,
)

if TYPE_CHECKING:
    from pgrecall.protocols import VectorStore

Halves = npt.NDArray[np.float16]


@dataclass
class StoredCollection:
    """What one collection holds. A call changes a copy, so that a call that fails leaves nothing."""

    space: EmbedSpace
    text_config: str | None = None
    documents: dict[str, Document] = field(default_factory=dict)
    chunks: dict[str, Chunk] = field(default_factory=dict)  # without their embeddings
    vectors: dict[str, Halves] = field(default_factory=dict)

    def copy(self) -> StoredCollection:
        """A copy that can be changed without changing this one."""
        return StoredCollection(
            self.space, self.text_config, dict(self.documents), dict(self.chunks), dict(self.vectors)
        )


class InMemoryVectorStore:
    """A `VectorStore` that keeps one collection in memory, for tests of applications; searches are exact.

    It keeps the same contract as `PostgresVectorStore`. Not safe to share between threads.

    Args:
        space: What the collection's vectors are made by. By default the space of the collection, which then must
            exist.
        embed: A synchronous function from a list of texts to their vectors, for chunks that come without one.
        text_config: Anything but None (the default) turns on search by words. Words are compared as they are,
            without stems or stop words.
        tenant: The tenant's id; by default "test".
        collection: The collection's name; by default "default".
        shared: A dictionary of collections by tenant and name. Stores with the same one share their rows; by default
            each has its own.
    """

    def __init__(
        self,
        space: EmbedSpace | None = None,
        *,
        embed: Callable[[list[str]], Any] | None = None,
        text_config: str | None = None,
        tenant: str = "test",
        collection: str = "default",
        shared: dict[tuple[str, str], StoredCollection] | None = None,
    ) -> None:
        self.tenant_id = check_text(tenant, "tenant", MAX_NAME_BYTES)
        self.collection = check_text(collection, "collection", MAX_NAME_BYTES)
        self._shared = {} if shared is None else shared
        existing = self._shared.get((tenant, collection))
        if space is None:
            if existing is None:
                raise InvalidInput(f"no space was given, and collection {collection!r} does not exist; give one")
            space = existing.space
        self._space = space
        self._embed, self._text_config = embed, text_config

    def upsert(self, chunks: Iterable[Chunk], *, documents: Iterable[Document] = ()) -> UpsertResult:
        """Add or replace chunks by id, all or nothing; the last of two with the same id wins."""
        return self._put(checks.all_of(chunks, Chunk), checks.all_of(documents, Document), None)

    def replace_document(self, document: Document, chunks: Iterable[Chunk]) -> UpsertResult:
        """Put a document and exactly these chunks of it; its other chunks are removed."""
        [document], owned = checks.all_of([document], Document), checks.all_of(chunks, Chunk)
        for chunk in owned:
            if chunk.doc_id not in (None, document.id):
                raise InvalidInput(f"chunk {chunk.id!r} names document {chunk.doc_id!r}; expected {document.id!r}")
        return self._put([changed(c, doc_id=document.id) for c in owned], [document], document.id)

    def _put(self, given: list[Chunk], documents: list[Document], replaces: str | None) -> UpsertResult:
        held = self._held().copy()
        self._check_space(held)
        for document in documents:
            held.documents[check_text(document.id, "id", MAX_ID_BYTES)] = _document(document)
        distinct = {check_text(c.id, "id", MAX_ID_BYTES): _chunk(c) for c in given}
        vectors, embedded = self._vectors(held, {c.id: c for c in given}, distinct)
        written = [i for i, c in distinct.items() if held.chunks.get(i) != c or _differ(vectors[i], held.vectors[i])]
        held.chunks |= distinct
        held.vectors |= vectors
        for chunk in distinct.values():
            if chunk.doc_id is not None:
                held.documents.setdefault(chunk.doc_id, Document(chunk.doc_id))
        stale = [
            i for i, c in held.chunks.items() if replaces is not None and c.doc_id == replaces and i not in distinct
        ]
        _remove(held, stale)
        self._shared[self.tenant_id, self.collection] = held
        unchanged = len(distinct) - len(written)
        return UpsertResult([c.id for c in given], len(written), unchanged, embedded, len(stale))

    def _vectors(
        self, held: StoredCollection, given: dict[str, Chunk], clean: dict[str, Chunk]
    ) -> tuple[dict[str, Halves], int]:
        """Each chunk's vector: as given, as stored for the same text, or embedded; and how many were embedded."""
        kept = {
            i: held.vectors[i]
            for i, chunk in given.items()
            if chunk.embedding is None and i in held.chunks and held.chunks[i].text == clean[i].text
        }
        new = {i: chunk.embedding for i, chunk in given.items() if chunk.embedding is not None}
        bare = [i for i in given if i not in kept and i not in new]
        if bare and self._embed is None:
            raise InvalidEmbedding(
                f"chunk {bare[0]!r} has no embedding, and none is stored for the same text; give one, or give the "
                "store an embedding function: embed="
            )
        if self._embed is not None:
            new |= zip(bare, checks.embedded(self._embed, [clean[i].text for i in bare]), strict=True)
        if new:
            stored = guards.to_stored(list(new.values()), self._space, [f"chunk {i!r}" for i in new])
            kept |= zip(new, stored.vectors, strict=True)
        return kept, len(bare)

    def query(
        self,
        vector: Vector | None = None,
        top_k: int = 10,
        filters: Filter | None = None,
        *,
        text: str | None = None,
        mode: SearchMode | None = None,
        fusion: Fusion | None = None,
        fetch_k: int | None = None,
        sparse_k: int | None = None,
        ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> list[Hit]:
        """The `top_k` best chunks that match every condition, best first, ties by id.

        The arguments are those of `PostgresVectorStore.query`.
        """
        top_k = whole_number(top_k, "top_k", 1)
        mode = mode or ("dense" if text is None else "sparse" if vector is None else "hybrid")
        if vector is None and mode != "sparse":
            raise InvalidInput(f"no vector was given; mode {mode!r} needs one")
        if text is None and mode != "dense":
            raise InvalidInput(f"no text was given; mode {mode!r} needs one")
        held = self._held()
        self._check_space(held)
        if mode != "dense" and held.text_config is None and (self.tenant_id, self.collection) in self._shared:
            raise ConfigurationError(
                f"collection {self.collection!r} has no full-text search; create it with text_config='simple'"
            )
        chunks = self._matching(filters, ids, doc_ids)
        depth = whole_number(fetch_k or max(50, 2 * top_k), "fetch_k", 1)
        sparse_depth = whole_number(sparse_k or depth, "sparse_k", 1)
        distances, dense, sparse = dict[str, float](), dict[str, float](), dict[str, float]()
        if mode != "sparse" and vector is not None:
            distances = self._nearest(held, vector, chunks, depth if mode == "hybrid" else top_k)
            dense = {i: checks.similarity(d, self._space) for i, d in distances.items()}
        if mode != "dense" and text is not None:
            found = words.best(text, ((c.id, c.text) for c in chunks))
            sparse = words.first(found, sparse_depth if mode == "hybrid" else top_k)
        scores = words.fused(dense, sparse, fusion or Weighted()) if mode == "hybrid" else dense or sparse
        ranks = [{i: rank for rank, i in enumerate(leg, 1)} for leg in (dense, sparse)]
        hits = []
        for chunk_id, score in words.first(scores, top_k).items():
            chunk = _chunk(held.chunks[chunk_id])
            source = held.documents.get(chunk.doc_id or "", Document("-"))
            hits.append(
                Hit(
                    chunk_id, score, distances.get(chunk_id), chunk.text, dict(chunk.metadata), chunk.doc_id,
                    chunk.index, source.source, source.uri, None if chunk.payload is None else dict(chunk.payload),
                    ranks[0].get(chunk_id), ranks[1].get(chunk_id), sparse.get(chunk_id),
                )
            )  # fmt: skip
        return hits

    def _nearest(self, held: StoredCollection, vector: Vector, chunks: list[Chunk], k: int) -> dict[str, float]:
        """The distances of the `k` nearest chunks, nearest first, ties by id."""
        wanted = guards.to_stored([vector], self._space, ["the query"]).vectors[0].astype(float)
        found = [(self._distance(held.vectors[c.id].astype(float), wanted), c.id) for c in chunks]
        return {chunk_id: distance for distance, chunk_id in sorted(found)[:k]}

    def _distance(self, one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
        if self._space.distance == "l2":
            return float(np.linalg.norm(one - other))
        product = float(one @ other)
        if self._space.distance == "ip":
            return -product
        return 1 - product / float(np.linalg.norm(one) * np.linalg.norm(other))

    def get(self, ids: Sequence[str], *, with_embeddings: bool = False) -> list[Chunk]:
        """Chunks by id, in the order given; unknown ids are left out."""
        found = {c.id: c for c in self._matching(None, ids, None)}
        return [self._out(found[i], with_embeddings) for i in ids if i in found]

    def list_documents(self, ids: Sequence[str] | None = None, *, limit: int = 100, offset: int = 0) -> list[Document]:
        """Documents with their provenance, ordered by id."""
        held, wanted = self._held().documents, checks.id_set(ids, "ids")
        chosen = sorted(i for i in held if wanted is None or i in wanted)
        return [_document(held[i]) for i in checks.page(chosen, limit, offset)]

    def count(
        self,
        filters: Filter | None = None,
        *,
        ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> int:
        """How many chunks match every condition."""
        return len(self._matching(filters, ids, doc_ids))

    def set_metadata(
        self,
        metadata: Metadata,
        *,
        ids: Sequence[str] | None = None,
        filters: Filter | None = None,
        doc_ids: Sequence[str] | None = None,
        replace: bool = False,
    ) -> int:
        """Merge `metadata` into that of matching chunks, or replace theirs; returns how many changed.

        The arguments are those of `PostgresVectorStore.set_metadata`.
        """
        _check_named(filters, ids, doc_ids)
        new, held, count = checks.json_object(metadata, "the metadata"), self._held().copy(), 0
        for chunk in self._matching(filters, ids, doc_ids):
            after = dict(new) if replace else {**chunk.metadata, **new}
            count += after != chunk.metadata
            held.chunks[chunk.id] = changed(chunk, metadata=after)
        if count:
            self._shared[self.tenant_id, self.collection] = held
        return count

    def delete(
        self,
        ids: Sequence[str] | None = None,
        *,
        filters: Filter | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> DeleteReport:
        """Delete the chunks that match every condition; without a condition it is an error."""
        _check_named(filters, ids, doc_ids)
        return self._delete(self._matching(filters, ids, doc_ids), None)

    def delete_by_doc_id(self, doc_id: str) -> DeleteReport:
        """Delete a document with its chunks; an unknown one counts as zero."""
        return self._delete(self._matching(None, None, [doc_id]), doc_id)

    def _delete(self, chunks: list[Chunk], document: str | None) -> DeleteReport:
        held = self._held().copy()
        _remove(held, [c.id for c in chunks])
        documents = 0 if held.documents.pop(document or "", None) is None else 1
        if chunks or documents:
            self._shared[self.tenant_id, self.collection] = held
        return DeleteReport(len(chunks), len(chunks), documents)

    def clear(self) -> DeleteReport:
        """Delete every chunk and document; the collection stays."""
        held = self._held()
        if (self.tenant_id, self.collection) in self._shared:
            self._shared[self.tenant_id, self.collection] = StoredCollection(held.space, held.text_config)
        return DeleteReport(len(held.vectors), len(held.chunks), len(held.documents))

    def drop(self) -> DeleteReport:
        """Delete the collection with everything in it. Raises NotFound."""
        if (held := self._shared.pop((self.tenant_id, self.collection), None)) is None:
            raise NotFound(f"collection {self.collection!r} does not exist")
        return DeleteReport(len(held.vectors), len(held.chunks), len(held.documents), collections=1)

    def _held(self) -> StoredCollection:
        return self._shared.get((self.tenant_id, self.collection)) or StoredCollection(self._space, self._text_config)

    def _check_space(self, held: StoredCollection) -> None:
        if held.space != self._space:
            raise EmbedSpaceMismatch(
                f"collection {self.collection!r} holds vectors of {held.space}, "
                f"but the store was opened for {self._space}"
            )

    def _matching(
        self, filters: Filter | None, ids: Iterable[str] | None, doc_ids: Iterable[str] | None
    ) -> list[Chunk]:
        """Chunks that match every condition, ordered by id."""
        if filters is not None and not isinstance(filters, Filter):
            raise FilterError(f"filters is {type(filters).__name__}; expected a filter such as F.lang == 'de'")
        wanted, sources = checks.id_set(ids, "ids"), checks.id_set(doc_ids, "doc_ids")
        return [
            chunk
            for _, chunk in sorted(self._held().chunks.items())
            if (wanted is None or chunk.id in wanted)
            and (sources is None or chunk.doc_id in sources)
            and (filters is None or matches(filters, chunk.metadata))
        ]

    def _out(self, chunk: Chunk, with_embeddings: bool) -> Chunk:
        vector = self._held().vectors[chunk.id].astype(np.float32).tolist() if with_embeddings else None
        return changed(_chunk(chunk), embedding=vector)

    def list_chunks(
        self,
        filters: Filter | None = None,
        *,
        limit: int = 100,
        offset: int = 0,
        ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
        with_embeddings: bool = False,
    ) -> list[Chunk]:
        """Chunks that match every condition, ordered by id.

        The arguments are those of `PostgresVectorStore.list_chunks`.
        """
        found = checks.page(self._matching(filters, ids, doc_ids), limit, offset)
        return [self._out(chunk, with_embeddings) for chunk in found]

    aupsert, areplace_document, aquery, aget = twin(upsert), twin(replace_document), twin(query), twin(get)
    alist_chunks, alist_documents = twin(list_chunks), twin(list_documents)
    acount, aset_metadata = twin(count), twin(set_metadata)
    adelete, adelete_by_doc_id, aclear, adrop = twin(delete), twin(delete_by_doc_id), twin(clear), twin(drop)


def _check_named(filters: Filter | None, ids: object, doc_ids: object) -> None:
    """Refuse to change a whole collection because of an empty condition. Raises InvalidInput."""
    if ids is None and doc_ids is None and (filters is None or constant(filters) is True):
        raise InvalidInput(
            "the condition matches the whole collection; pass ids= or filters= that select chunks. To delete all of "
            "them, call clear()"
        )


def _differ(one: Halves, other: Halves) -> bool:
    return not np.array_equal(one, other)


def _remove(held: StoredCollection, ids: Iterable[str]) -> None:
    for chunk_id in ids:
        del held.chunks[chunk_id], held.vectors[chunk_id]


def _chunk(chunk: Chunk) -> Chunk:
    """A checked copy, without the embedding. Raises InvalidInput."""
    name = f"chunk {chunk.id!r}"
    index = None if chunk.index is None else whole_number(chunk.index, f"the index of {name}", -(2**31))
    return Chunk(
        chunk.id,
        storable_text(chunk.text, f"the text of {name}"),
        None,
        None if chunk.doc_id is None else check_text(chunk.doc_id, f"the doc_id of {name}", MAX_ID_BYTES),
        index,
        checks.json_object(chunk.metadata, f"the metadata of {name}"),
        None if chunk.payload is None else checks.json_object(chunk.payload, f"the payload of {name}"),
    )


def _document(document: Document) -> Document:
    """A checked copy. Raises InvalidInput."""
    name = f"document {document.id!r}"
    for text in (document.source, document.uri, document.content_hash):
        if text is not None:
            storable_text(text, f"the provenance of {name}")
    return changed(document, metadata=checks.json_object(document.metadata, f"the metadata of {name}"))


if TYPE_CHECKING:
    _: type[VectorStore] = InMemoryVectorStore
