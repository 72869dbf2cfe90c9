"""`PGRecallVectorStore`: LangChain's vector store on a collection of one tenant."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Self

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from langchain_pgrecall import peers
from langchain_pgrecall.documents import of_documents, to_chunks
from langchain_pgrecall.filters import FilterLike, to_filter
from langchain_pgrecall.searching import Searches
from langchain_pgrecall.spaces import embedder
from pgrecall import (
    Chunk,
    ConfigurationError,
    Database,
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


class PGRecallVectorStore(Searches):
    """Documents of one collection of one tenant, in Postgres; every method also asynchronous, on the same object.

    `embedding` makes the vectors; nothing is embedded, connected or read here. `connection` is a `pgrecall.Database`, a
    URL, a SQLAlchemy engine or a pair of a synchronous and an asynchronous one, or None for the embedded Postgres; a
    database that is given stays open when the store is closed. `tenant` is bound for life: no keyword of a call can
    choose another one, `for_tenant` gives its sibling. `space` says which model the embedding object is, where its
    class does not tell (`pgrecall.providers`); `distance` is "cosine" unless given: "l2" or "ip" (inner product).
    `text_config`, such as "english", makes a new collection keep full text, which searches with `mode` "hybrid" or
    "sparse" look at; `mode` and `fusion` hold for each search by text that does not say its own.

    Scores that searches return are distances, lower is better: pgvector's, so for "ip" the negated inner product.

    Raises ConfigurationError; in calls what the core raises: InvalidInput (a ValueError) for what can't be stored,
    EmbedSpaceMismatch where the collection is another model's, and so on.
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
        self._database = as_database(connection)
        self._owned = self._database if self._database is not connection else None
        self._stores: dict[str, PostgresVectorStore] = {}
        try:
            self._store = self._of(tenant, collection)
        except BaseException:
            self.close()
            raise

    def _of(self, tenant: str, collection: str) -> PostgresVectorStore:
        """The core's store of a tenant; kept, so that a sibling made for each request compares no model again."""
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
    def database(self) -> Database:
        """The database, for other stores on the same connections."""
        return self._database

    @property
    def core(self) -> PostgresVectorStore:
        """The core's store of the same rows."""
        return self._store

    @property
    def embeddings(self) -> Embeddings:
        """The embedding object."""
        return self._embedding

    def for_tenant(self, tenant: str) -> Self:
        """The same store for another tenant, on the same connections; nothing is read, nor the model asked again."""
        sibling = copy.copy(self)
        sibling._owned = None
        sibling._store = self._of(tenant, self.collection)
        return sibling

    def for_run(self, run_id: str) -> Self:
        """The same store at work for one run: what its searches give is recorded as the run's evidence.

        A search whose evidence can't be written raises. `database.tenant(…).runs().evidence(run_id)` reads it.
        """
        sibling = copy.copy(self)
        sibling._owned = None
        sibling._store = self._store.for_run(run_id)
        return sibling

    def close(self) -> None:
        """Close the connections, unless they are those of a database that was given; siblings share them."""
        if self._owned is not None:
            self._owned.close()

    async def aclose(self) -> None:
        """As `close`."""
        if self._owned is not None:
            await self._owned.aclose()

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

        Ids come from `ids`, else from the documents, else they are new. Unchanged texts are not embedded again.
        `batch_size` is there for `langchain_core.indexing`, and changes nothing: a call is one transaction.
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
        """Embed and add or replace texts, all or nothing; returns their ids, new ones where none are given."""
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
        """Add or replace texts with vectors that the same model made before, all or nothing; returns their ids."""
        peers.refuse(kwargs, self.tenant)
        return (yield from self._add(to_chunks(texts, embeddings, metadatas, ids)))

    add_embeddings, aadd_embeddings = faces(_add_embeddings)

    def _delete(
        self, /, ids: Sequence[str] | None = None, filter: FilterLike = None, **kwargs: Any
    ) -> Steps[bool | None]:
        """Delete by ids, by filter, or what matches both; False where neither is given. Unknown ids are no error."""
        peers.refuse(kwargs, self.tenant)
        if ids is None and filter is None:
            return False
        yield call(self._store, "delete", ids, filters=to_filter(filter))
        return True

    delete, adelete = faces(_delete)

    # Reading

    def _get_by_ids(self, ids: Sequence[str], /) -> Steps[list[Document]]:
        """The documents of these ids, in their order; unknown ones are left out."""
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
        """A store, made with the constructor's arguments (or a peer's names for them), and these texts added to it."""
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
        """As `from_texts`."""
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
        """As `from_texts`, with the texts' vectors."""
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
        """As `from_embeddings`."""
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
        """A store of a collection that is there, in its own space and distance; the arguments are the constructor's.

        An embedding object of an unknown class is taken to be the collection's model; its fingerprint is checked at
        the first use. Raises NotFound where there is no such collection.
        """
        return run(cls._existing(embedding, kwargs))

    @classmethod
    async def afrom_existing(cls, embedding: Embeddings, **kwargs: Any) -> Self:
        """As `from_existing`."""
        return await arun(cls._existing(embedding, kwargs))

    @classmethod
    def _existing(cls, embedding: Embeddings, keywords: dict[str, Any]) -> Steps[Self]:
        given = peers.arguments(keywords | {"embedding": embedding})
        if "tenant" not in given:
            raise ConfigurationError("say whose collection it is: tenant=…")
        database = as_database(given.get("connection"))
        tenant, name = database.tenant(given.pop("tenant")), given.setdefault("collection", "default")
        try:
            held = yield call(tenant, "collection", name)
            if held is None:
                raise NotFound(f"collection {name!r} does not exist; the constructor makes it with its first write")
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
        """The constructor, by the name and the arguments of `langchain_postgres.PGVectorStore`; `tenant` is needed."""
        named = {"engine": engine, "embedding_service": embedding_service, "table_name": table_name}
        return cls(**peers.arguments(named | kwargs))

    @classmethod
    async def create(cls, engine: Any, embedding_service: Embeddings, table_name: str, **kwargs: Any) -> Self:
        """As `create_sync`; neither waits for anything."""
        return cls.create_sync(engine, embedding_service, table_name, **kwargs)


def _named(embedding: Embeddings, held: EmbedSpace) -> EmbedSpace | EmbedModel:
    """The space that the embedding object names, to be compared later; the collection's, where it can't."""
    try:
        return space_of(embedding, distance=held.distance)
    except ConfigurationError:
        return held


def _unzipped(pairs: Iterable[tuple[str, Sequence[float]]]) -> tuple[list[str], list[Sequence[float]]]:
    given = list(pairs)
    return [text for text, _ in given], [vector for _, vector in given]
