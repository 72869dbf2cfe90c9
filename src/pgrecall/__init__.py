"""Tenant-aware Postgres + pgvector memory for AI applications.

    import pgrecall

    with pgrecall.connect() as db:
        store = db.tenant("acme").vectors("handbook", pgrecall.EmbedSpace("openai", "text-embedding-3-small", 1536))
        store.upsert([pgrecall.Chunk("1", "Holidays are 30 days.", embedding=vector)])
        hits = store.query(vector, top_k=5, filters=pgrecall.F.lang == "en")
"""

from .errors import (
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
    TenantErased,
    Unavailable,
    UnknownTenant,
)
from .filters import And, Compare, F, Filter, Not, Or
from .stores.database import Database, Tenant, connect
from .stores.vectors import PostgresVectorStore
from .types import Chunk, CollectionInfo, DeleteReport, Document, EmbedSpace, Hit, TenantInfo, UpsertResult

__version__ = "0.1.0"

__all__ = [
    "And",
    "Chunk",
    "CollectionInfo",
    "Compare",
    "ConfigurationError",
    "Conflict",
    "Database",
    "DatabaseError",
    "DeleteReport",
    "Document",
    "EmbedSpace",
    "EmbedSpaceMismatch",
    "EmbeddedServerError",
    "F",
    "Filter",
    "FilterError",
    "FingerprintMismatch",
    "Hit",
    "InvalidEmbedding",
    "InvalidInput",
    "MigrationRequired",
    "Not",
    "NotFound",
    "Or",
    "PgRecallError",
    "PostgresVectorStore",
    "Tenant",
    "TenantErased",
    "TenantInfo",
    "Unavailable",
    "UnknownTenant",
    "UpsertResult",
    "connect",
]
