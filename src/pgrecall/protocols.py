"""What callers depend on: the stores' verbs, whoever keeps the rows. Postgres is one implementation of them.

Every verb has an asynchronous twin with an `a` before its name. The behaviour behind the signatures (what
wins, what is refused, in which order rows come) is the contract suite's, `tests/contract`: a store that
passes it can stand in for `PostgresVectorStore`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar, runtime_checkable

from pgrecall.facts import Fact, FactKey, MemoryEvent, Order, StoredFact
from pgrecall.filters import Filter
from pgrecall.hits import Fusion, Hit, SearchMode
from pgrecall.types import Chunk, DeleteReport, Document, Metadata, UpsertResult, Vector

#: What a run store keeps; its own value type comes with it.
RunStateT = TypeVar("RunStateT")


@runtime_checkable
class VectorStore(Protocol):
    """Chunks and their vectors in one collection of one tenant, in one space."""

    def upsert(self, chunks: Iterable[Chunk], *, documents: Iterable[Document] = ()) -> UpsertResult:
        """Add or replace chunks by id, all or nothing.

        Of two with one id the last wins; unchanged ones are left alone.
        """
        ...

    def replace_document(self, document: Document, chunks: Iterable[Chunk]) -> UpsertResult:
        """Put a document and exactly these chunks of it; others that it had are removed."""
        ...

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
        """The `top_k` best chunks that match every condition, best first, ties by id: nearest the vector ("dense"),
        with the text's words ("sparse"), or both ("hybrid"); the `mode` follows from what is given.

        The arguments are those of `PostgresVectorStore.query`.
        """
        ...

    def get(self, ids: Sequence[str], *, with_embeddings: bool = False) -> list[Chunk]:
        """Chunks by id, in the order given; unknown ids are left out."""
        ...

    def list_documents(self, ids: Sequence[str] | None = None, *, limit: int = 100, offset: int = 0) -> list[Document]:
        """Documents with their provenance, ordered by id."""
        ...

    def count(
        self,
        filters: Filter | None = None,
        *,
        ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> int:
        """How many chunks match; all without arguments."""
        ...

    def set_metadata(
        self,
        metadata: Metadata,
        *,
        ids: Sequence[str] | None = None,
        filters: Filter | None = None,
        doc_ids: Sequence[str] | None = None,
        replace: bool = False,
    ) -> int:
        """Merge `metadata` into that of matching chunks, or `replace` it; returns how many changed.

        The arguments are those of `PostgresVectorStore.set_metadata`.
        """
        ...

    def delete(
        self,
        ids: Sequence[str] | None = None,
        *,
        filters: Filter | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> DeleteReport:
        """Delete the chunks that match all conditions, at least one of which must be given."""
        ...

    def delete_by_doc_id(self, doc_id: str) -> DeleteReport:
        """Delete a document with its chunks and their vectors; an unknown one counts as zero."""
        ...

    def clear(self) -> DeleteReport:
        """Delete every chunk and document; the collection stays."""
        ...

    def drop(self) -> DeleteReport:
        """Delete the collection with everything in it; NotFound where there is none."""
        ...

    async def aupsert(self, chunks: Iterable[Chunk], *, documents: Iterable[Document] = ()) -> UpsertResult:
        """As `upsert`."""
        ...

    async def areplace_document(self, document: Document, chunks: Iterable[Chunk]) -> UpsertResult:
        """As `replace_document`."""
        ...

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
        ...

    async def aget(self, ids: Sequence[str], *, with_embeddings: bool = False) -> list[Chunk]:
        """As `get`."""
        ...

    async def alist_documents(
        self, ids: Sequence[str] | None = None, *, limit: int = 100, offset: int = 0
    ) -> list[Document]:
        """As `list_documents`."""
        ...

    async def acount(
        self,
        filters: Filter | None = None,
        *,
        ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> int:
        """As `count`."""
        ...

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
        ...

    async def adelete(
        self,
        ids: Sequence[str] | None = None,
        *,
        filters: Filter | None = None,
        doc_ids: Sequence[str] | None = None,
    ) -> DeleteReport:
        """As `delete`."""
        ...

    async def adelete_by_doc_id(self, doc_id: str) -> DeleteReport:
        """As `delete_by_doc_id`."""
        ...

    async def aclear(self) -> DeleteReport:
        """As `clear`."""
        ...

    async def adrop(self) -> DeleteReport:
        """As `drop`."""
        ...

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
        ...

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
        """Chunks that match, ordered by id (code points).

        The arguments are those of `PostgresVectorStore.list_chunks`.
        """
        ...


@runtime_checkable
class MemoryStore(Protocol):
    """Facts of one tenant: one live version for each (namespace, subject, kind, key)."""

    def put_fact(self, fact: Fact, *, reason: str | None = None) -> StoredFact:
        """Remember a fact, superseding the live one of the same identity; returns it as stored."""
        ...

    def put_facts(self, facts: Iterable[Fact], *, reason: str | None = None) -> list[StoredFact]:
        """Remember facts, all or none; of two with one identity the last wins."""
        ...

    def get(self, fact_id: str) -> StoredFact | None:
        """A version by id; None where it expired or was forgotten."""
        ...

    def get_facts(self, keys: Sequence[FactKey]) -> list[StoredFact | None]:
        """The live facts of identities, in their order; None where there is none."""
        ...

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
        """Facts that match every condition, live now or `as_of` then; the most relevant, or newest, first.

        The arguments are those of `PostgresMemoryStore.search_facts`.
        """
        ...

    def history(self, fact_id: str | None = None, *, key: str | None = None) -> list[StoredFact]:
        """Every version of one fact, newest first."""
        ...

    def list_namespaces(
        self, *, prefixes: Sequence[Sequence[str]] = (), suffixes: Sequence[Sequence[str]] = ()
    ) -> list[tuple[str, ...]]:
        """The namespaces of live facts that begin and end so; ``*`` is any one label."""
        ...

    def delete(self, fact_id: str | None = None, *, key: str | None = None, reason: str | None = None) -> int:
        """Forget a fact with its history, by id, or by a key that names one; returns how many."""
        ...

    def restore(self, fact_id: str | None = None, *, key: str | None = None, reason: str | None = None) -> StoredFact:
        """Bring a forgotten fact back as it was."""
        ...

    def erase(self, fact_id: str | None = None, *, key: str | None = None, reason: str | None = None) -> int:
        """Delete a fact for good, every version of it; returns how many versions."""
        ...

    def list_events(
        self, *, subject: str | None = None, target_id: str | None = None, limit: int = 100
    ) -> list[MemoryEvent]:
        """The trail, oldest first."""
        ...

    async def aput_fact(self, fact: Fact, *, reason: str | None = None) -> StoredFact:
        """As `put_fact`."""
        ...

    async def aput_facts(self, facts: Iterable[Fact], *, reason: str | None = None) -> list[StoredFact]:
        """As `put_facts`."""
        ...

    async def aget(self, fact_id: str) -> StoredFact | None:
        """As `get`."""
        ...

    async def aget_facts(self, keys: Sequence[FactKey]) -> list[StoredFact | None]:
        """As `get_facts`."""
        ...

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
        ...

    async def ahistory(self, fact_id: str | None = None, *, key: str | None = None) -> list[StoredFact]:
        """As `history`."""
        ...

    async def alist_namespaces(
        self, *, prefixes: Sequence[Sequence[str]] = (), suffixes: Sequence[Sequence[str]] = ()
    ) -> list[tuple[str, ...]]:
        """As `list_namespaces`."""
        ...

    async def adelete(self, fact_id: str | None = None, *, key: str | None = None, reason: str | None = None) -> int:
        """As `delete`."""
        ...

    async def arestore(
        self, fact_id: str | None = None, *, key: str | None = None, reason: str | None = None
    ) -> StoredFact:
        """As `restore`."""
        ...

    async def aerase(self, fact_id: str | None = None, *, key: str | None = None, reason: str | None = None) -> int:
        """As `erase`."""
        ...

    async def alist_events(
        self, *, subject: str | None = None, target_id: str | None = None, limit: int = 100
    ) -> list[MemoryEvent]:
        """As `list_events`."""
        ...


@runtime_checkable
class RunStore(Protocol[RunStateT]):
    """The states of one tenant's runs, by run id."""

    def put(self, run_state: RunStateT) -> RunStateT:
        """Keep a run's state; returns it as stored."""
        ...

    def get(self, run_id: str) -> RunStateT | None:
        """The state of a run, or None."""
        ...

    async def aput(self, run_state: RunStateT) -> RunStateT:
        """As `put`."""
        ...

    async def aget(self, run_id: str) -> RunStateT | None:
        """As `get`."""
        ...
