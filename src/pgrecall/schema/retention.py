"""The subject and the expiry of each table's rows, as data. Erasure, export and sweeps use it, and name no table.

A table takes part by its entries here. Tables of `TENANT_TABLES` in neither SUBJECTS nor PARTS belong to no subject.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Part(NamedTuple):
    """Rows that are parts of a parent row: they belong to its subject, and are deleted with it."""

    parent: str
    #: Own column -> the parent's column that it refers to, besides `tenant_id`.
    refers: Mapping[str, str]


#: Table -> the column of a row's subject. '' or NULL is a row without a subject.
SUBJECTS: dict[str, str] = {"memory_facts": "subject", "chat_sessions": "subject", "runs": "subject"}

#: Table -> the parent that its rows are parts of.
PARTS: dict[str, Part] = {
    "fact_vectors": Part("memory_facts", {"fact_id": "id"}),
    "chat_messages": Part("chat_sessions", {"session_id": "session_id"}),
    "run_events": Part("runs", {"run_id": "run_id"}),
    "run_retrievals": Part("runs", {"run_id": "run_id"}),
    "run_evidence": Part("run_retrievals", {"run_id": "run_id", "seq": "seq"}),
}

#: Table -> its columns of when a row expires -> the action in the audit trail; None leaves no event.
#: The table has a partial index (tenant_id, column) WHERE column IS NOT NULL for each, and `id` if it has events.
DUE: dict[str, dict[str, str | None]] = {
    "memory_facts": {"expires_at": "expire", "purge_at": "purge"},
    "chat_messages": {"expires_at": None},
    "chat_sessions": {"expires_at": None},
    "runs": {"expires_at": None},
}

#: Table -> the column of a row's author, who may be a subject too. An erasure replaces it with a salted hash.
ACTORS: dict[str, str] = {"memory_facts": "actor"}

#: The audit trail. It only grows: an erasure keeps its rows, but only ids and salted hashes in them.
TRAIL = "memory_events"
