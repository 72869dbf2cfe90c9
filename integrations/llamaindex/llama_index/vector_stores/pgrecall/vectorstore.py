"""`PGRecallVectorStore`: LlamaIndex's vector store on one collection of one tenant."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Literal, Self

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
from llama_index.vector_stores.pgrecall.handles import OnDatabase
from llama_index.vector_stores.pgrecall.nodes import is_text, to_chunks, to_nodes
from llama_index.vector_stores.pgrecall.searching import Asked
from llama_index.vector_stores.pgrecall.spaces import Model, embedder_and_space

from pgrecall import (
    Database,
    DatabaseLike,
    Embedder,
    EmbedModel,
    EmbedSpace,
    Filter,
    Hit,
    InvalidInput,
    PostgresVectorStore,
    Tenant,
    UpsertResult,
)
from pgrecall.steps import Steps, call, faces

#: The core's limit; longer ids are in no row.
_MAX_ID_BYTES = 1_000
#: How many nodes of a query's `node_ids` are read at a time, in search of a text node.
_LOOKED_AT = 200


class PGRecallVectorStore(OnDatabase, BasePydanticVectorStore):
    """LlamaIndex's vector store on one collection of one tenant; neither can be changed later.

    One object serves threads, event loops and forked processes.

    Args:
        embed_model: The model that embeds the nodes, whose fingerprint is checked at the first use, or its
            `EmbedSpace`. By default the space of the existing collection.
        connection: A `pgrecall.Database`, a URL, a SQLAlchemy engine, or a pair of a synchronous and an asynchronous
            one. By default `PGRECALL_URL`, otherwise the embedded Postgres.
        tenant: The tenant that owns the nodes.
        collection: The tenant's collection; by default "default".
        space: The space of a model whose class `pgrecall.providers` does not know.
        text_config: A text search configuration such as "english". A new collection then keeps full text, which the
            modes SPARSE, TEXT_SEARCH and HYBRID need. By default none.
        on_nul: "error", the default, refuses text with NUL characters, which Postgres can't store; "strip" drops them.

    Raises:
        ConfigurationError: The model's space is unknown, or contradicts `space`.
        EmbeddedServerError: The embedded Postgres did not start.
        MigrationRequired: The database's schema is not that of this version.
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
        connection: DatabaseLike = None,
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
        self._connect(connection)
        self._bind(model)

    def _bind(self, model: tuple[Embedder | None, EmbedSpace | EmbedModel | None]) -> None:
        embedder, space = self._model = model
        self._tenant = self._database.tenant(self.tenant)
        self._store = self._tenant.vectors(self.collection, space, embed=embedder, text_config=self.text_config)

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serializes the class."""
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
        """Create a store from the arguments of `PGVectorStore.from_params`, and a tenant.

        Args:
            tenant: The tenant that owns the nodes.
            embed_model: As for the constructor.
            host: The server's host.
            port: The server's port.
            database: The database's name.
            user: The user's name.
            password: The user's password.
            connection_string: A URL instead of its parts. If neither is given, the constructor's default.
            table_name: The collection's name; by default "llamaindex".
            hybrid_search: Whether a new collection keeps full text; by default not.
            text_search_config: The configuration of the full text; by default "english".
            embed_dim: The embeddings' length, which is compared with the model's if both are known.
            space: As for the constructor.
            **others: Other arguments of the peer, which are refused.

        Returns:
            A store that owns its connections.

        Raises:
            ConfigurationError: An argument has no meaning here; the message says what to do instead.
            TypeError: `PGVectorStore.from_params` has no such argument either.
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
        """Return the same store for another tenant, on the same connections. This costs nothing."""
        sibling = self._sibling(tenant)
        sibling._bind(self._model)
        return sibling

    def _sibling(self, tenant: str) -> Self:
        sibling = self.model_copy(update={"tenant": tenant})
        sibling.__pydantic_private__ = dict(self.__pydantic_private__ or {})
        sibling._opened = False
        return sibling

    def for_run(self, run_id: str) -> Self:
        """Return the same store for one run: what its queries find is recorded as the run's evidence.

        A query whose evidence can't be written raises. `database.tenant(…).runs().list_evidence(run_id)` reads it.
        """
        sibling = self._sibling(self.tenant)
        sibling._store = self._store.for_run(run_id)
        return sibling

    @property
    def client(self) -> PostgresVectorStore:
        """The core's store of the same rows: `set_metadata`, `list_documents`, `count` and more."""
        return self._store

    def atomic(self) -> Any:
        """Open a `with` or `async with` block in which the tenant's stores share one transaction."""
        return self._tenant.atomic()

    def __repr__(self) -> str:
        return f"<PGRecallVectorStore tenant={self.tenant!r} collection={self.collection!r}>"

    __str__ = __repr__

    # --- writes

    def _add(self, /, nodes: Sequence[BaseNode], **kwargs: Any) -> Steps[list[str]]:
        """Add or replace nodes by id, all or nothing; returns their ids in order.

        The source documents that the nodes name are recorded too. Raises: InvalidEmbedding (a ValueError) for a node
        without an embedding or with an invalid one, EmbedSpaceMismatch, InvalidInput, Unavailable.
        """
        _refuse_keywords("add", kwargs)
        chunks, documents = to_chunks(nodes)
        done: UpsertResult = yield call(self._store, "upsert", chunks, documents=documents, on_nul=self.on_nul)
        return done.ids

    add, async_add = faces(_add)

    def _delete(self, /, ref_doc_id: str, **delete_kwargs: Any) -> Steps[None]:
        """Delete a document and its nodes; one that does not exist is ignored."""
        _refuse_keywords("delete", delete_kwargs)
        for doc_id in _possible([ref_doc_id]) or ():
            yield call(self._store, "delete_by_doc_id", doc_id)

    delete, adelete = faces(_delete)

    def _delete_nodes(
        self, /, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> Steps[None]:
        """Delete nodes by ids, by filters, or those that match both. Raises InvalidInput if neither is given."""
        _refuse_keywords("delete_nodes", delete_kwargs)
        if node_ids != []:
            yield call(self._store, "delete", _possible(node_ids), filters=to_filter(filters))

    delete_nodes, adelete_nodes = faces(_delete_nodes)

    def _clear(self) -> Steps[None]:
        """Delete every node and document of the collection; its space and a document store's entries stay."""
        yield call(self._store, "clear")

    clear, aclear = faces(_clear)

    # --- reads

    def _get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> Steps[list[BaseNode]]:
        """Return nodes by ids (in that order), by filters, or all; embeddings are equal to those added to 1e-3."""
        chosen: dict[str, Filter | list[str] | None] = {"filters": to_filter(filters), "ids": _possible(node_ids)}
        chunks = yield call(self._store, "list_chunks", **chosen, limit=sys.maxsize, with_embeddings=True)
        nodes = {node.node_id: node for node in to_nodes(chunks)}
        return list(nodes.values()) if node_ids is None else [nodes[i] for i in dict.fromkeys(node_ids) if i in nodes]

    get_nodes, aget_nodes = faces(_get_nodes)

    def _query(self, /, query: VectorStoreQuery, **kwargs: Any) -> Steps[VectorStoreQueryResult]:
        """Return the best nodes with their similarities, higher is better in every mode.

        `node_ids` restricts the search, unless all of them are index or image nodes: LlamaIndex's `as_retriever` adds
        those by itself, and the text nodes would be hidden. Of the keywords `mmr_threshold`, `mmr_prefetch_factor` and
        `mmr_prefetch_k` count; hints to the peers' indexes (`hnsw_ef_search`, `ivfflat_probes`) are ignored.

        Raises: InvalidInput for an unknown mode, or if the mode needs a text or an embedding that the query lacks;
        ConfigurationError if the mode needs full text and the collection keeps none.
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
    """Refuse keywords that nothing would act on."""
    for name in given:
        raise TypeError(f"{method}() got an unexpected keyword argument {name!r}")


def _possible(ids: Sequence[str] | None) -> list[str] | None:
    """Drop ids that can't be in the database. Raises InvalidInput for a string."""
    if ids is None:
        return None
    if isinstance(ids, str):  # each of its letters would be an id
        raise InvalidInput(f"ids is the string {ids!r:.60}; expected a list of ids")
    return [i for i in ids if i and storable(i) and len(i.encode()) <= _MAX_ID_BYTES]


def _result(hits: Sequence[Hit]) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=to_nodes(hits), similarities=[hit.score for hit in hits], ids=[hit.chunk_id for hit in hits]
    )
