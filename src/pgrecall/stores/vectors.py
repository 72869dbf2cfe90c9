"""The vector store: one collection of one tenant, in one space."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from pgrecall.arguments import MAX_ID_BYTES, OnNul, check_on_nul, check_text, instance, several, whole_number
from pgrecall.errors import NotFound
from pgrecall.filters import Filter
from pgrecall.operations import registry
from pgrecall.operations.chunks import bulk, changes, promotion
from pgrecall.operations.chunks import reads as chunk_reads
from pgrecall.operations.chunks import upsert as chunk_writes
from pgrecall.operations.chunks.keys import narrowed
from pgrecall.operations.chunks.upsert import Chunks, Plan, Progress, Target
from pgrecall.operations.models.calls import Calls
from pgrecall.operations.models.embedding import Embed, ModelInUse
from pgrecall.operations.search.routes import exact_max, look
from pgrecall.postgres.transactions import Gate
from pgrecall.statements.reads import Where
from pgrecall.stores.backend import Backend, CollectionBound
from pgrecall.stores.document_updates import DocumentUpdates
from pgrecall.stores.renamed import renamed
from pgrecall.stores.twins import Work, twins
from pgrecall.stores.vector_search import VectorSearch
from pgrecall.types import (
    BulkLoadResult,
    Chunk,
    DeleteReport,
    Document,
    EmbedModel,
    EmbedSpace,
    IndexedKey,
    Metadata,
    OptimizeResult,
    UpsertResult,
)

if TYPE_CHECKING:
    from pgrecall.protocols import VectorStore


class PostgresVectorStore(VectorSearch, DocumentUpdates, CollectionBound):
    """Chunks and their vectors in one collection, bound to its tenant for life; made by ``db.tenant(…).vectors(…)``.

    Every method has an asynchronous twin with an `a` before its name. Nothing is read or written before the first call.
    Safe to share between threads, event loops and forked processes.
    """

    def __init__(
        self,
        backend: Backend,
        tenant: str,
        collection: str,
        space: EmbedSpace | EmbedModel | None,
        *,
        embed: Embed | None = None,
        text_config: str | None = None,
        indexed_keys: tuple[IndexedKey, ...] = (),
    ) -> None:
        super().__init__(backend, tenant, collection)
        self._model = ModelInUse(space, embed)
        self._text_config = text_config
        self._indexed_keys = indexed_keys
        self._run_id: str | None = None

    @property
    def model(self) -> ModelInUse:
        """The space and the embedding function in use; the library's own modules use it, applications don't."""
        return self._model

    def __repr__(self) -> str:
        return (
            f"<PostgresVectorStore tenant={self.tenant_id!r} collection={self.collection!r} space={self._model.given}>"
        )

    def _target(self, gate: Gate, on_nul: OnNul) -> Target:
        check_on_nul(on_nul)
        place = self._place(gate)
        space = self._model.collection_space(gate, place, reload=True)
        if space is None:
            raise NotFound(
                f"collection {self.collection!r} does not exist; pass its space to create it: "
                f"vectors({self.collection!r}, space)"
            )
        backend = self._backend
        backend.space_ids.ensure(
            gate, place.scope, space
        )  # registered by itself, ahead of a transaction that may be long
        return Target(
            place,
            space,
            backend.server(gate).halfvec_oid,
            create_tenants=self._create_tenants,
            text_config=self._text_config,
            indexed_keys=self._indexed_keys,
            fingerprint=self._model.fingerprint,
            on_nul=on_nul,
            caretaker=backend.caretaker,
        )

    def _upsert(
        self,
        chunks: Chunks,
        *,
        documents: Iterable[Document] = (),
        embed: Embed | None = None,
        commit_every: int | None = None,
        progress: Progress | None = None,
        on_nul: OnNul = "error",
    ) -> Work[UpsertResult]:
        """Add or replace chunks by id. Unchanged chunks are left alone; if an id occurs twice in a call, the last chunk
        wins.

        The call is all or nothing, unless `commit_every` is given. Chunks without a vector are embedded if their text
        is new or changed, before the transaction that writes them; the vectors of one transaction are held in memory.
        Code that runs during the call (a generator, `progress`) must not write to this collection: it would wait
        forever for the rows that the call has locked.

        Args:
            chunks: Any iterable, generators included; it is read once. `aupsert` also takes asynchronous ones.
            documents: The sources that chunks name by `doc_id`. A `doc_id` without one creates a bare document.
            embed: A function from a list of texts to their vectors, sync or async; by default the store's own.
            commit_every: Commit every N chunks instead of all or nothing.
            progress: A function of (done, total), called after each batch: 1,000 chunks written, or 100 embedded.
                `total` is None for a generator.
            on_nul: What to do with NUL characters, which Postgres can't store: "error", the default, or "strip".

        Returns:
            The ids in the order given, and counts of chunks.

        Raises:
            InvalidInput: A chunk is malformed; the error names it.
            InvalidEmbedding: A vector has the wrong length, or is not finite.
            EmbedSpaceMismatch: The collection belongs to another model.
            FingerprintMismatch: The embedding function is not the one that filled the collection.
            NotFound: The collection does not exist, and the store has no space to create it with.
            TenantErased: The tenant was deleted.
            UnknownTenant: The tenant is not registered, and the database requires it.
            Conflict: Other writers kept the rows locked.
            Unavailable: The database cannot be reached.
        """
        several(chunks, "Chunk", or_async=True)
        several(documents, "Document")
        if commit_every is not None:
            commit_every = whole_number(commit_every, "commit_every", 1)
        plan = Plan(tuple(documents), embed or self._model.embedder, commit_every, progress)
        return lambda gate: chunk_writes.upsert(gate, self._target(gate, on_nul), chunks, plan)

    upsert, aupsert = twins(_upsert)

    def _bulk_load(
        self,
        chunks: Chunks,
        *,
        documents: Iterable[Document] = (),
        embed: Embed | None = None,
        embed_concurrency: int = 1,
        retry_on: tuple[type[BaseException], ...] = (),
        commit_every: int | None = None,
        progress: Progress | None = None,
        on_nul: OnNul = "error",
    ) -> Work[BulkLoadResult]:
        """Load an initial corpus of any size. The input is read once, and only a small part of it is held in memory.

        Chunks are written as by `upsert`, but committed as the load proceeds. If it fails or is killed, call it again:
        chunks that are stored already are neither written nor embedded again. Loaded rows are searched exactly at
        first; build the graph afterwards, with `store.optimize()` or `db.maintain()`.

        Args:
            chunks: Any iterable, generators included. `abulk_load` also takes asynchronous ones.
            documents: The sources that chunks name by `doc_id`; they are written first.
            embed: A function from a list of texts to their vectors, sync or async; by default the store's own.
            embed_concurrency: The number of concurrent calls of `embed`, of up to 100 texts each; by default 1. On an
                event loop, a synchronous function runs in threads.
            retry_on: Exceptions after which a call of `embed` is retried with back-off, besides busy answers (HTTP
                status 429, 503 or 529).
            commit_every: The number of chunks per transaction; by default 10,000, or 1,000 if they are embedded.
            progress: A function of (done, total), in chunks embedded, or written if none are embedded. `total` is None
                for a generator.
            on_nul: As for `upsert`.

        Returns:
            Counts of chunks. An id that occurs twice counts twice.

        Raises:
            PgRecallError: As `upsert` does; the error names the chunk. Transactions that were committed before stay.
        """
        several(chunks, "Chunk", or_async=True)
        several(documents, "Document")
        if commit_every is not None:
            commit_every = whole_number(commit_every, "commit_every", 1)
        calls = Calls(embed_concurrency, tuple(retry_on))
        plan = Plan((), embed or self._model.embedder, commit_every, progress, calls=calls)
        return lambda gate: bulk.load(gate, self._target(gate, on_nul), chunks, documents, plan)

    bulk_load, abulk_load = twins(_bulk_load)

    def _replace_document(
        self,
        document: Document,
        chunks: Iterable[Chunk],
        *,
        embed: Embed | None = None,
        progress: Progress | None = None,
        on_nul: OnNul = "error",
    ) -> Work[UpsertResult]:
        """Write a document with exactly these chunks; other chunks that it had are deleted.

        If two calls replace the same document at the same time, the result is that of one of them, complete.

        Args:
            document: The document.
            chunks: All of its chunks.
            embed: As for `upsert`.
            progress: As for `upsert`.
            on_nul: As for `upsert`.

        Returns:
            As `upsert`; `removed` is the number of chunks deleted.

        Raises:
            InvalidInput: A chunk is malformed, or names another document.
            PgRecallError: As `upsert` does.
        """
        several(chunks, "Chunk")
        owned = changes.owned(instance(document, Document, "the document"), chunks)
        plan = Plan((document,), embed or self._model.embedder, None, progress, replaces=document.id)
        return lambda gate: chunk_writes.upsert(gate, self._target(gate, on_nul), owned, plan)

    replace_document, areplace_document = twins(_replace_document)

    def _by_keys(self, gate: Gate, where: Where, values: dict[str, Any]) -> tuple[Where, dict[str, Any]]:
        """The condition, rewritten to use the collection's indexed keys if it has any."""
        known = () if where.tree is None else self._backend.routes.keys(gate, self._place(gate))
        return narrowed(where, values, known)

    @property
    def run_id(self) -> str | None:
        """The run that searches are recorded for, or None."""
        return self._run_id

    def for_run(self, run_id: str) -> PostgresVectorStore:
        """This store bound to a run: each search records its chunks as evidence, see `PostgresRuns.list_evidence`.

        A search raises if its evidence can't be recorded. Other reads are not recorded.
        """
        bound = copy(self)
        bound._run_id = check_text(run_id, "run_id", MAX_ID_BYTES)
        return bound

    def _get(self, ids: Sequence[str], *, with_embeddings: bool = False) -> Work[list[Chunk]]:
        """Chunks by id, in the order given; unknown ids are left out. With `with_embeddings` their vectors come too, in
        half precision.
        """
        return lambda gate: chunk_reads.get(gate, self._place(gate), ids, with_embeddings=with_embeddings)

    get, aget = twins(_get)

    def _list_documents(
        self, ids: Sequence[str] | None = None, *, limit: int = 100, offset: int = 0
    ) -> Work[list[Document]]:
        """Documents with their provenance, ordered by id; `ids` selects some of them."""
        return lambda gate: chunk_reads.documents(gate, self._place(gate), limit=limit, offset=offset, ids=ids)

    list_documents, alist_documents = twins(_list_documents)
    documents, adocuments = renamed("documents", list_documents, alist_documents)

    def _count(
        self,
        filters: Filter | None = None,
        *,
        ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> Work[int]:
        """The number of chunks that match all conditions; of all chunks if there are none."""
        where, values = chunk_reads.condition(filters, ids, doc_ids)
        return lambda gate: chunk_reads.count(gate, self._place(gate), *self._by_keys(gate, where, values))

    count, acount = twins(_count)

    def _set_metadata(
        self,
        metadata: Metadata,
        *,
        ids: Sequence[str] | None = None,
        filters: Filter | None = None,
        doc_ids: Sequence[str] | None = None,
        replace: bool = False,
    ) -> Work[int]:
        """Merge `metadata` into that of matching chunks; vectors stay untouched.

        Args:
            metadata: The keys to set.
            ids: Only these chunks.
            filters: Only chunks whose metadata matches.
            doc_ids: Only chunks of these documents.
            replace: Replace the metadata instead of merging; by default False.

        Returns:
            The number of chunks that changed.

        Raises:
            InvalidInput: No condition is given, or `metadata` is malformed.
            FilterError: `filters` is malformed.
        """
        where, values = chunk_reads.condition(filters, ids, doc_ids)
        retag = partial(chunk_reads.retag, metadata=metadata, replace=replace)
        return lambda gate: retag(gate, self._place(gate), *self._by_keys(gate, where, values))

    set_metadata, aset_metadata = twins(_set_metadata)

    def _delete(
        self,
        ids: Sequence[str] | None = None,
        *,
        filters: Filter | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> Work[DeleteReport]:
        """Delete the chunks that match all conditions, at least one of which must be given; their documents stay.

        `delete_by_doc_id` deletes a document too. Raises InvalidInput, FilterError.
        """
        where, values = chunk_reads.condition(filters, ids, doc_ids)
        return lambda gate: chunk_reads.delete(gate, self._place(gate), *self._by_keys(gate, where, values))

    delete, adelete = twins(_delete)

    def _delete_by_doc_id(self, doc_id: str) -> Work[DeleteReport]:
        """Delete a document with its chunks and their vectors; an unknown one counts as zero."""
        return lambda gate: chunk_reads.delete_documents(gate, self._place(gate), [doc_id])

    delete_by_doc_id, adelete_by_doc_id = twins(_delete_by_doc_id)

    def _optimize(self, *, wait: float = 0.0) -> Work[OptimizeResult]:
        """Make searches of a large collection fast: add its waiting rows to the graph, or build one if that is due.

        Building needs the owner's login (`admin_url`) and the maintenance login, and serves all large collections of
        the space. Without them, up to 2,000 rows are added to the present graph. `wait` is how many seconds to wait for
        another process's maintenance. Raises: NotFound; ConfigurationError if a graph must be built and can't;
        Conflict; Unavailable.
        """

        def work(gate: Gate) -> OptimizeResult:
            backend, place = self._backend, self._place(gate)
            held = registry.find_collection(gate, place)
            if held is None:
                raise NotFound(f"collection {place.collection!r} does not exist; there is nothing to optimize")
            space_id = backend.space_ids.find(gate, place.scope, held.space, reload=True)
            route = look(gate, place, held.space, space_id)
            if backend.admin_url is None or route.rows <= exact_max(held.space.dim):
                return promotion.optimize(gate, place, held.space, space_id, route)
            [done] = backend.maintain(gate, space_id, wait=wait)
            return promotion.optimized(gate, place, space_id, done.generation, done.action)

        return work

    optimize, aoptimize = twins(_optimize)

    def _clear(self) -> Work[DeleteReport]:
        """Delete all chunks and documents; the collection stays, with its space and its docstore."""
        return lambda gate: registry.clear_collection(gate, self._place(gate))

    clear, aclear = twins(_clear)

    def _drop(self) -> Work[DeleteReport]:
        """Delete the collection with everything in it. Raises NotFound."""
        return lambda gate: registry.drop_collection(gate, self._place(gate))

    drop, adrop = twins(_drop)

    def _list_chunks(
        self,
        filters: Filter | None = None,
        *,
        limit: int = 100,
        offset: int = 0,
        ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
        with_embeddings: bool = False,
    ) -> Work[list[Chunk]]:
        """Chunks that match all conditions, ordered by id.

        Args:
            filters: Only chunks whose metadata matches.
            limit: The maximum number of chunks; by default 100.
            offset: The number of chunks to skip; by default 0.
            ids: Only these chunks.
            doc_ids: Only chunks of these documents.
            with_embeddings: Return their vectors too, in half precision; by default False.

        Returns:
            A list of `Chunk`.

        Raises:
            InvalidInput: An argument is malformed.
            FilterError: `filters` is malformed.
        """
        where, values = chunk_reads.condition(filters, ids, doc_ids)
        page = partial(chunk_reads.listing, limit=limit, offset=offset, with_embeddings=with_embeddings)
        return lambda gate: page(gate, self._place(gate), *self._by_keys(gate, where, values))

    list_chunks, alist_chunks = twins(_list_chunks)
    list, alist = renamed("list", list_chunks, alist_chunks)


if TYPE_CHECKING:
    _: type[VectorStore] = PostgresVectorStore
