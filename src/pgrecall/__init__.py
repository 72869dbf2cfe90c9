"""Tenant-aware Postgres + pgvector memory for AI applications.

import pgrecall

with pgrecall.connect() as db:
    store = db.tenant("acme").vectors("handbook", pgrecall.EmbedSpace("openai", "text-embedding-3-small", 1536))
    store.upsert([pgrecall.Chunk("1", "Holidays are 30 days.", embedding=vector)])
    hits = store.query(vector, top_k=5, filters=pgrecall.F.lang == "en")
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pgrecall.errors import (
        ConfigurationError,
        Conflict,
        DatabaseError,
        EmbeddedServerError,
        EmbedSpaceMismatch,
        FilterError,
        FingerprintMismatch,
        InvalidEmbedding,
        InvalidInput,
        MigrationRequired,
        NotFound,
        PgRecallError,
        RolledBack,
        RunConflict,
        SubjectErased,
        TenantErased,
        Unavailable,
        UnknownTenant,
    )
    from pgrecall.facts import Erased, ErasureReport, Event, Fact, FactKey, StoredFact, SweepReport
    from pgrecall.filters import And, Compare, F, Filter, Not, Or
    from pgrecall.hits import Explanation, Hit, Hits, ReciprocalRank, Step, Weighted
    from pgrecall.messages import ChatHit, ChatInfo, Message, ToolCall
    from pgrecall.operations.models.embedding import Embedder
    from pgrecall.protocols import MemoryStore, RunStore, VectorStore
    from pgrecall.runs import Evidence, EvidenceChunk, RunEvent, RunState
    from pgrecall.stores.chat import PostgresChat
    from pgrecall.stores.connect import Connection, as_database, connect
    from pgrecall.stores.database import Database
    from pgrecall.stores.docstore import PostgresDocstore
    from pgrecall.stores.memory import PostgresMemoryStore
    from pgrecall.stores.records import IndexRecords
    from pgrecall.stores.runs import PostgresRuns
    from pgrecall.stores.tenant import Tenant
    from pgrecall.stores.vectors import PostgresVectorStore
    from pgrecall.types import (
        Chunk,
        CollectionInfo,
        DeleteReport,
        DocstoreEntry,
        Document,
        EmbedModel,
        EmbedSpace,
        GraphBuild,
        IndexedKey,
        Loaded,
        Maintained,
        Optimized,
        Reembedded,
        Reference,
        SpaceInfo,
        TenantInfo,
        Tuned,
        TunedPoint,
        UpsertResult,
    )

__version__ = "0.1.0"

__all__ = [
    "And",
    "ChatHit",
    "ChatInfo",
    "Chunk",
    "CollectionInfo",
    "Compare",
    "ConfigurationError",
    "Conflict",
    "Connection",
    "Database",
    "DatabaseError",
    "DeleteReport",
    "DocstoreEntry",
    "Document",
    "EmbedModel",
    "EmbedSpace",
    "EmbedSpaceMismatch",
    "EmbeddedServerError",
    "Embedder",
    "Erased",
    "ErasureReport",
    "Event",
    "Evidence",
    "EvidenceChunk",
    "Explanation",
    "F",
    "Fact",
    "FactKey",
    "Filter",
    "FilterError",
    "FingerprintMismatch",
    "GraphBuild",
    "Hit",
    "Hits",
    "IndexRecords",
    "IndexedKey",
    "InvalidEmbedding",
    "InvalidInput",
    "Loaded",
    "Maintained",
    "MemoryStore",
    "Message",
    "MigrationRequired",
    "Not",
    "NotFound",
    "Optimized",
    "Or",
    "PgRecallError",
    "PostgresChat",
    "PostgresDocstore",
    "PostgresMemoryStore",
    "PostgresRuns",
    "PostgresVectorStore",
    "ReciprocalRank",
    "Reembedded",
    "Reference",
    "RolledBack",
    "RunConflict",
    "RunEvent",
    "RunState",
    "RunStore",
    "SpaceInfo",
    "Step",
    "StoredFact",
    "SubjectErased",
    "SweepReport",
    "Tenant",
    "TenantErased",
    "TenantInfo",
    "ToolCall",
    "Tuned",
    "TunedPoint",
    "Unavailable",
    "UnknownTenant",
    "UpsertResult",
    "VectorStore",
    "Weighted",
    "as_database",
    "connect",
]

if not TYPE_CHECKING:
    _HOMES = (
        "errors",
        "types",
        "hits",
        "facts",
        "messages",
        "runs",
        "filters",
        "protocols",
        "operations.models.embedding",
        "stores.records",
        "stores.vectors",
        "stores.chat",
        "stores.memory",
        "stores.runs",
        "stores.docstore",
        "stores.tenant",
        "stores.database",
        "stores.connect",
    )

    def __getattr__(name: str) -> object:
        """Import a public name on its first use: all take 0.4 s, which `pgrecall --help` does without."""
        from importlib import import_module

        if name in __all__:
            for module in _HOMES:
                home = import_module(f".{module}", __name__)
                if hasattr(home, name):
                    return globals().setdefault(name, getattr(home, name))
        raise AttributeError(f"module 'pgrecall' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
