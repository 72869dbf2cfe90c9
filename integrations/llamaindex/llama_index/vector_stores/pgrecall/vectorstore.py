"""`PGRecallVectorStore`: LlamaIndex's vector store on one collection of one tenant."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Literal, NoReturn, Self

import sqlalchemy as sa
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from llama_index.vector_stores.pgrecall import peers
from llama_index.vector_stores.pgrecall.filters import storable, to_filter
from llama_index.vector_stores.pgrecall.nodes import is_text, to_chunks, to_nodes
from llama_index.vector_stores.pgrecall.searching import Asked
from llama_index.vector_stores.pgrecall.spaces import Model, embedder_and_space

from pgrecall import (
    Chunk,
    Database,
    EmbedModel,
    EmbedSpace,
    Filter,
    Hit,
    InvalidInput,
    PostgresVectorStore,
    Tenant,
    as_database,
)
from pgrecall.steps import Steps, call, faces

#: A core's id ends there; longer ones are in no row.
_MAX_ID_BYTES = 1_000
#: How many of the nodes that a query is restricted to are looked at together, for one that is text.
_LOOKED_AT = 200


class PGRecallVectorStore(BasePydanticVectorStore):
    """Nodes in one collection of one tenant, bound to both for life.

    `connection` is a `pgrecall.Database`, a URL, a SQLAlchemy engine, a pair of engines, or None for `PGRECALL_URL` or
    the embedded Postgres. `embed_model` is the model that makes the nodes' embeddings, whose fingerprint is checked at
    the first use, or its `EmbedSpace`; left out, the collection's own space counts. `space` names what
    a model of an unknown class makes. `text_config`, such as "english", makes a new collection keep full text, for the
    modes SPARSE, TEXT_SEARCH and HYBRID. `on_nul="strip"` drops NUL characters, which Postgres can't store, instead of
    raising. One object serves threads, event loops and forks. Raises as `pgrecall.connect` does.
    """

    stores_text: bool = True
    is_embedding_query: bool = True
    flat_metadata: bool = False
    tenant: str = Field(frozen=True)
    collection: str = Field("default", frozen=True)
    text_config: str | None = Field(None, frozen=True)
    on_nul: Literal["error", "strip"] = "error"

    _database: Database = PrivateAttr()
    _opened: bool = PrivateAttr()
    _tenant: Tenant = PrivateAttr()
    _store: PostgresVectorStore = PrivateAttr()
    _model: Any = PrivateAttr()

    def __init__(
        self,
        embed_model: Model = None,
        *,
        connection: Any = None,
        tenant: str,
        collection: str = "default",
        space: EmbedSpace | EmbedModel | None = None,
        text_config: str | None = None,
        on_nul: Literal["error", "strip"] = "error",
    ) -> None:
        fields: dict[str, Any] = {
            "tenant": tenant,
            "collection": collection,
            "text_config": text_config,
            "on_nul": on_nul,
        }
        super().__init__(**fields)
        model = embedder_and_space(embed_model, space)
        self._opened = not isinstance(connection, Database)
        self._bind(as_database(connection), model)

    def _bind(self, database: Database, model: Any) -> None:
        embedder, space = self._model = model
        self._database = database
        self._tenant = database.tenant(self.tenant)
        self._store = self._tenant.vectors(self.collection, space, embed=embedder, text_config=self.text_config)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex writes for the class."""
        return "PGRecallVectorStore"

    @classmethod
    def from_params(
        cls,
        *,
        tenant: str,
        embed_model: Model = None,
        host: str | None = None,
        port: str | int | None = None,
        database: str | None = None,
        user: str | None = None,
        password: str | None = None,
        connection_string: str | sa.URL | None = None,
        table_name: str = "llamaindex",
        hybrid_search: bool = False,
        text_search_config: str = "english",
        embed_dim: int | None = None,
        space: EmbedSpace | EmbedModel | None = None,
        **others: Any,
    ) -> Self:
        """As `PGVectorStore.from_params`, for a tenant: `table_name` becomes the collection.

        Raises ConfigurationError for what has no meaning here, saying what to do instead.
        """
        peers.refuse(others)
        url = connection_string or peers.url(host, port, database, user, password)
        store = cls(
            embed_model,
            connection=url,
            tenant=tenant,
            collection=table_name,
            space=space,
            text_config=text_search_config if hybrid_search else None,
        )
        peers.check_dim(embed_dim, store._model[1])
        return store

    def for_tenant(self, tenant: str) -> Self:
        """The same store for another tenant, on the same connections, at no cost."""
        sibling = self._sibling(tenant)
        sibling._bind(self._database, self._model)
        return sibling

    def _sibling(self, tenant: str) -> Self:
        sibling = self.model_copy(update={"tenant": tenant})
        sibling.__pydantic_private__ = dict(self.__pydantic_private__ or {})
        sibling._opened = False
        return sibling

    def for_run(self, run_id: str) -> Self:
        """The same store at work for one run: what its queries give is recorded as the run's evidence.

        A query whose evidence can't be written raises. `database.tenant(…).runs().evidence(run_id)` reads it.
        """
        sibling = self._sibling(self.tenant)
        sibling._store = self._store.for_run(run_id)
        return sibling

    @property
    def client(self) -> PostgresVectorStore:
        """The core's store, which does the work: `set_metadata`, `documents`, `count` and more."""
        return self._store

    @property
    def database(self) -> Database:
        """The database that it is on."""
        return self._database

    def atomic(self) -> Any:
        """A `with` (or `async with`) block in which the tenant's stores on this database share one transaction."""
        return self._tenant.atomic()

    def close(self) -> None:
        """Close the connections, where the store opened them itself."""
        if self._opened:
            self._database.close()

    def __getstate__(self) -> NoReturn:
        raise TypeError("a PGRecallVectorStore holds connections and can't be pickled; make one in each process")

    def __repr__(self) -> str:
        return f"<PGRecallVectorStore tenant={self.tenant!r} collection={self.collection!r}>"

    __str__ = __repr__

    # --- writes

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Add or replace nodes by id, all or nothing; returns one id a node, in order.

        The documents that they name by their source are described with it. Raises: InvalidEmbedding (a ValueError)
        for a node without an embedding or with an unfit one, EmbedSpaceMismatch, InvalidInput, Unavailable.
        """
        _refuse_keywords("add", kwargs)
        chunks, documents = to_chunks(nodes)
        return self._store.upsert(chunks, documents=documents, on_nul=self.on_nul).ids

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """As `add`."""
        _refuse_keywords("async_add", kwargs)
        chunks, documents = to_chunks(nodes)
        return (await self._store.aupsert(chunks, documents=documents, on_nul=self.on_nul)).ids

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete a document's nodes, and the document; one that is not there is none."""
        _refuse_keywords("delete", delete_kwargs)
        for doc_id in _possible([ref_doc_id]) or ():
            self._store.delete_by_doc_id(doc_id)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """As `delete`."""
        _refuse_keywords("adelete", delete_kwargs)
        for doc_id in _possible([ref_doc_id]) or ():
            await self._store.adelete_by_doc_id(doc_id)

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by ids, by filters, or those that both name; saying neither is an error (see `clear`)."""
        _refuse_keywords("delete_nodes", delete_kwargs)
        if node_ids != []:
            self._store.delete(_possible(node_ids), filters=to_filter(filters))

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """As `delete_nodes`."""
        _refuse_keywords("adelete_nodes", delete_kwargs)
        if node_ids != []:
            await self._store.adelete(_possible(node_ids), filters=to_filter(filters))

    def clear(self) -> None:
        """Delete every node and document of the collection; its space stays, and so does what a docstore keeps."""
        self._store.clear()

    async def aclear(self) -> None:
        """As `clear`."""
        await self._store.aclear()

    # --- reads

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes by ids (in that order), by filters, or all, with embeddings; equal to what was added to 1e-3."""
        return self._got(node_ids, self._store.list(**_which(node_ids, filters)))

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """As `get_nodes`."""
        return self._got(node_ids, await self._store.alist(**_which(node_ids, filters)))

    @staticmethod
    def _got(node_ids: list[str] | None, chunks: list[Chunk]) -> list[BaseNode]:
        nodes = {node.node_id: node for node in to_nodes(chunks)}
        return list(nodes.values()) if node_ids is None else [nodes[i] for i in dict.fromkeys(node_ids) if i in nodes]

    def _query(self, /, query: VectorStoreQuery, **kwargs: Any) -> Steps[VectorStoreQueryResult]:
        """The best nodes for the query, with similarities, higher is better. Raises InvalidInput for an unknown mode.

        Of `kwargs` mmr_threshold, mmr_prefetch_factor and mmr_prefetch_k count; the peers' hints to their indexes
        (hnsw_ef_search, ivfflat_probes) have nothing to say here and are left out.
        `node_ids` restricts the search, unless all of them are index or image nodes: those LlamaIndex's
        `as_retriever` names by itself, and its text nodes would be lost.
        """
        if query.doc_ids == []:
            return _result([])
        asked = Asked.of(query, kwargs, to_filter(query.filters), _possible(query.doc_ids))
        named, others = query.node_ids or [], 0
        for at in range(0, len(named), _LOOKED_AT):
            known = yield call(self._store, "get", _possible(named[at : at + _LOOKED_AT]))
            if any(map(is_text, known)):
                others = 0
                break
            others += len(known)
        if named and not others:
            asked = asked.only(_possible(named))
        return _result((yield call(self._store, asked.verb, **asked.arguments)))

    query, aquery = faces(_query)


def _refuse_keywords(method: str, given: dict[str, Any]) -> None:
    """A keyword that is taken and not acted on would be a promise broken in silence."""
    for name in given:
        raise TypeError(f"{method}() got an unexpected keyword argument {name!r}")


def _possible(ids: Sequence[str] | None) -> list[str] | None:
    """Those of the ids that can be in the database at all: others name nothing. Raises InvalidInput for a text."""
    if ids is None:
        return None
    if isinstance(ids, str):  # each of its letters would be an id
        raise InvalidInput(f"ids is str {ids!r:.60}; expected a list of ids")
    return [i for i in ids if i and storable(i) and len(i.encode()) <= _MAX_ID_BYTES]


def _which(node_ids: list[str] | None, filters: MetadataFilters | None) -> dict[str, Any]:
    chosen: dict[str, Filter | list[str] | None] = {"filters": to_filter(filters), "ids": _possible(node_ids)}
    return {**chosen, "limit": sys.maxsize, "with_embeddings": True}


def _result(hits: Sequence[Hit]) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=to_nodes(hits), similarities=[hit.score for hit in hits], ids=[hit.chunk_id for hit in hits]
    )
