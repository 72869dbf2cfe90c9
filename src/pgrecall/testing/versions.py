"""Versions of facts as the in-memory store holds them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pgrecall.arguments import fraction, lifetime, moment, storable_text
from pgrecall.facts import Fact, FactKey, MemoryEvent, StoredFact
from pgrecall.testing import checks
from pgrecall.types import EmbedSpace

_INSTANT = timedelta(microseconds=1)


@dataclass
class Row:
    """A version of a fact, its state, and the vectors of its fields."""

    fact: StoredFact
    deleted_at: datetime | None = None
    purge_at: datetime | None = None
    vectors: dict[str, Any] = field(default_factory=dict)

    def readable(self, now: datetime) -> bool:
        """Whether it is neither forgotten nor expired."""
        return self.deleted_at is None and (self.fact.expires_at is None or self.fact.expires_at > now)

    def live(self, now: datetime) -> bool:
        """Whether it is readable and has no successor."""
        return self.fact.valid_to is None and self.readable(now)


@dataclass
class TenantFacts:
    """What is held for one tenant."""

    rows: list[Row] = field(default_factory=list)
    events: list[MemoryEvent] = field(default_factory=list)
    space: EmbedSpace | None = None
    last: datetime = datetime(1970, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """The time, later at each call."""
        self.last = max(datetime.now(UTC), self.last + _INSTANT)
        return self.last

    def versions(self, key: FactKey) -> list[Row]:
        """Every version of one fact, oldest first."""
        return [row for row in self.rows if row.fact.fact_key == key]

    def note(self, action: str, fact: StoredFact, actor: str, reason: str | None, **detail: Any) -> None:
        """Add an event to the trail."""
        number = f"{len(self.events):09}"
        self.events.append(MemoryEvent(number, self.last, action, fact.id, fact.subject, actor, reason, detail or None))


def stood(fact: StoredFact, then: datetime) -> bool:
    """Whether a version was live at a time."""
    return (
        fact.valid_from <= then
        and (fact.valid_to is None or fact.valid_to > then)
        and (fact.expires_at is None or fact.expires_at > then)
    )


def fits(path: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether a namespace begins with the pattern; ``*`` is any one label."""
    return len(path) >= len(pattern) and all(p in ("*", label) for p, label in zip(pattern, path, strict=False))


def checked(fact: Fact) -> Fact:
    """A checked copy, its text and ttl as they are stored. Raises InvalidInput."""
    key = checks.identity(fact.subject, fact.kind, fact.key, fact.namespace)
    name = f"fact {checks.described(key)}"
    text = fact.text if fact.text is not None else fact.value if isinstance(fact.value, str) else None
    ttl = lifetime(fact.ttl, f"the ttl of {name}", at_least=0)
    return replace(
        fact,
        value=checks.copied(fact.value, f"the value of {name}"),
        text=None if text is None else storable_text(text, f"the text of {name}"),
        source=None if fact.source is None else storable_text(fact.source, f"the source of {name}"),
        confidence=None if fact.confidence is None else fraction(fact.confidence, f"the confidence of {name}"),
        ttl=None if ttl is None else ttl.total_seconds(),
        expires_at=None if fact.expires_at is None else moment(fact.expires_at, "expires_at"),
        namespace=key.namespace,
    )
