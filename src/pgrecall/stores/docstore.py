"""The document store: what an ingestion remembers about its documents, in a collection of one tenant."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from pgrecall.arguments import OnNul, several
from pgrecall.operations.ingestion import docstore as docstore_entries
from pgrecall.stores.backend import Backend, CollectionBound
from pgrecall.stores.renamed import renamed
from pgrecall.stores.twins import Work, twins
from pgrecall.types import DocstoreEntry, DocumentReference


class PostgresDocstore(CollectionBound):
    """Entries by id in one collection, bound to its tenant for life; made by ``db.tenant(…).docstore(…)``.

    The collection need not exist. Dropping it deletes its entries. Every method has an asynchronous twin with an `a`
    before its name. Safe to share between threads, event loops and forked processes.
    """

    def __init__(self, backend: Backend, tenant: str, collection: str) -> None:
        super().__init__(backend, tenant, collection)

    def __repr__(self) -> str:
        return f"<PostgresDocstore tenant={self.tenant_id!r} collection={self.collection!r}>"

    def _put(self, entries: Iterable[DocstoreEntry], *, new_only: bool = False, on_nul: OnNul = "error") -> Work[int]:
        """Add or change entries by id, all or nothing; returns how many changed.

        Fields that an entry leaves out (None) stay as they were. With `new_only`, an id that has a payload already is
        an error. `on_nul="strip"` drops NUL characters from metadata and payload, which Postgres can't store. Raises:
        InvalidInput, TenantErased, UnknownTenant, Conflict, Unavailable.
        """
        several(entries, "DocstoreEntry")
        ordered = docstore_entries.distinct(entries)
        create = self._create_tenants
        return lambda gate: docstore_entries.put(
            gate, self._place(gate), ordered, create_tenants=create, new_only=new_only, on_nul=on_nul
        )

    put, aput = twins(_put)

    def _get(self, ids: Sequence[str]) -> Work[list[DocstoreEntry]]:
        """Entries by id, in the order given; unknown ids are left out."""
        return lambda gate: docstore_entries.get(gate, self._place(gate), ids)

    get, aget = twins(_get)

    def _hashes(self, ids: Collection[str] | None = None) -> Work[dict[str, str]]:
        """Hashes by id: of all entries, or of those in `ids` that have one."""
        return lambda gate: docstore_entries.hashes(gate, self._place(gate), ids)

    hashes, ahashes = twins(_hashes)

    def _references(self, doc_ids: Sequence[str] | None = None) -> Work[dict[str, DocumentReference]]:
        """What came from each document: the entries whose `ref_doc_id` names it, and its chunks."""
        return lambda gate: docstore_entries.references(gate, self._place(gate), doc_ids)

    references, areferences = twins(_references)

    def _delete(self, ids: Sequence[str]) -> Work[int]:
        """Delete entries, and a document's entry if its last part is deleted; returns how many of `ids` there were."""
        return lambda gate: docstore_entries.delete(gate, self._place(gate), ids)

    delete, adelete = twins(_delete)

    def _delete_document(self, doc_id: str) -> Work[int]:
        """Delete a document's entry and those that came from it; returns how many. Chunks stay."""
        return lambda gate: docstore_entries.delete_document(gate, self._place(gate), doc_id)

    delete_document, adelete_document = twins(_delete_document)

    def _list_entries(self) -> Work[list[DocstoreEntry]]:
        """All entries, in the order in which they were first written."""
        return lambda gate: docstore_entries.listing(gate, self._place(gate))

    list_entries, alist_entries = twins(_list_entries)
    list, alist = renamed("list", list_entries, alist_entries)
