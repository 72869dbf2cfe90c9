"""The protocols of the stores, for code that does not depend on where rows are stored.

Every method has an asynchronous twin, named with an `a` in front. The signatures do not say how a store behaves:
what wins, what raises, in which order rows are returned. `pgrecall.testing.contract` tests that; a store that
passes it can replace the one on Postgres.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar, runtime_checkable

from pgrecall.facts import Fact, FactKey, MemoryEvent, Order, StoredFact
from pgrecall.filters import Filter
from pgrecall.hits import Fusion, Hit, SearchMode
from pgrecall.types import Chunk, DeleteReport, Document, Metadata, UpsertResult, Vector

#: The state of a run; each run store has its own type.
RunStateT = TypeVar("RunStateT")


@runtime_checkable
class VectorStore(Protocol):
    """Chunks and their vectors in one collection of one tenant, in one space."""

    def upsert(self, chunks: Iterable[Chunk], *, documents: Iterable[Document] = ()) -> UpsertResult:
        """Add or replace chunks by id, all or nothing; the last of two with the same id wins.

        Unchanged chunks are not written.
        """

    def replace_document(self, document: Document, chunks: Iterable[Chunk]) -> UpsertResult:
        """Store a document with exactly these chunks; its other chunks are removed."""

    def query(
        self,
        vector: Vector | None = None,
        top_k: int = 10,
        filters: Filter | None = None,
        *,
        text: str | None = None,
        mode: SearchMode | None = None,
        fusion: Fusion | None = None,
        fetch_k: int | None = None,
        sparse_k: int | None = None,
        ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> list[Hit]:
        """Search the collection; returns the `top_k` best of the chunks that match all conditions, best first.

        Ties are ordered by id. The mode "dense" searches by the vector, "sparse" by the words of the text, "hybrid" by
        both. By default it follows from what is given.

        The arguments are those of `PostgresVectorStore.query`.
        """

    def get(self, ids: Sequence[str], *, with_embeddings: bool = False) -> list[Chunk]:
        """Chunks by id, in the order given; unknown ids are left out."""

    def list_documents(self, ids: Sequence[str] | None = None, *, limit: int = 100, offset: int = 0) -> list[Document]:
        """Documents with their provenance, ordered by id."""

    def count(
        self,
        filters: Filter | None = None,
        *,
        ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> int:
        """The number of chunks that match all conditions; of all chunks if there are none."""

    def set_metadata(
        self,
        metadata: Metadata,
        *,
        ids: Sequence[str] | None = None,
        filters: Filter | None = None,
        doc_ids: Sequence[str] | None = None,
        replace: bool = False,
    ) -> int:
        """Merge `metadata` into that of matching chunks, or replace theirs; returns how many changed.

        The arguments are those of `PostgresVectorStore.set_metadata`.
        """

    def delete(
        self,
        ids: Sequence[str] | None = None,
        *,
        filters: Filter | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> DeleteReport:
        """Delete the chunks that match all conditions, at least one of which must be given."""

    def delete_by_doc_id(self, doc_id: str) -> DeleteReport:
        """Delete a document with its chunks and their vectors; an unknown one counts as zero."""

    def clear(self) -> DeleteReport:
        """Delete every chunk and document; the collection stays."""

    def drop(self) -> DeleteReport:
        """Delete the collection with everything in it. Raises NotFound."""

    async def aupsert(self, chunks: Iterable[Chunk], *, documents: Iterable[Document] = ()) -> UpsertResult:
        """As `upsert`."""

    async def areplace_document(self, document: Document, chunks: Iterable[Chunk]) -> UpsertResult:
        """As `replace_document`."""

    async def aquery(
        self,
        vector: Vector | None = None,
        top_k: int = 10,
        filters: Filter | None = None,
        *,
        text: str | None = None,
        mode: SearchMode | None = None,
        fusion: Fusion | None = None,
        fetch_k: int | None = None,
        sparse_k: int | None = None,
        ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> list[Hit]:
        """As `query`."""

    async def aget(self, ids: Sequence[str], *, with_embeddings: bool = False) -> list[Chunk]:
        """As `get`."""

    async def alist_documents(
        self, ids: Sequence[str] | None = None, *, limit: int = 100, offset: int = 0
    ) -> list[Document]:
        """As `list_documents`."""

    async def acount(
        self,
        filters: Filter | None = None,
        *,
        ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> int:
        """As `count`."""

    async def aset_metadata(
        self,
        metadata: Metadata,
        *,
        ids: Sequence[str] | None = None,
        filters: Filter | None = None,
        doc_ids: Sequence[str] | None = None,
        replace: bool = False,
    ) -> int:
        """As `set_metadata`."""

    async def adelete(
        self,
        ids: Sequence[str] | None = None,
        *,
        filters: Filter | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> DeleteReport:
        """As `delete`."""

    async def adelete_by_doc_id(self, doc_id: str) -> DeleteReport:
        """As `delete_by_doc_id`."""

    async def aclear(self) -> DeleteReport:
        """As `clear`."""

    async def adrop(self) -> DeleteReport:
        """As `drop`."""

    async def alist_chunks(
        self,
        filters: Filter | None = None,
        *,
        limit: int = 100,
        offset: int = 0,
        ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
        with_embeddings: bool = False,
    ) -> list[Chunk]:
        """As `list_chunks`."""

    def list_chunks(
        self,
        filters: Filter | None = None,
        *,
        limit: int = 100,
        offset: int = 0,
        ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
        with_embeddings: bool = False,
    ) -> list[Chunk]:
        """Chunks that match all conditions, ordered by id (by code points).

        The arguments are those of `PostgresVectorStore.list_chunks`.
        """


@runtime_checkable
class MemoryStore(Protocol):
    """Facts of one tenant: one live version for each (namespace, subject, kind, key)."""

    def put_fact(self, fact: Fact, *, reason: str | None = None) -> StoredFact:
        """Store a fact, and supersede the live one with the same identity; returns the fact as stored."""

    def put_facts(self, facts: Iterable[Fact], *, reason: str | None = None) -> list[StoredFact]:
        """Store facts, all or none; the last of two with the same identity wins."""

    def get(self, fact_id: str) -> StoredFact | None:
        """A version of a fact by id; None if it expired or was forgotten."""

    def get_facts(self, keys: Sequence[FactKey]) -> list[StoredFact | None]:
        """The live facts of identities, in their order; None for each that has none."""

    def search_facts(
        self,
        *,
        subject: str | None = None,
        kind: str | Sequence[str] | None = None,
        key: str | None = None,
        filters: Filter | None = None,
        vector: Vector | None = None,
        as_of: datetime | None = None,
        top_k: int = 10,
        text: str | None = None,
        mode: SearchMode | None = None,
        namespace: Sequence[str] = (),
        order_by: Order | None = None,
        offset: int = 0,
    ) -> list[StoredFact]:
        """Search facts that match all conditions and are live, now or at the time `as_of`.

        The most relevant come first; without a vector and a text, the newest.

        The arguments are those of `PostgresMemoryStore.search_facts`.
        """

    def history(
        self,
        fact_id: str | None = None,
        *,
        key: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
        namespace: Sequence[str] | None = None,
    ) -> list[StoredFact]:
        """Every version of one fact, newest first.

        The arguments are those of `PostgresMemoryStore.history`.
        """

    def list_namespaces(
        self, *, prefixes: Sequence[Sequence[str]] = (), suffixes: Sequence[Sequence[str]] = ()
    ) -> list[tuple[str, ...]]:
        """The namespaces of live facts that begin with each prefix and end with each suffix; ``*`` is any one label."""

    def delete(
        self,
        fact_id: str | None = None,
        *,
        key: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
        namespace: Sequence[str] | None = None,
        reason: str | None = None,
    ) -> int:
        """Forget a fact with its history, by id or by key; returns how many facts, 0 or 1.

        The arguments are those of `PostgresMemoryStore.delete`.
        """

    def restore(
        self,
        fact_id: str | None = None,
        *,
        key: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
        namespace: Sequence[str] | None = None,
        reason: str | None = None,
    ) -> StoredFact:
        """Bring a forgotten fact back as it was; returns it. Raises NotFound, InvalidInput.

        The arguments are those of `PostgresMemoryStore.restore`.
        """

    def erase(
        self,
        fact_id: str | None = None,
        *,
        key: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
        namespace: Sequence[str] | None = None,
        reason: str | None = None,
    ) -> int:
        """Delete every version of a fact for good; returns how many versions.

        The arguments are those of `PostgresMemoryStore.erase`.
        """

    def list_events(
        self, *, subject: str | None = None, target_id: str | None = None, limit: int = 100
    ) -> list[MemoryEvent]:
        """The events of the trail, oldest first."""

    async def aput_fact(self, fact: Fact, *, reason: str | None = None) -> StoredFact:
        """As `put_fact`."""

    async def aput_facts(self, facts: Iterable[Fact], *, reason: str | None = None) -> list[StoredFact]:
        """As `put_facts`."""

    async def aget(self, fact_id: str) -> StoredFact | None:
        """As `get`."""

    async def aget_facts(self, keys: Sequence[FactKey]) -> list[StoredFact | None]:
        """As `get_facts`."""

    async def asearch_facts(
        self,
        *,
        subject: str | None = None,
        kind: str | Sequence[str] | None = None,
        key: str | None = None,
        filters: Filter | None = None,
        vector: Vector | None = None,
        as_of: datetime | None = None,
        top_k: int = 10,
        text: str | None = None,
        mode: SearchMode | None = None,
        namespace: Sequence[str] = (),
        order_by: Order | None = None,
        offset: int = 0,
    ) -> list[StoredFact]:
        """As `search_facts`."""

    async def ahistory(
        self,
        fact_id: str | None = None,
        *,
        key: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
        namespace: Sequence[str] | None = None,
    ) -> list[StoredFact]:
        """As `history`."""

    async def alist_namespaces(
        self, *, prefixes: Sequence[Sequence[str]] = (), suffixes: Sequence[Sequence[str]] = ()
    ) -> list[tuple[str, ...]]:
        """As `list_namespaces`."""

    async def adelete(
        self,
        fact_id: str | None = None,
        *,
        key: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
        namespace: Sequence[str] | None = None,
        reason: str | None = None,
    ) -> int:
        """As `delete`."""

    async def arestore(
        self,
        fact_id: str | None = None,
        *,
        key: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
        namespace: Sequence[str] | None = None,
        reason: str | None = None,
    ) -> StoredFact:
        """As `restore`."""

    async def aerase(
        self,
        fact_id: str | None = None,
        *,
        key: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
        namespace: Sequence[str] | None = None,
        reason: str | None = None,
    ) -> int:
        """As `erase`."""

    async def alist_events(
        self, *, subject: str | None = None, target_id: str | None = None, limit: int = 100
    ) -> list[MemoryEvent]:
        """As `list_events`."""


@runtime_checkable
class RunStore(Protocol[RunStateT]):
    """The states of one tenant's runs, by run id."""

    def put(self, run_state: RunStateT) -> RunStateT:
        """Store the state of a run, if it goes on from the stored version; returns it as stored. Raises RunConflict."""

    def get(self, run_id: str) -> RunStateT | None:
        """The state of a run; None if there is none."""

    async def aput(self, run_state: RunStateT) -> RunStateT:
        """As `put`."""

    async def aget(self, run_id: str) -> RunStateT | None:
        """As `get`."""
