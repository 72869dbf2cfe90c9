"""`PGRecallDocumentStore`: LlamaIndex's document store, in one collection of one tenant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from llama_index.core.schema import BaseNode
from llama_index.core.storage.docstore.types import BaseDocumentStore, RefDocInfo
from llama_index.core.storage.kvstore.types import DEFAULT_BATCH_SIZE
from llama_index.vector_stores.pgrecall.nodes import FORM, from_parts, to_parts

from pgrecall import Database, DocstoreEntry, DocumentReference, PostgresDocstore, as_database


class PGRecallDocumentStore(BaseDocumentStore):
    """Documents (nodes) by id, with their hashes, in one collection of one tenant; bound to both for life.

    Give it the collection of the vector store that it goes with: `get_ref_doc_info` then tells that one's nodes too,
    and no strategy of a pipeline can touch another collection's documents. `connection` is a `pgrecall.Database`, a
    URL, a SQLAlchemy engine, a pair of engines, or None for `PGRECALL_URL` or the embedded Postgres. `on_nul="strip"`
    drops NUL characters, which Postgres can't store, instead of raising. Each call is all or nothing, whatever
    `batch_size` says.
    """

    def __init__(
        self,
        *,
        connection: Any = None,
        tenant: str,
        collection: str = "default",
        on_nul: Literal["error", "strip"] = "error",
    ) -> None:
        self._opened = not isinstance(connection, Database)
        self._database = as_database(connection)
        self._tenant = self._database.tenant(tenant)
        self._store = self._tenant.docstore(collection)
        self._on_nul: Literal["error", "strip"] = on_nul

    @property
    def client(self) -> PostgresDocstore:
        """The core's store, which does the work."""
        return self._store

    @property
    def database(self) -> Database:
        """The database that it is on."""
        return self._database

    def for_tenant(self, tenant: str) -> Self:
        """The same store for another tenant, on the same connections, at no cost."""
        return type(self)(
            connection=self._database, tenant=tenant, collection=self._store.collection, on_nul=self._on_nul
        )

    def atomic(self) -> Any:
        """A `with` (or `async with`) block in which the tenant's stores on this database share one transaction."""
        return self._tenant.atomic()

    def close(self) -> None:
        """Close the connections, where the store opened them itself."""
        if self._opened:
            self._database.close()

    def __repr__(self) -> str:
        return f"<PGRecallDocumentStore tenant={self._store.tenant_id!r} collection={self._store.collection!r}>"

    # --- documents

    @property
    def docs(self) -> dict[str, BaseNode]:
        """Every document by id, in the order in which they came."""
        return {entry.id: _node(entry) for entry in self._store.list() if entry.payload is not None}

    def add_documents(
        self,
        docs: Sequence[BaseNode],
        allow_update: bool = True,
        batch_size: int = DEFAULT_BATCH_SIZE,
        store_text: bool = True,
    ) -> None:
        """Add or replace documents; without `store_text` their hashes only. ValueError where updates are refused."""
        self._store.put(_entries(docs, store_text=store_text), new_only=not allow_update, on_nul=self._on_nul)

    async def async_add_documents(
        self,
        docs: Sequence[BaseNode],
        allow_update: bool = True,
        batch_size: int = DEFAULT_BATCH_SIZE,
        store_text: bool = True,
    ) -> None:
        """As `add_documents`."""
        await self._store.aput(_entries(docs, store_text=store_text), new_only=not allow_update, on_nul=self._on_nul)

    def get_document(self, doc_id: str, raise_error: bool = True) -> BaseNode | None:
        """A document; ValueError, or None, where there is none."""
        return _one(self._store.get([doc_id]), doc_id, raise_error=raise_error)

    async def aget_document(self, doc_id: str, raise_error: bool = True) -> BaseNode | None:
        """As `get_document`."""
        return _one(await self._store.aget([doc_id]), doc_id, raise_error=raise_error)

    def get_nodes(self, node_ids: list[str], raise_error: bool = True) -> list[BaseNode]:
        """Documents by id, in order, in one call; ValueError for one that is not there, or it is left out."""
        return _several(self._store.get(node_ids), node_ids, raise_error=raise_error)

    async def aget_nodes(self, node_ids: list[str], raise_error: bool = True) -> list[BaseNode]:
        """As `get_nodes`."""
        return _several(await self._store.aget(node_ids), node_ids, raise_error=raise_error)

    def document_exists(self, doc_id: str) -> bool:
        """Whether the document is there; a hash alone is none."""
        return self.get_document(doc_id, raise_error=False) is not None

    async def adocument_exists(self, doc_id: str) -> bool:
        """As `document_exists`."""
        return await self.aget_document(doc_id, raise_error=False) is not None

    def delete_document(self, doc_id: str, raise_error: bool = True) -> None:
        """Delete a document, its hash, and its source's own entry where that has no other; ValueError for none."""
        _deleted(self._store.delete([doc_id]), "doc_id", doc_id, raise_error=raise_error)

    async def adelete_document(self, doc_id: str, raise_error: bool = True) -> None:
        """As `delete_document`."""
        _deleted(await self._store.adelete([doc_id]), "doc_id", doc_id, raise_error=raise_error)

    # --- hashes

    def set_document_hash(self, doc_id: str, doc_hash: str) -> None:
        """Remember a document's hash, whether the document is there or not."""
        self.set_document_hashes({doc_id: doc_hash})

    async def aset_document_hash(self, doc_id: str, doc_hash: str) -> None:
        """As `set_document_hash`."""
        await self.aset_document_hashes({doc_id: doc_hash})

    def set_document_hashes(self, doc_hashes: Mapping[str, str]) -> None:
        """Remember documents' hashes, by id."""
        self._store.put([DocstoreEntry(doc_id, hash=doc_hash) for doc_id, doc_hash in doc_hashes.items()])

    async def aset_document_hashes(self, doc_hashes: Mapping[str, str]) -> None:
        """As `set_document_hashes`."""
        await self._store.aput([DocstoreEntry(doc_id, hash=doc_hash) for doc_id, doc_hash in doc_hashes.items()])

    def get_document_hash(self, doc_id: str) -> str | None:
        """A document's hash, or None."""
        return self._store.hashes([doc_id]).get(doc_id)

    async def aget_document_hash(self, doc_id: str) -> str | None:
        """As `get_document_hash`."""
        return (await self._store.ahashes([doc_id])).get(doc_id)

    def get_all_document_hashes(self) -> dict[str, str]:
        """Ids by hash; of documents with one hash the last."""
        return {doc_hash: doc_id for doc_id, doc_hash in self._store.hashes().items()}

    async def aget_all_document_hashes(self) -> dict[str, str]:
        """As `get_all_document_hashes`."""
        return {doc_hash: doc_id for doc_id, doc_hash in (await self._store.ahashes()).items()}

    # --- source documents

    def get_ref_doc_info(self, ref_doc_id: str) -> RefDocInfo | None:
        """The nodes of a source document, here and in the vector store's collection; None where there are none."""
        return _infos(self._store.references([ref_doc_id])).get(ref_doc_id)

    async def aget_ref_doc_info(self, ref_doc_id: str) -> RefDocInfo | None:
        """As `get_ref_doc_info`."""
        return _infos(await self._store.areferences([ref_doc_id])).get(ref_doc_id)

    def get_all_ref_doc_info(self) -> dict[str, RefDocInfo]:
        """The nodes of every source document, by its id."""
        return _infos(self._store.references())

    async def aget_all_ref_doc_info(self) -> dict[str, RefDocInfo]:
        """As `get_all_ref_doc_info`."""
        return _infos(await self._store.areferences())

    def ref_doc_exists(self, ref_doc_id: str) -> bool:
        """Whether any node of the source document is there."""
        return self.get_ref_doc_info(ref_doc_id) is not None

    async def aref_doc_exists(self, ref_doc_id: str) -> bool:
        """As `ref_doc_exists`."""
        return await self.aget_ref_doc_info(ref_doc_id) is not None

    def delete_ref_doc(self, ref_doc_id: str, raise_error: bool = True) -> None:
        """Delete a source document, its hash and its nodes here; the vector store's are that one's to delete."""
        _deleted(self._store.delete_document(ref_doc_id), "ref_doc_id", ref_doc_id, raise_error=raise_error)

    async def adelete_ref_doc(self, ref_doc_id: str, raise_error: bool = True) -> None:
        """As `delete_ref_doc`."""
        gone = await self._store.adelete_document(ref_doc_id)
        _deleted(gone, "ref_doc_id", ref_doc_id, raise_error=raise_error)


