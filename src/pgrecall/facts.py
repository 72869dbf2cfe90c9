"""The values of memory: facts that go in and come out, the events of their trail, what erasures and sweeps report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeAlias

from pgrecall.types import Vector

#: Seconds, or a timedelta.
Ttl: TypeAlias = timedelta | float
Order: TypeAlias = Literal["relevance", "recency", "confidence"]
Mode: TypeAlias = Literal["text", "vector", "hybrid"]
#: put: a fact that had no live version. supersede: a new version of one that had. prune: a version beyond
#: `keep_versions` went. forget, restore, erase: by those verbs. expire, purge: by a sweep, past the ttl or the grace.
Action: TypeAlias = Literal[
    "put", "supersede", "prune", "forget", "restore", "erase", "expire", "purge",
    "erase_subject", "reopen_subject",
]  # fmt: skip

#: Bytes of (namespace, subject, kind, key) together, and 8 for each label: a btree entry ends at 2,704.
MAX_IDENTITY_BYTES = 2_000
#: Bytes of a fact's value as JSON, and of its text: the most that goes in one message.
MAX_VALUE_BYTES = 64_000_000


class FactKey(NamedTuple):
    """What a fact is known by: one live version at most. `subject` is None for facts of nobody, in a namespace."""

    subject: str | None
    kind: str
    key: str
    namespace: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing worth remembering about a subject.

    `subject` (a user's id) has no default; None, for what is about nobody, is allowed only in a `namespace`. `value`
    is any JSON. `text` is what is searched and embedded; left out, it is the value where that is a string.
    `confidence` is 0 to 1. It expires after `ttl` (seconds or a timedelta) or at `expires_at` (with a time zone);
    with `refresh_on_read` each read that returns it starts its ttl anew. `namespace` is a path of labels.

    `embedding` is the text's vector, or a mapping of field names to vectors. `embed_texts` are the texts to embed by
    field name, where these are several or not the text; an empty mapping embeds nothing.
    """

    subject: str | None
    kind: str
    key: str
    value: Any
    text: str | None = None
    source: str | None = None
    confidence: float | None = None
    ttl: Ttl | None = None
    expires_at: datetime | None = None
    refresh_on_read: bool = False
    namespace: tuple[str, ...] = ()
    embedding: Vector | Mapping[str, Vector] | None = field(default=None, compare=False, repr=False)
    embed_texts: Mapping[str, str] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFact(Fact):
    """A version of a fact as the tables hold it; its vectors stay there.

    `created_at` is the first version's time, `valid_from` this one's, `valid_to` that of the version which superseded
    it (None: none did). `ttl` is in seconds. `score` is set by a search by relevance, higher is better: a similarity
    by vector, a rank by text, a sum of reciprocal ranks by both.
    """

    id: str
    actor: str
    created_at: datetime
    valid_from: datetime
    valid_to: datetime | None = None
    supersedes_id: str | None = None
    score: float | None = None

    @property
    def fact_key(self) -> FactKey:
        """What the fact is known by."""
        return FactKey(self.subject, self.kind, self.key, self.namespace)


@dataclass(frozen=True, slots=True)
class MemoryEvent:
    """One entry of the trail: what was done to which fact, by whom and why; never the value.

    After an erasure `target_id` stays, `subject` is a salted hash, `actor` and `reason` are None.
    """

    id: str
    at: datetime
    action: str
    target_id: str | None
    subject: str | None
    actor: str | None
    reason: str | None
    detail: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Erasure:
    """What a hook of `Database.on_erase` is told: a subject of a tenant, or (subject None) a whole tenant."""

    tenant_id: str
    subject: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class ErasureReport(Mapping[str, int]):
    """What an erasure did, per table; reads as a mapping from table to rows deleted.

    `remaining` was counted after the deletes and is all zero. `without_subject` counts rows of the tenant that name no
    subject, and so were not considered. `events` is how many entries of the trail were stripped to ids and salted
    hashes. `failed_hooks` maps the name of each hook that failed to its error; erase again to call them again.
    """

    deleted: Mapping[str, int]
    remaining: Mapping[str, int]
    without_subject: Mapping[str, int] = field(default_factory=dict)
    events: int = 0
    failed_hooks: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, key: str) -> int:
        return self.deleted[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.deleted)

    def __len__(self) -> int:
        return len(self.deleted)


@dataclass(frozen=True, slots=True)
class SweepReport(Mapping[str, int]):
    """Rows that a sweep purged, per table (with `dry_run`: that it would); `tenants` is how many tenants had any."""

    purged: Mapping[str, int]
    tenants: int = 0
    dry_run: bool = False

    def __getitem__(self, key: str) -> int:
        return self.purged[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.purged)

    def __len__(self) -> int:
        return len(self.purged)


FactKeys: TypeAlias = Sequence[FactKey]
