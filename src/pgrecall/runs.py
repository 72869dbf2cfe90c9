"""Runs of agents: their state, their events, and the evidence that their answers rested on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pgrecall.types import EmbedSpace, Metadata

#: States of a run after which nothing more comes: `tail` ends there.
FINAL = ("completed", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class RunState:
    """A run's state, at one version.

    `state` is JSON. `state_version` is the version that was read and that a `put` goes on from: 0 (nothing was put yet)
    for a new run, None to put whatever is there. `status` is free; "completed", "failed" and "cancelled" are final.
    `subject` is whose run it is. The store sets `created_at` and `updated_at`, whatever is given.
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
    """Something that happened in a run. `seq` rises within the run, and may have gaps."""

    run_id: str
    seq: int
    kind: str
    data: Mapping[str, Any]
    created_at: datetime

    def __hash__(self) -> int:
        return hash((self.run_id, self.seq))


#: What became of something that evidence names: it is as it was, another, or no more.
Fate = Literal["same", "changed", "gone"]


@dataclass(frozen=True, slots=True)
class EvidenceChunk:
    """A chunk that a retrieval gave, in the version that it gave.

    `content_hash` is the SHA-256 of its text, in hex. `now` compares it with the chunk that the collection holds today.
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
    """One retrieval of a run: where it looked, in which space, what for, and what it got, best first.

    `query_hash` is a SHA-256 in hex: of a text's UTF-8 bytes, or of a vector's values as little-endian float32, as
    `query_kind` ("text" or "vector") says. `seq` is in one order with the run's events. `space_now`
    compares `space` with the one that the collection answers in today.
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
