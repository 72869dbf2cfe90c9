"""`PGRecallVectorStore`: LangChain's vector store, on a collection of one tenant."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Self

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from langchain_pgrecall import peers
from langchain_pgrecall.documents import of_documents, to_chunks
from langchain_pgrecall.filters import FilterLike, to_filter
from langchain_pgrecall.handles import OnDatabase
from langchain_pgrecall.searching import Searches
from langchain_pgrecall.spaces import embedder
from pgrecall import (
    Chunk,
    ConfigurationError,
    DatabaseLike,
    Distance,
    EmbedModel,
    EmbedSpace,
    Fusion,
    NotFound,
    PostgresVectorStore,
    SearchMode,
    UpsertResult,
    as_database,
)
from pgrecall.providers import space_of
from pgrecall.steps import Steps, arun, call, faces, run


class PGRecallVectorStore(OnDatabase, Searches):
    """Documents of one collection of one tenant, in Postgres, synchronous and asynchronous.

    The constructor embeds nothing, and with a URL it does no I/O. The tenant can't be changed: no keyword of a call
    chooses another one; `for_tenant` returns a store of another tenant. Searches with scores return distances, lower is
    better: pgvector's, so for "ip" the negated inner product. The scores of modes "sparse" and "hybrid" are higher for
    better documents.

    Args:
        embedding: The embeddings object.
        connection: A `pgrecall.Database`, a URL, a SQLAlchemy engine, or a pair of a synchronous and an asynchronous
            one. By default `PGRECALL_URL`, otherwise the embedded Postgres.
        tenant: The tenant that owns the documents.
        collection: The tenant's collection; by default "default".
        space: The space of a model whose class `pgrecall.providers` does not know.
        distance: "cosine", the default, "l2", or "ip" for inner product.
        text_config: A text search configuration such as "english". A new collection then keeps full text, which the
            modes "sparse" and "hybrid" need. By default none.
        mode: The mode of searches by text: "dense", the default, "sparse" or "hybrid".
        fusion: How hybrid searches combine their rankings: `pgrecall.Weighted()`, the default, or
            `pgrecall.ReciprocalRank()`.

    Raises:
        ConfigurationError: The model's space is unknown, or contradicts `distance`.
        EmbeddedServerError: The embedded Postgres did not start.
    """

    def __init__(
        self,
        embedding: Embeddings,
        *,
        connection: DatabaseLike = None,
        tenant: str,
        collection: str = "default",
        space: EmbedSpace | EmbedModel | None = None,
        distance: Distance | None = None,
        text_config: str | None = None,
        mode: SearchMode = "dense",
        fusion: Fusion | None = None,
    ) -> None:
        self._embedding = embedding
        self._embedder = embedder(embedding)
        self._space = space_of(embedding, space, distance)
        self._text_config = text_config
        self._mode, self._fusion = mode, fusion
        self._connect(connection)
        self._stores: dict[str, PostgresVectorStore] = {}
        try:
            self._store = self._of(tenant, collection)
        except BaseException:
            self.close()
            raise

    def _of(self, tenant: str, collection: str) -> PostgresVectorStore:
        """Return the core's store of a tenant, from a cache: its model is compared once, not for each request."""
        found = self._stores.get(tenant)
        if found is None:
            if len(self._stores) >= 1_000:
                self._stores.clear()
            found = self._stores[tenant] = self._database.tenant(tenant).vectors(
                collection, self._space, embed=self._embedder, text_config=self._text_config
            )
        return found

    def __repr__(self) -> str:
        return f"<PGRecallVectorStore tenant={self.tenant!r} collection={self.collection!r}>"

    @property
    def collection(self) -> str:
        """The collection's name."""
        return self._store.collection

    @property
    def core(self) -> PostgresVectorStore:
        """The core's store of the same rows: `count`, `set_metadata`, `drop` and more."""
        return self._store

    @property
    def embeddings(self) -> Embeddings:
        """The embedding object."""
        return self._embedding

    def for_tenant(self, tenant: str) -> Self:
        """Return the same store for another tenant, on the same connections. This costs nothing."""
        sibling = copy.copy(self)
        sibling._owned = None
        sibling._store = self._of(tenant, self.collection)
        return sibling

    def for_run(self, run_id: str) -> Self:
        """Return the same store for one run: what its searches find is recorded as the run's evidence.

        A search whose evidence can't be written raises. `database.tenant(…).runs().list_evidence(run_id)` reads it.
        """
        sibling = copy.copy(self)
        sibling._owned = None
        sibling._store = self._store.for_run(run_id)
        return sibling

    # Writing

    def _add(self, chunks: Iterable[Chunk]) -> Steps[list[str]]:
        result: UpsertResult = yield call(self._store, "upsert", chunks)
        return result.ids

    def _add_documents(
        self,
        /,
        documents: Iterable[Document],
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Steps[list[str]]:
        """Add or replace documents, all or nothing; returns their ids.

        Ids are taken from `ids`, or from the documents, or created. Unchanged texts are not embedded again.
        `batch_size`, which `langchain_core.indexing` passes, is ignored: a call is one transaction.
        """
        peers.refuse(kwargs, self.tenant)
        return (yield from self._add(of_documents(documents, ids)))

    add_documents, aadd_documents = faces(_add_documents)

    def _add_texts(
        self,
        /,
        texts: Iterable[str],
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ) -> Steps[list[str]]:
        """Add or replace texts, all or nothing.

        Args:
            texts: The texts.
            metadatas: A dictionary for each text. By default empty.
            ids: An id for each text. By default new ids are created.
            batch_size: Ignored: a call is one transaction.
            **kwargs: Refused.

        Returns:
            The documents' ids.

        Raises:
            InvalidInput: The lengths differ, or a value can't be stored. It is a ValueError.
            EmbedSpaceMismatch: The collection belongs to another model.
        """
        peers.refuse(kwargs, self.tenant)
        return (yield from self._add(to_chunks(texts, None, metadatas, ids)))

    add_texts, aadd_texts = faces(_add_texts)

    def _add_embeddings(
        self,
        /,
        texts: Iterable[str],
        embeddings: Iterable[Sequence[float]],
        metadatas: Iterable[dict[str, Any]] | None = None,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Steps[list[str]]:
        """Add or replace texts with vectors of the same model, all or nothing.

        Args:
            texts: The texts.
            embeddings: A vector for each text.
            metadatas: A dictionary for each text. By default empty.
            ids: An id for each text. By default new ids are created.
            **kwargs: Refused.

        Returns:
            The documents' ids.

        Raises:
            InvalidInput: The lengths differ, or a value can't be stored. It is a ValueError.
            EmbedSpaceMismatch: The collection belongs to another model.
        """
        peers.refuse(kwargs, self.tenant)
        return (yield from self._add(to_chunks(texts, embeddings, metadatas, ids)))

    add_embeddings, aadd_embeddings = faces(_add_embeddings)

    def _delete(
        self, /, ids: Sequence[str] | None = None, filter: FilterLike = None, **kwargs: Any
    ) -> Steps[bool | None]:
        """Delete documents by ids, by filter, or those that match both; ignores unknown ids.

        Returns False if neither is given: a call without arguments deletes nothing.
        """
        peers.refuse(kwargs, self.tenant)
        if ids is None and filter is None:
            return False
        yield call(self._store, "delete", ids, filters=to_filter(filter))
        return True

    delete, adelete = faces(_delete)

    # Reading

    def _get_by_ids(self, ids: Sequence[str], /) -> Steps[list[Document]]:
        """Return the documents with these ids, in their order, without unknown ones."""
        chunks = yield call(self._store, "get", ids)
        return [Document(id=c.id, page_content=c.text, metadata=c.metadata) for c in chunks]

    get_by_ids, aget_by_ids = faces(_get_by_ids)

    # Construction

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        embedding: Embeddings,
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Create a store and add texts to it.

        Args:
            texts: The texts.
            embedding: The embeddings object.
            metadatas: A dictionary for each text. By default empty.
            ids: An id for each text. By default new ids are created.
            **kwargs: The constructor's arguments, or a peer's names for them; `tenant` is required.
        """
        return run(cls._made(kwargs | {"embedding": embedding}, "add_texts", texts, metadatas, ids=ids))

    @classmethod
    async def afrom_texts(
        cls,
        texts: Iterable[str],
        embedding: Embeddings,
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Async version of `from_texts`.

        Args:
            texts: As for `from_texts`.
            embedding: As for `from_texts`.
            metadatas: As for `from_texts`.
            ids: As for `from_texts`.
            **kwargs: As for `from_texts`.
        """
        return await arun(cls._made(kwargs | {"embedding": embedding}, "add_texts", texts, metadatas, ids=ids))

    @classmethod
    def from_embeddings(
        cls,
        text_embeddings: Iterable[tuple[str, Sequence[float]]],
        embedding: Embeddings,
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Create a store and add texts with their vectors to it.

        Args:
            text_embeddings: Pairs of a text and its vector.
            embedding: The embeddings object, of the same model.
            metadatas: A dictionary for each text. By default empty.
            ids: An id for each text. By default new ids are created.
            **kwargs: The constructor's arguments, or a peer's names for them; `tenant` is required.
        """
        texts, vectors = _unzipped(text_embeddings)
        return run(cls._made(kwargs | {"embedding": embedding}, "add_embeddings", texts, vectors, metadatas, ids))

    @classmethod
    async def afrom_embeddings(
        cls,
        text_embeddings: Iterable[tuple[str, Sequence[float]]],
        embedding: Embeddings,
        metadatas: Iterable[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Async version of `from_embeddings`.

        Args:
            text_embeddings: As for `from_embeddings`.
            embedding: As for `from_embeddings`.
            metadatas: As for `from_embeddings`.
            ids: As for `from_embeddings`.
            **kwargs: As for `from_embeddings`.
        """
        texts, vectors = _unzipped(text_embeddings)
        return await arun(
            cls._made(kwargs | {"embedding": embedding}, "add_embeddings", texts, vectors, metadatas, ids)
        )

    @classmethod
    def _made(cls, keywords: dict[str, Any], verb: str, *args: Any, **kwargs: Any) -> Steps[Self]:
        store = cls(**peers.arguments(keywords))
        try:
            yield call(store, verb, *args, **kwargs)
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def from_existing(cls, embedding: Embeddings, **kwargs: Any) -> Self:
        """Open an existing collection, with its space and distance; other arguments are the constructor's.

        An embeddings object of an unknown class is assumed to be the collection's model; its fingerprint is checked at
        the first use. Raises NotFound if the collection does not exist.
        """
        return run(cls._existing(embedding, kwargs))

    @classmethod
    async def afrom_existing(cls, embedding: Embeddings, **kwargs: Any) -> Self:
        """Async version of `from_existing`."""
        return await arun(cls._existing(embedding, kwargs))

    @classmethod
    def _existing(cls, embedding: Embeddings, keywords: dict[str, Any]) -> Steps[Self]:
        given = peers.arguments(keywords | {"embedding": embedding})
        if "tenant" not in given:
            raise ConfigurationError("no tenant was given; pass tenant=, the owner of the collection")
        database = as_database(given.get("connection"))
        tenant, name = database.tenant(given.pop("tenant")), given.setdefault("collection", "default")
        try:
            held = yield call(tenant, "collection_info", name)
            if held is None:
                raise NotFound(f"collection {name!r} does not exist; create it with the constructor and a first write")
            if given.get("space") is None:
                given["space"] = _named(embedding, held.space)
            store = cls(**{**given, "connection": database, "tenant": tenant.tenant_id})
        except BaseException:
            if database is not given.get("connection"):
                database.close()
            raise
        store._owned = database if database is not given.get("connection") else None
        return store

    @classmethod
    def create_sync(cls, engine: Any, embedding_service: Embeddings, table_name: str, **kwargs: Any) -> Self:
        """Create a store with the arguments of `langchain_postgres.PGVectorStore.create_sync`, and a `tenant`."""
        named = {"engine": engine, "embedding_service": embedding_service, "table_name": table_name}
        return cls(**peers.arguments(named | kwargs))

    @classmethod
    async def create(cls, engine: Any, embedding_service: Embeddings, table_name: str, **kwargs: Any) -> Self:
        """Async version of `create_sync`; neither does any I/O."""
        return cls.create_sync(engine, embedding_service, table_name, **kwargs)


def _named(embedding: Embeddings, held: EmbedSpace) -> EmbedSpace | EmbedModel:
    """Return the space that the embeddings object names, or the collection's if it names none."""
    try:
        return space_of(embedding, distance=held.distance)
    except ConfigurationError:
        return held


def _unzipped(pairs: Iterable[tuple[str, Sequence[float]]]) -> tuple[list[str], list[Sequence[float]]]:
    given = list(pairs)
    return [text for text, _ in given], [vector for _, vector in given]
