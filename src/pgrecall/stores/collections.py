"""What a tenant's handle does with its collections, beside their stores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pgrecall import guards
from pgrecall.arguments import MAX_NAME_BYTES, check_text, instance, whole_number
from pgrecall.errors import ConfigurationError, InvalidInput, NotFound
from pgrecall.operations import registry
from pgrecall.operations.chunks import fulltext, keys
from pgrecall.operations.chunks import reembed as reembedding
from pgrecall.operations.chunks.keys import Progress
from pgrecall.operations.models.calls import Calls
from pgrecall.operations.models.embedding import Embed, Embedder
from pgrecall.operations.registry import Place
from pgrecall.operations.search import tune as breadth
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
        """The tenant's collections with their spaces and counts."""
        return lambda gate: registry.collections(gate, self._scope(gate))

    list_collections, alist_collections = twins(_list_collections)
    collections, acollections = renamed("collections", list_collections, alist_collections)

    def _collection_info(self, name: str) -> Work[CollectionInfo | None]:
        """One collection, or None."""
        check_text(name, "collection", MAX_NAME_BYTES)

        def work(gate: Gate) -> CollectionInfo | None:
            return next(iter(registry.collections(gate, self._scope(gate), name)), None)

        return work

    collection_info, acollection_info = twins(_collection_info)
    collection, acollection = renamed("collection", collection_info, acollection_info)

    def _index_key(
        self, collection: str, key: str | Sequence[str], key_type: KeyType = "text", *, progress: Progress | None = None
    ) -> Work[IndexedKey]:
        """Let filters on a metadata key use an index, under row-level security and whoever is connected.

        `key` is its name, or a list of names for a nested one; `key_type` is text, number or bool: values of other
        types are found as without it. An array's elements are indexed too, for `contains`, `any` and `all`.

        What is there is entered in batches, beside others that read and write; `progress(done, total)` is called after
        each. Until that is done filters read the tenant's rows as before; call again where it was cut off. Every write
        of a chunk then pays for the key. Up to 16 keys a collection.

        Raises: NotFound where the collection does not exist, InvalidInput, Conflict, Unavailable.
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
        """Drop an indexed key; returns how many entries went. Filters find the same without it. Raises NotFound."""
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
        """Choose by measuring how far a search of the collection goes into its graph: the smallest `ef_search` that
        finds `target` of the `k` nearest, from 0 to 1, as an exact search finds them. Its searches use it from now on.

        Asked are `queries` of its own stored vectors, or `vectors`, which are better where they are of real questions.
        Searches with a filter keep twice as many. Where the collection is small it is searched exactly, and there is
        nothing to choose.

        Raises: NotFound; InvalidInput; InvalidEmbedding; ConfigurationError where it is large and has no graph.
        """
        check_text(collection, "collection", MAX_NAME_BYTES)
        if isinstance(target, bool) or not isinstance(target, float | int) or not 0 < target <= 1:
            raise InvalidInput(f"target is {target!r:.40}; expected a recall above 0, up to 1")
        k, queries = whole_number(k, "k", 1), whole_number(queries, "queries", 1)
        if k >= MOST_EF_SEARCH // 2:
            raise InvalidInput(f"k is {k}; expected at most {MOST_EF_SEARCH // 2 - 1}, as many as a graph is asked for")

        def work(gate: Gate) -> TuneResult:
            place = self._place(gate, collection)
            info = next(iter(registry.collections(gate, place.scope, collection)), None)
            if info is None:
                raise NotFound(f"tenant {place.scope.tenant!r} has no collection {collection!r}")
            space_id = self._backend.space_ids.find(gate, place.scope, info.space)
            if vectors is not None:
                guards.to_stored(vectors, info.space, [f"vector {n}" for n in range(len(vectors))])
            done = breadth.tune(
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
        """Choose by hand how many candidates a search of the collection's graph keeps, where the call does not say.

        From 1 to 1,000; None: by the collection's size again. Raises: NotFound, InvalidInput.
        """
        check_text(collection, "collection", MAX_NAME_BYTES)
        chosen = None if ef_search is None else breadth.checked(ef_search)

        def work(gate: Gate) -> None:
            breadth.keep(gate, self._place(gate, collection), chosen)
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
        """Make a collection keep full text, in this language (a Postgres text search configuration); None: no more.

        For a collection that has rows, or keeps full text in another language: what is written from now on has it at
        once, and the chunks that are there follow in transactions of `batch`, after each of which `progress(done,
        total)` is called. Readers and writers go on meanwhile; the call waits for writes under way when it begins and
        when it ends. Until all is done searches by words are refused, since they would miss chunks. After an
        interruption call it again: it goes on where it stopped. Returns how many chunks changed.

        Raises: NotFound, InvalidInput, Conflict, Unavailable; ConfigurationError where another call changes the
        language meanwhile.
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
        batch: int = reembedding.BATCH,
        embed_concurrency: int = 1,
        retry_on: tuple[type[BaseException], ...] = (),
        progress: Progress | None = None,
    ) -> Work[ReembedResult]:
        """Embed a collection anew, by another model, while it is read and written; then it answers in `to`.

        The new space is filled beside the old one, which answers until the end. What is written meanwhile is embedded
        too: writers go on with the old model, and a chunk that changes loses its new vector and gets another. Once
        every chunk has one, a sample of them is made again and compared, and must find its own chunks. Then the
        collection switches, in one transaction, for which writers are waited and readers are not; who comes with the
        old model after that gets EmbedSpaceMismatch. The old vectors are dropped last.

        Call it again wherever it was cut off, also by kill -9: it goes on with what lacks. Memory is bounded: `batch`
        chunks are read, and written in transactions of 100. `embed` is a function from texts to their vectors, sync or
        async; `text_of` gives what is embedded of a chunk, its text where left out (an upsert that changes a chunk has
        it embedded again, `set_metadata` has not). `embed_concurrency` calls run at once; a busy answer (status 429,
        503 or 529), or an error of `retry_on`, is tried again with back-off. `progress(done, total)` counts chunks.
        `switch=False` stops before the switch, so that `db.maintain` can build the new space's graph first; the next
        call switches. Without a graph a large collection is searched exactly until `db.maintain`.

        Raises: NotFound, InvalidInput, InvalidEmbedding, FingerprintMismatch, Conflict, Unavailable;
        ConfigurationError where it is embedded anew as another space already. The old space answers then as before.
        """
        check_text(collection, "collection", MAX_NAME_BYTES)
        instance(to, (EmbedSpace, EmbedModel), "to")
        batch, calls = whole_number(batch, "batch", 1), Calls(embed_concurrency, tuple(retry_on))
        embedder = embed if isinstance(embed, Embedder) else Embedder(embed)

        def work(gate: Gate) -> ReembedResult:
            if gate.outside is not gate:
                raise ConfigurationError(
                    "a collection is not embedded anew inside an atomic block, which would hold it for as long; call "
                    "it before or after the block"
                )
            job = reembedding.Job(
                self._place(gate, collection),
                reembedding.space_of(gate, to, embedder, calls),
                embedder,
                self._backend.server(gate).halfvec_oid,
                text_of or reembedding.own_text,
                batch,
                calls,
                progress,
            )
            return reembedding.reembed(gate, job, switch=switch)

        return work

    reembed, areembed = twins(_reembed)

    def _cancel_reembed(self, collection: str) -> Work[int]:
        """Give up embedding a collection anew; returns how many new vectors were dropped. Raises NotFound."""
        check_text(collection, "collection", MAX_NAME_BYTES)
        return lambda gate: reembedding.cancel(gate, self._place(gate, collection))

    cancel_reembed, acancel_reembed = twins(_cancel_reembed)
