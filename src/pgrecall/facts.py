"""The values of memory: facts, the events of the audit trail, and the reports of erasures and sweeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeAlias

from pgrecall.types import Vector

#: A lifetime: seconds or a timedelta.
Ttl: TypeAlias = timedelta | float
Order: TypeAlias = Literal["relevance", "recency", "confidence"]
#: put: a fact without a live version was stored. supersede: a new version replaced the live one. prune: a version
#: beyond `keep_versions` was deleted. forget, restore, erase: by the verbs of these names. expire, purge: a sweep
#: deleted a fact after its ttl, or after the grace period for restoring it.
Action: TypeAlias = Literal[
    "put", "supersede", "prune", "forget", "restore", "erase", "expire", "purge",
    "erase_subject", "reopen_subject",
]  # fmt: skip

#: Bytes of a fact's value as JSON, and of its text: the most that fits one protocol message.
MAX_VALUE_BYTES = 64_000_000


class FactKey(NamedTuple):
    """A fact's identity, which has at most one live version. `subject` is None for facts that are about no subject."""

    subject: str | None
    kind: str
    key: str
    namespace: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing worth remembering about a subject.

    Attributes:
        subject: The user that the fact is about. It has no default. None, for a fact about nobody, requires a
            `namespace`.
        kind: The kind of fact, such as "preference".
        key: The fact's key, unique within namespace, subject and kind.
        value: Any JSON value.
        text: The text that is searched and embedded. Default: the value if it is a string, else nothing.
        source: Where the fact comes from.
        confidence: 0 to 1.
        ttl: The lifetime in seconds, or as a timedelta. Default: the memory's default for this kind, else no limit.
        expires_at: When the fact expires, with a time zone. It takes precedence over `ttl`.
        refresh_on_read: Whether each read that returns the fact restarts its ttl.
        namespace: A path of labels.
        embedding: The text's vector, or a mapping from field names to vectors.
        embed_texts: The texts to embed, by field name, if they differ from `text`. An empty mapping embeds nothing.
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
    """A stored version of a fact, without its vectors.

    `created_at` is when the first version was stored, `valid_from` when this one was, and `valid_to` when a newer
    version superseded it (None if it is live). `ttl` is in seconds. `score` is set by searches by relevance; higher is
    better. It is a similarity in a search by vector, ts_rank_cd in a search by text, and a sum of reciprocal ranks in a
    hybrid search.
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
        """The fact's identity."""
        return FactKey(self.subject, self.kind, self.key, self.namespace)


@dataclass(frozen=True, slots=True)
class MemoryEvent:
    """One entry of the audit trail: what was done to which fact, by whom and why. It never has the fact's value.

    An erasure keeps `target_id`, replaces `subject` by a salted hash, and sets `actor` and `reason` to None.
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
    """The argument of `Database.on_erase` hooks. `subject` is None if the whole tenant was erased."""

    tenant_id: str
    subject: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class ErasureReport(Mapping[str, int]):
    """Result of an erasure. It is also a mapping from table to rows deleted.

    `remaining` was counted after the deletes and is zero for every table. `without_subject` counts the tenant's rows
    that have no subject, which the erasure did not consider. `events` is the number of audit entries that were reduced
    to ids and salted hashes. `failed_hooks` maps the name of each failed hook to its error; repeat the erasure to call
    the hooks again.
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
    """Rows that a sweep purged, per table, or would purge if `dry_run`; `tenants` is how many tenants had any.

    It is also a mapping from table to rows.
    """

    purged: Mapping[str, int]
    tenants: int = 0
    dry_run: bool = False

    def __getitem__(self, key: str) -> int:
        return self.purged[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.purged)

    def __len__(self) -> int:
        return len(self.purged)
