"""Agent runs: their state, their events, and the evidence that their answers were based on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pgrecall.types import EmbedSpace, Metadata

#: Statuses after which a run has no more events: `tail` stops there.
FINAL = ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class RunState:
    """A run's state, at one version.

    `state` is JSON. `state_version` is the version that was read: a `put` succeeds only if it is still the stored one.
    Use 0 for a new run, and None to overwrite any version. `status` is any string; "completed", "failed" and
    "cancelled" are final. `subject` is the user whom the run is about. The store sets `created_at` and `updated_at`;
    values given for them are ignored.
    """

    run_id: str
    state: Metadata = field(default_factory=dict)
    status: str = "running"
    state_version: int | None = 0
    subject: str | None = None
    metadata: Metadata = field(default_factory=dict)
    expires_at: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def __hash__(self) -> int:
        return hash((self.run_id, self.state_version))


@dataclass(frozen=True, slots=True)
class RunEvent:
    """An event of a run. `seq` increases within the run and may have gaps."""

    run_id: str
    seq: int
    kind: str
    data: Mapping[str, Any]
    created_at: datetime

    def __hash__(self) -> int:
        return hash((self.run_id, self.seq))


#: How something that evidence refers to compares with its current state: unchanged, changed, or deleted.
Fate = Literal["same", "changed", "gone"]


@dataclass(frozen=True, slots=True)
class EvidenceChunk:
    """A chunk that a retrieval returned, as it was then.

    `content_hash` is the SHA-256 of its text, in hex. `now` says whether the chunk has changed or gone since.
    """

    rank: int
    chunk_id: str
    doc_id: str | None
    content_hash: str
    score: float
    distance: float | None
    now: Fate


@dataclass(frozen=True, slots=True)
class Evidence:
    """One retrieval of a run: the collection and its space, the query's hash, and the chunks returned, best first.

    `query_hash` is a SHA-256 in hex. If `query_kind` is "text", it is the hash of the text's UTF-8 bytes; if it is
    "vector", of the vector's values as little-endian float32. `seq` shares one sequence with the run's events.
    `space_now` says whether the collection's space has changed since.
    """

    run_id: str
    seq: int
    collection: str
    space: EmbedSpace | None
    space_now: Fate
    query_hash: str
    query_kind: Literal["text", "vector"]
    created_at: datetime
    chunks: tuple[EvidenceChunk, ...]
