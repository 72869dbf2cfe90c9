"""Whose a row is and when it is due, as data: erasure, export and sweeps read it, and none of them names a table.

A table joins by its entry here. Tables of `TENANT_TABLES` that are in neither of the first two belong to no subject.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Part(NamedTuple):
    """Rows that are parts of a parent's row: they belong to its subject, and go when it goes."""

    parent: str
    #: Own column -> the parent's column that it refers to, `tenant_id` aside.
    refers: Mapping[str, str]


#: Table -> the column that names a row's subject; empty text or NULL is a row without one.
SUBJECTS: dict[str, str] = {"memory_facts": "subject", "chat_sessions": "subject", "runs": "subject"}

#: Table -> whose part its rows are.
PARTS: dict[str, Part] = {
    "fact_vectors": Part("memory_facts", {"fact_id": "id"}),
    "chat_messages": Part("chat_sessions", {"session_id": "session_id"}),
    "run_events": Part("runs", {"run_id": "run_id"}),
    "run_retrievals": Part("runs", {"run_id": "run_id"}),
    "run_evidence": Part("run_retrievals", {"run_id": "run_id", "seq": "seq"}),
}

#: Table -> its columns that say when a row goes -> the action that the trail calls it then; None leaves no event.
#: The table has a partial index (tenant_id, column) WHERE column IS NOT NULL for each, and `id` where it has events.
DUE: dict[str, dict[str, str | None]] = {
    "memory_facts": {"expires_at": "expire", "purge_at": "purge"},
    "chat_messages": {"expires_at": None},
    "chat_sessions": {"expires_at": None},
    "runs": {"expires_at": None},
}

#: Table -> the column that names who wrote a row, who may be a subject too: an erasure puts a salted hash there.
ACTORS: dict[str, str] = {"memory_facts": "actor"}

#: The table of events. It only grows: an erasure keeps its rows, stripped to ids and salted hashes.
TRAIL = "memory_events"
