"""`PGRecallDocumentStore`: LlamaIndex's document store, in one collection of one tenant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from llama_index.core.schema import BaseNode
from llama_index.core.storage.docstore.types import BaseDocumentStore, RefDocInfo
from llama_index.core.storage.kvstore.types import DEFAULT_BATCH_SIZE
from llama_index.vector_stores.pgrecall.handles import OnDatabase
from llama_index.vector_stores.pgrecall.nodes import FORM, from_parts, to_parts

from pgrecall import DatabaseLike, DocstoreEntry, DocumentReference, PostgresDocstore
from pgrecall.steps import Steps, call, faces


class PGRecallDocumentStore(OnDatabase, BaseDocumentStore):
    """Documents (nodes) by id, with their hashes, in one collection of one tenant; neither can be changed later.

    Use the collection of the vector store that it belongs to: `get_ref_doc_info` then also lists that store's nodes,
    and no strategy of a pipeline can touch the documents of another collection. Each call is all or nothing, whatever
    its `batch_size`.

    Args:
        connection: A `pgrecall.Database`, a URL, a SQLAlchemy engine, or a pair of a synchronous and an asynchronous
            one. By default `PGRECALL_URL`, otherwise the embedded Postgres.
        tenant: The tenant that owns the documents.
        collection: The tenant's collection; by default "default".
        on_nul: "error", the default, refuses text with NUL characters, which Postgres can't store; "strip" drops them.
    """

    def __init__(
        self,
        *,
        connection: DatabaseLike = None,
        tenant: str,
        collection: str = "default",
        on_nul: Literal["error", "strip"] = "error",
    ) -> None:
        self._connect(connection)
        self._tenant = self._database.tenant(tenant)
        self._store = self._tenant.docstore(collection)
        self._on_nul: Literal["error", "strip"] = on_nul

    @property
    def client(self) -> PostgresDocstore:
        """The core's store of the same entries."""
        return self._store

    def for_tenant(self, tenant: str) -> Self:
        """Return the same store for another tenant, on the same connections. This costs nothing."""
        return type(self)(
            connection=self._database, tenant=tenant, collection=self._store.collection, on_nul=self._on_nul
        )

    def atomic(self) -> Any:
        """Open a `with` or `async with` block in which the tenant's stores share one transaction."""
        return self._tenant.atomic()

    def __repr__(self) -> str:
        return f"<PGRecallDocumentStore tenant={self._store.tenant_id!r} collection={self._store.collection!r}>"

    # --- documents

    @property
    def docs(self) -> dict[str, BaseNode]:
        """All documents by id, in the order in which they were added."""
        return {entry.id: _node(entry) for entry in self._store.list_entries() if entry.payload is not None}

    def _add_documents(
        self,
        docs: Sequence[BaseNode],
        allow_update: bool = True,
        batch_size: int = DEFAULT_BATCH_SIZE,
        store_text: bool = True,
    ) -> Steps[None]:
        """Add or replace documents, all or nothing.

        Args:
            docs: The documents.
            allow_update: Whether documents that exist are replaced; by default they are.
            batch_size: Ignored.
            store_text: Whether the documents themselves are stored, the default, or only their hashes.

        Raises:
            InvalidInput: A document exists and `allow_update` is false, or it can't be stored. It is a ValueError.
        """
        entries = [_entry(doc, store_text=store_text) for doc in docs]
        yield call(self._store, "put", entries, new_only=not allow_update, on_nul=self._on_nul)

    add_documents, async_add_documents = faces(_add_documents)

    def _get_document(self, doc_id: str, raise_error: bool = True) -> Steps[BaseNode | None]:
        """Return a document. If it does not exist, raise ValueError, or return None."""
        return next(iter((yield from self._get_nodes([doc_id], raise_error))), None)

    get_document, aget_document = faces(_get_document)

    def _get_nodes(self, node_ids: list[str], raise_error: bool = True) -> Steps[list[BaseNode]]:
        """Return documents by id, in order. Missing ones raise ValueError, or are left out."""
        entries: list[DocstoreEntry] = yield call(self._store, "get", node_ids)
        found = {entry.id: _node(entry) for entry in entries if entry.payload is not None}
        if raise_error and (missing := [i for i in node_ids if i not in found]):
            raise ValueError(f"doc_id {missing[0]} not found.")
        return [found[i] for i in node_ids if i in found]

    get_nodes, aget_nodes = faces(_get_nodes)

    def _document_exists(self, doc_id: str) -> Steps[bool]:
        """Return whether the document exists; a hash without a document does not count."""
        return (yield from self._get_document(doc_id, raise_error=False)) is not None

    document_exists, adocument_exists = faces(_document_exists)

    def _delete_document(self, doc_id: str, raise_error: bool = True) -> Steps[None]:
        """Delete a document and its hash, and its source's entry if nothing else refers to that.

        Raises ValueError if it does not exist, unless `raise_error` is false.
        """
        _deleted((yield call(self._store, "delete", [doc_id])), "doc_id", doc_id, raise_error=raise_error)

    delete_document, adelete_document = faces(_delete_document)

    # --- hashes

    def _set_document_hash(self, doc_id: str, doc_hash: str) -> Steps[None]:
        """Store a document's hash, whether the document exists or not."""
        yield from self._set_document_hashes({doc_id: doc_hash})

    set_document_hash, aset_document_hash = faces(_set_document_hash)

    def _set_document_hashes(self, doc_hashes: Mapping[str, str]) -> Steps[None]:
        """Store documents' hashes by id."""
        entries = [DocstoreEntry(doc_id, hash=doc_hash) for doc_id, doc_hash in doc_hashes.items()]
        yield call(self._store, "put", entries)

    set_document_hashes, aset_document_hashes = faces(_set_document_hashes)

    def _get_document_hash(self, doc_id: str) -> Steps[str | None]:
        """Return a document's hash, or None."""
        hashes: dict[str, str] = yield call(self._store, "hashes", [doc_id])
        return hashes.get(doc_id)

    get_document_hash, aget_document_hash = faces(_get_document_hash)

    def _get_all_document_hashes(self) -> Steps[dict[str, str]]:
        """Return ids by hash; of several documents with one hash, the last."""
        hashes: dict[str, str] = yield call(self._store, "hashes")
        return {doc_hash: doc_id for doc_id, doc_hash in hashes.items()}

    get_all_document_hashes, aget_all_document_hashes = faces(_get_all_document_hashes)

    # --- source documents

    def _get_ref_doc_info(self, ref_doc_id: str) -> Steps[RefDocInfo | None]:
        """Return the nodes of a source document, here and in the vector store's collection; None if there are none."""
        return _infos((yield call(self._store, "references", [ref_doc_id]))).get(ref_doc_id)

    get_ref_doc_info, aget_ref_doc_info = faces(_get_ref_doc_info)

    def _get_all_ref_doc_info(self) -> Steps[dict[str, RefDocInfo]]:
        """Return the nodes of every source document by its id."""
        return _infos((yield call(self._store, "references")))

    get_all_ref_doc_info, aget_all_ref_doc_info = faces(_get_all_ref_doc_info)

    def _ref_doc_exists(self, ref_doc_id: str) -> Steps[bool]:
        """Return whether the source document has any nodes."""
        return (yield from self._get_ref_doc_info(ref_doc_id)) is not None

    ref_doc_exists, aref_doc_exists = faces(_ref_doc_exists)

    def _delete_ref_doc(self, ref_doc_id: str, raise_error: bool = True) -> Steps[None]:
        """Delete a source document's hash and nodes here; the vector store deletes its own.

        Raises ValueError if there are none, unless `raise_error` is false.
        """
        gone: int = yield call(self._store, "delete_document", ref_doc_id)
        _deleted(gone, "ref_doc_id", ref_doc_id, raise_error=raise_error)

    delete_ref_doc, adelete_ref_doc = faces(_delete_ref_doc)


def _entry(doc: BaseNode, *, store_text: bool) -> DocstoreEntry:
    text, metadata, rest = to_parts(doc)
    form = {**rest, "text": text} if doc.embedding is None else {**rest, "text": text, "embedding": doc.embedding}
    payload = {FORM: form} if store_text else None
    return DocstoreEntry(doc.node_id, doc.hash, doc.ref_doc_id, metadata, payload)


def _node(entry: DocstoreEntry) -> BaseNode:
    assert entry.payload is not None
    rest = dict(entry.payload[FORM])
    return from_parts(entry.id, rest.pop("text"), entry.metadata or {}, rest)


def _deleted(count: int, what: str, name: str, *, raise_error: bool) -> None:
    if not count and raise_error:
        raise ValueError(f"{what} {name} not found.")


def _infos(references: Mapping[str, DocumentReference]) -> dict[str, RefDocInfo]:
    return {doc_id: RefDocInfo(node_ids=list(of.ids), metadata=dict(of.metadata)) for doc_id, of in references.items()}