def _entries(docs: Sequence[BaseNode], *, store_text: bool) -> list[DocstoreEntry]:
    return [_entry(doc, store_text=store_text) for doc in docs]


def _entry(doc: BaseNode, *, store_text: bool) -> DocstoreEntry:
    text, metadata, rest = to_parts(doc)
    form = {**rest, "text": text} if doc.embedding is None else {**rest, "text": text, "embedding": doc.embedding}
    payload = {FORM: form} if store_text else None
    return DocstoreEntry(doc.node_id, doc.hash, doc.ref_doc_id, metadata, payload)


def _node(entry: DocstoreEntry) -> BaseNode:
    assert entry.payload is not None
    rest = dict(entry.payload[FORM])
    return from_parts(entry.id, rest.pop("text"), entry.metadata or {}, rest)


def _several(entries: Sequence[DocstoreEntry], ids: Sequence[str], *, raise_error: bool) -> list[BaseNode]:
    found = {entry.id: _node(entry) for entry in entries if entry.payload is not None}
    if raise_error and (missing := [i for i in ids if i not in found]):
        raise ValueError(f"doc_id {missing[0]} not found.")
    return [found[i] for i in ids if i in found]


def _one(entries: Sequence[DocstoreEntry], doc_id: str, *, raise_error: bool) -> BaseNode | None:
    return next(iter(_several(entries, [doc_id], raise_error=raise_error)), None)


def _deleted(count: int, what: str, name: str, *, raise_error: bool) -> None:
    if not count and raise_error:
        raise ValueError(f"{what} {name} not found.")


def _infos(references: Mapping[str, DocumentReference]) -> dict[str, RefDocInfo]:
    return {doc_id: RefDocInfo(node_ids=list(of.ids), metadata=dict(of.metadata)) for doc_id, of in references.items()}
