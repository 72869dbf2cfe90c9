"""Tables, policies and grants as data: what the revisions must produce, and what the drift check compares.

Only Alembic creates them (`migrations/`); nothing here issues DDL. Each topic has a module for its tables.
"""

from __future__ import annotations

import sqlalchemy as sa

from pgrecall.schema.base import APP_ROLE, MAINTENANCE_ROLE, SCHEMA, TENANT_SETTING, metadata
from pgrecall.schema.chat import chat_messages, chat_sessions, run_events, run_evidence, run_retrievals, runs
from pgrecall.schema.chunks import (
    GRAPH_NAME,
    WAITING,
    chunk_keys,
    chunk_vectors,
    chunks,
    collections,
    documents,
    embed_spaces,
    tenants,
)
from pgrecall.schema.docstore import docstore
from pgrecall.schema.evaluation import eval_queries, eval_records, eval_results, eval_runs, eval_sets
from pgrecall.schema.memory import erased_subjects, fact_vectors, memory_events, memory_facts, memory_settings
from pgrecall.schema.records import index_records
from pgrecall.schema.retention import ACTORS, DUE, PARTS, SUBJECTS, TRAIL, Part

__all__ = [
    "ACTORS",
    "APP_ROLE",
    "DUE",
    "GRANTS",
    "GRAPH_NAME",
    "MAINTENANCE_ROLE",
    "PARTS",
    "REVISION",
    "SCHEMA",
    "STORAGE",
    "SUBJECTS",
    "TENANT_SETTING",
    "TENANT_TABLES",
    "TRAIL",
    "VIEWS",
    "WAITING",
    "Part",
    "chat_messages",
    "chat_sessions",
    "chunk_keys",
    "chunk_vectors",
    "chunks",
    "collections",
    "docstore",
    "documents",
    "embed_spaces",
    "erased_subjects",
    "eval_queries",
    "eval_records",
    "eval_results",
    "eval_runs",
    "eval_sets",
    "fact_vectors",
    "index_records",
    "memory_events",
    "memory_facts",
    "memory_settings",
    "metadata",
    "policies",
    "run_events",
    "run_evidence",
    "run_retrievals",
    "runs",
    "tenants",
]

#: The revision that this code requires, the head of `migrations/versions`.
REVISION = "0010"

#: Leaf first: the order of deletes, so that counts are exact and cascades find nothing.
TENANT_TABLES: tuple[sa.Table, ...] = (
    chunk_keys,
    chunk_vectors,
    chunks,
    documents,
    index_records,
    docstore,
    collections,
    chat_messages,
    chat_sessions,
    run_evidence,
    run_retrievals,
    run_events,
    runs,
    fact_vectors,
    memory_facts,
    memory_settings,
    memory_events,
    erased_subjects,
    eval_queries,
    eval_sets,
    eval_results,
    eval_runs,
    eval_records,
    tenants,
)

_OWN_TENANT = f"tenant_id = NULLIF(current_setting('{TENANT_SETTING}'::text, true), ''::text)"


def policies(table: str) -> dict[str, tuple[str, str]]:
    """A tenant table's policies: name -> role, and the condition for reads and writes, as Postgres prints it.

    The maintenance role works across tenants, except on the audit trail, where it is bound to one tenant at a time.
    """
    everywhere = _OWN_TENANT if table == TRAIL else "true"
    return {"tenant_isolation": (APP_ROLE, _OWN_TENANT), "maintenance": (MAINTENANCE_ROLE, everywhere)}


#: Columns stored in line if they fit, and uncompressed: an exact scan of 4,000 rows of 1,536 dims takes 3.2 ms, and 18
#: ms out of line.
STORAGE = {("chunk_vectors", "embedding"): "MAIN", ("fact_vectors", "embedding"): "MAIN"}

#: View -> its query, as Postgres prints it. Views use the rights of their reader (security_invoker).
VIEWS = {
    "chunk_embeddings": "SELECT v.tenant_id, v.collection, v.chunk_id, s.provider AS embed_provider, "
    "s.model AS embed_model, v.embed_dim, s.distance AS embed_distance, v.embed_norm, v.embedding, "
    "v.created_at FROM pgrecall.chunk_vectors v JOIN pgrecall.embed_spaces s ON s.id = v.space_id;"
}

_READ = frozenset({"SELECT"})
_APPEND = frozenset({"SELECT", "INSERT"})
_READ_WRITE = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})

#: Relation, or the schema itself -> role -> privileges. Nobody else but the owner has any.
GRANTS: dict[str, dict[str, frozenset[str]]] = {
    SCHEMA: {APP_ROLE: frozenset({"USAGE"}), MAINTENANCE_ROLE: frozenset({"USAGE"})},
    **{table.name: {APP_ROLE: _READ_WRITE, MAINTENANCE_ROLE: _READ_WRITE} for table in TENANT_TABLES},
    "embed_spaces": {APP_ROLE: _APPEND, MAINTENANCE_ROLE: _READ_WRITE},
    TRAIL: {APP_ROLE: _APPEND, MAINTENANCE_ROLE: _READ_WRITE},
    "alembic_version": {APP_ROLE: _READ, MAINTENANCE_ROLE: _READ},
    "chunk_embeddings": {APP_ROLE: _READ, MAINTENANCE_ROLE: _READ},
}
