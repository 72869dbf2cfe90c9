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
        Refused,
        RolledBack,
        RunConflict,
        SubjectErased,
        TenantErased,
        Unavailable,
        UnknownTenant,
    )
    from pgrecall.facts import Erasure, ErasureReport, Fact, FactKey, MemoryEvent, StoredFact, SweepReport
    from pgrecall.filters import And, Compare, F, Filter, Not, Or
    from pgrecall.hits import Explanation, Fusion, Hit, Hits, ReciprocalRank, SearchMode, Weighted
    from pgrecall.messages import ChatHit, ChatInfo, Message, ToolCall
    from pgrecall.operations.models.embedding import Embedder
    from pgrecall.protocols import MemoryStore, RunStore, VectorStore
    from pgrecall.runs import Evidence, EvidenceChunk, RunEvent, RunState
    from pgrecall.stores.chat import PostgresChat
    from pgrecall.stores.connect import DatabaseLike, as_database, connect
    from pgrecall.stores.database import Database
    from pgrecall.stores.docstore import PostgresDocstore
    from pgrecall.stores.memory import PostgresMemoryStore
    from pgrecall.stores.records import IndexRecords
    from pgrecall.stores.runs import PostgresRuns
    from pgrecall.stores.tenant import Tenant
    from pgrecall.stores.vectors import PostgresVectorStore
    from pgrecall.types import (
        BulkLoadResult,
        Chunk,
        CollectionInfo,
        DeleteReport,
        Distance,
        DocstoreEntry,
        Document,
        DocumentReference,
        EmbedModel,
        EmbedSpace,
        GraphBuild,
        IndexedKey,
        MaintenanceResult,
        OptimizeResult,
        ReembedResult,
        SpaceInfo,
        TenantInfo,
        TunePoint,
        TuneResult,
        UpsertResult,
    )

__version__ = "0.1.0"

__all__ = [
    "And",
    "BulkLoadResult",
    "ChatHit",
    "ChatInfo",
    "Chunk",
    "CollectionInfo",
    "Compare",
    "ConfigurationError",
    "Conflict",
    "Database",
    "DatabaseError",
    "DatabaseLike",
    "DeleteReport",
    "Distance",
    "DocstoreEntry",
    "Document",
    "DocumentReference",
    "EmbedModel",
    "EmbedSpace",
    "EmbedSpaceMismatch",
    "EmbeddedServerError",
    "Embedder",
    "Erasure",
    "ErasureReport",
    "Evidence",
    "EvidenceChunk",
    "Explanation",
    "F",
    "Fact",
    "FactKey",
    "Filter",
    "FilterError",
    "FingerprintMismatch",
    "Fusion",
    "GraphBuild",
    "Hit",
    "Hits",
    "IndexRecords",
    "IndexedKey",
    "InvalidEmbedding",
    "InvalidInput",
    "MaintenanceResult",
    "MemoryEvent",
    "MemoryStore",
    "Message",
    "MigrationRequired",
    "Not",
    "NotFound",
    "OptimizeResult",
    "Or",
    "PgRecallError",
    "PostgresChat",
    "PostgresDocstore",
    "PostgresMemoryStore",
    "PostgresRuns",
    "PostgresVectorStore",
    "ReciprocalRank",
    "ReembedResult",
    "Refused",
    "RolledBack",
    "RunConflict",
    "RunEvent",
    "RunState",
    "RunStore",
    "SearchMode",
    "SpaceInfo",
    "StoredFact",
    "SubjectErased",
    "SweepReport",
    "Tenant",
    "TenantErased",
    "TenantInfo",
    "ToolCall",
    "TunePoint",
    "TuneResult",
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

    #: Deprecated names and their replacements; the old names will be removed in 0.2.
    _RENAMED = {
        "Connection": "DatabaseLike",
        "Erased": "Erasure",
        "Event": "MemoryEvent",
        "Loaded": "BulkLoadResult",
        "Maintained": "MaintenanceResult",
        "Optimized": "OptimizeResult",
        "Reembedded": "ReembedResult",
        "Reference": "DocumentReference",
        "Step": "hits.SearchStep",
        "Tuned": "TuneResult",
        "TunedPoint": "TunePoint",
    }

    def __getattr__(name: str) -> object:
        """Import public names on first use: importing them all takes 0.4 s, which `pgrecall --help` must not pay."""
        from importlib import import_module

        if name in _RENAMED:
            import warnings
            from functools import reduce

            message = f"pgrecall.{name} is now pgrecall.{_RENAMED[name]}; the old name will be removed in 0.2"
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            return reduce(getattr, _RENAMED[name].split("."), import_module(__name__))
        if name in __all__:
            for module in _HOMES:
                home = import_module(f".{module}", __name__)
                if hasattr(home, name):
                    return globals().setdefault(name, getattr(home, name))
        raise AttributeError(f"module 'pgrecall' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
