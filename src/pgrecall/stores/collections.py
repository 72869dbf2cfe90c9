"""The methods of a tenant's handle that concern its collections."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pgrecall import guards
from pgrecall.arguments import MAX_NAME_BYTES, check_text, instance, whole_number
from pgrecall.errors import ConfigurationError, InvalidInput, NotFound
from pgrecall.operations import registry
from pgrecall.operations.chunks import fulltext, keys, reembed
from pgrecall.operations.chunks.keys import Progress
from pgrecall.operations.models.calls import Calls
from pgrecall.operations.models.embedding import Embed, Embedder
from pgrecall.operations.registry import Place
from pgrecall.operations.search import tune
from pgrecall.operations.search.routes import MOST_EF_SEARCH
from pgrecall.postgres.transactions import Gate
from pgrecall.stores.backend import TenantBound
from pgrecall.stores.renamed import renamed
from pgrecall.stores.twins import Work, twins
from pgrecall.types import (
    Chunk,
    CollectionInfo,
    DeleteReport,
    EmbedModel,
    EmbedSpace,
    IndexedKey,
    KeyType,
    ReembedResult,
    TuneResult,
    Vector,
)


class Collections(TenantBound):
    """The collections of a `Tenant`."""

    def _list_collections(self) -> Work[list[CollectionInfo]]:
        """The tenant's collections, with their spaces and counts."""
        return lambda gate: registry.collections(gate, self._scope(gate))

    list_collections, alist_collections = twins(_list_collections)
    collections, acollections = renamed("collections", list_collections, alist_collections)

    def _collection_info(self, name: str) -> Work[CollectionInfo | None]:
        """One collection, or None if it does not exist."""
        check_text(name, "collection", MAX_NAME_BYTES)

        def work(gate: Gate) -> CollectionInfo | None:
            return next(iter(registry.collections(gate, self._scope(gate), name)), None)

        return work

    collection_info, acollection_info = twins(_collection_info)
    collection, acollection = renamed("collection", collection_info, acollection_info)

    def _index_key(
        self, collection: str, key: str | Sequence[str], key_type: KeyType = "text", *, progress: Progress | None = None
    ) -> Work[IndexedKey]:
        """Index a metadata key, so that filters on it use the index under row-level security, whichever login is
        connected.

        Existing chunks are indexed in batches, while others read and write. Until that is done, filters read the
        tenant's rows as before; after an interruption call it again. Every later write of a chunk also writes the key.
        A collection can have up to 16 keys. Elements of arrays are indexed too, for `contains`, `any` and `all`.

        Args:
            collection: The collection's name.
            key: The key's name, or a list of names for a nested key.
            key_type: "text", "number" or "bool"; by default "text". Values of other types are found without the index.
            progress: A function of (done, total), called after each batch.

        Raises:
            NotFound: The collection does not exist.
            InvalidInput: The key or its type is malformed, or there are 16 keys already.
            Conflict: Another call changed the collection's keys.
            Unavailable: The database cannot be reached.
        """
        check_text(collection, "collection", MAX_NAME_BYTES)
        path, kind = keys.checked(key, key_type)

        def work(gate: Gate) -> IndexedKey:
            done = keys.index_key(gate, self._place(gate, collection), path, kind, progress)
            self._backend.routes.forget()
            return done

        return work

    index_key, aindex_key = twins(_index_key)

    def _unindex_key(self, collection: str, key: str | Sequence[str], key_type: KeyType = "text") -> Work[int]:
        """Drop an indexed key; returns the number of entries deleted. Filters find the same rows without it. Raises
        NotFound.
        """
        check_text(collection, "collection", MAX_NAME_BYTES)
        path, kind = keys.checked(key, key_type)

        def work(gate: Gate) -> int:
            gone = keys.unindex_key(gate, self._place(gate, collection), path, kind)
            self._backend.routes.forget()
            return gone

        return work

    unindex_key, aunindex_key = twins(_unindex_key)

    def _tune(
        self,
        collection: str,
        target: float = 0.99,
        *,
        k: int = 10,
        queries: int = 50,
        vectors: Sequence[Vector] | None = None,
    ) -> Work[TuneResult]:
        """Measure which `ef_search` a collection needs, and store it: its searches then use it by default.

        The smallest `ef_search` is chosen whose searches find the share `target` of the `k` nearest chunks that an
        exact search finds. A small collection is searched exactly, so nothing is chosen.

        Args:
            collection: The collection's name.
            target: The recall to reach, above 0 and up to 1; by default 0.99.
            k: The number of nearest chunks that are compared; by default 10.
            queries: The number of stored vectors to use as queries; by default 50.
            vectors: Vectors to use as queries instead. Vectors of real queries give better results.

        Returns:
            The choice, and what was tried.

        Raises:
            NotFound: The collection does not exist.
            InvalidInput: An argument is malformed.
            InvalidEmbedding: A vector has the wrong length, or is not finite.
            ConfigurationError: The collection is large and has no graph.
        """
        check_text(collection, "collection", MAX_NAME_BYTES)
        if isinstance(target, bool) or not isinstance(target, float | int) or not 0 < target <= 1:
            raise InvalidInput(f"target is {target!r:.40}; expected a recall above 0, up to 1")
        k, queries = whole_number(k, "k", 1), whole_number(queries, "queries", 1)
        if k >= MOST_EF_SEARCH // 2:
            raise InvalidInput(f"k is {k}; expected at most {MOST_EF_SEARCH // 2 - 1}, the limit of a graph search")

        def work(gate: Gate) -> TuneResult:
            place = self._place(gate, collection)
            info = next(iter(registry.collections(gate, place.scope, collection)), None)
            if info is None:
                raise NotFound(f"tenant {place.scope.tenant!r} has no collection {collection!r}")
            space_id = self._backend.space_ids.find(gate, place.scope, info.space)
            if vectors is not None:
                guards.to_stored(vectors, info.space, [f"vector {n}" for n in range(len(vectors))])
            done = tune.tune(
                gate,
                place,
                info.space,
                space_id,
                target=target,
                k=k,
                queries=queries,
                vectors=vectors,
            )
            self._backend.routes.forget()
            return done

        return work

    tune, atune = twins(_tune)

    def _set_ef_search(self, collection: str, ef_search: int | None) -> Work[None]:
        """Store the `ef_search` that searches of the collection use by default, from 1 to 1,000.

        With None the default depends on the collection's size again, see `PostgresVectorStore.query`. Raises: NotFound,
        InvalidInput.
        """
        check_text(collection, "collection", MAX_NAME_BYTES)
        chosen = None if ef_search is None else tune.checked(ef_search)

        def work(gate: Gate) -> None:
            tune.keep(gate, self._place(gate, collection), chosen)
            self._backend.routes.forget()

        return work

    set_ef_search, aset_ef_search = twins(_set_ef_search)

    def _place(self, gate: Gate, collection: str) -> Place:
        return Place(self._scope(gate), collection)

    def _drop_collection(self, name: str) -> Work[DeleteReport]:
        """Delete a collection with everything in it. Raises NotFound."""
        check_text(name, "collection", MAX_NAME_BYTES)
        return lambda gate: registry.drop_collection(gate, self._place(gate, name))

    drop_collection, adrop_collection = twins(_drop_collection)

    def _set_text_config(
        self, collection: str, text_config: str | None, *, batch: int = fulltext.BATCH, progress: Progress | None = None
    ) -> Work[int]:
        """Enable, change or disable full text in an existing collection.

        New writes use the configuration at once. Existing chunks follow in batches, while others read and write; the
        call waits for running writes when it begins and when it ends. Until all chunks are done, searches by words are
        refused, because they would miss chunks. After an interruption call it again: it continues where it stopped.

        Args:
            collection: The collection's name.
            text_config: A Postgres text search configuration, such as "english"; None disables full text.
            batch: The number of chunks per transaction.
            progress: A function of (done, total), called after each batch.

        Returns:
            The number of chunks that changed.

        Raises:
            NotFound: The collection does not exist.
            InvalidInput: An argument is malformed, or the server has no such configuration.
            ConfigurationError: Another call changed the configuration meanwhile.
            Conflict: Other writers kept the collection locked.
            Unavailable: The database cannot be reached.
        """
        check_text(collection, "collection", MAX_NAME_BYTES)
        if text_config is not None:
            check_text(text_config, "text_config", MAX_NAME_BYTES)
        batch = whole_number(batch, "batch", 1)

        def work(gate: Gate) -> int:
            place = self._place(gate, collection)
            return fulltext.set_text_config(gate, place, text_config, batch=batch, progress=progress)

        return work

    set_text_config, aset_text_config = twins(_set_text_config)

    def _reembed(
        self,
        collection: str,
        to: EmbedSpace | EmbedModel,
        embed: Embed,
        *,
        text_of: Callable[[Chunk], str] | None = None,
        switch: bool = True,
        batch: int = reembed.BATCH,
        embed_concurrency: int = 1,
        retry_on: tuple[type[BaseException], ...] = (),
        progress: Progress | None = None,
    ) -> Work[ReembedResult]:
        """Move a collection to another embedding model, while it is read and written.

        The new space is filled while the old one keeps answering. Writers continue with the old model; a chunk that
        they change is embedded again. When every chunk has a new vector, a sample is embedded a second time and
        compared, and each sampled chunk must be found by its own vector. Then the collection switches in one
        transaction, which waits for writers but not for readers; calls with the old model raise EmbedSpaceMismatch from
        then on. At last the old vectors are deleted. The call can be interrupted at any point, even by kill -9: call it
        again to continue.

        Args:
            collection: The collection's name.
            to: The new space, or an `EmbedModel`, whose dimensions are learned from `embed`.
            embed: The new model: a function from a list of texts to their vectors, sync or async.
            text_of: A function from a chunk to the text to embed; by default the chunk's text. `set_metadata` alone
                does not make a chunk be embedded again.
            switch: False stops before the switch, so that `db.maintain` can build the new space's graph; the next call
                switches. By default True.
            batch: The number of chunks to read at a time. They are written in transactions of 100.
            embed_concurrency: The number of concurrent calls of `embed`; by default 1.
            retry_on: Exceptions after which a call of `embed` is retried with back-off, besides busy answers (HTTP
                status 429, 503 or 529).
            progress: A function of (done, total), in chunks.

        Returns:
            What was done, and how the sample compares.

        Raises:
            NotFound: The collection does not exist.
            InvalidInput: An argument is malformed.
            InvalidEmbedding: The new model returned an unusable vector; the old space keeps answering.
            FingerprintMismatch: The new model is not the one that began; the old space keeps answering.
            ConfigurationError: The collection is being moved to another space already, or this is inside an atomic
                block.
            Conflict: Other writers kept the collection locked.
            Unavailable: The database cannot be reached.
        """
        check_text(collection, "collection", MAX_NAME_BYTES)
        instance(to, (EmbedSpace, EmbedModel), "to")
        batch, calls = whole_number(batch, "batch", 1), Calls(embed_concurrency, tuple(retry_on))
        embedder = embed if isinstance(embed, Embedder) else Embedder(embed)

        def work(gate: Gate) -> ReembedResult:
            if gate.outside is not gate:
                raise ConfigurationError(
                    "reembed() cannot run inside an atomic block, because it would keep the collection locked; call it "
                    "before or after the block"
                )
            job = reembed.ReembedJob(
                self._place(gate, collection),
                reembed.space_of(gate, to, embedder, calls),
                embedder,
                self._backend.server(gate).halfvec_oid,
                text_of or reembed.own_text,
                batch,
                calls,
                progress,
            )
            return reembed.reembed(gate, job, switch=switch)

        return work

    reembed, areembed = twins(_reembed)

    def _cancel_reembed(self, collection: str) -> Work[int]:
        """Stop moving a collection to another model; returns the number of new vectors deleted. Raises NotFound."""
        check_text(collection, "collection", MAX_NAME_BYTES)
        return lambda gate: reembed.cancel(gate, self._place(gate, collection))

    cancel_reembed, acancel_reembed = twins(_cancel_reembed)
