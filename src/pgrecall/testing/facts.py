"""A memory store in plain Python: the contract's second implementation, and the model of the state machine."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from pgrecall import EmbedSpace, EmbedSpaceMismatch, FactKey, InvalidInput, MemoryEvent, NotFound, StoredFact, guards
from pgrecall.arguments import actor_name, labels, moment, reason_text
from pgrecall.operations.memory.packing import PackedFact, named, pack, whole_key
from pgrecall.operations.search.shapes import similarity
from pgrecall.testing.filters import matches
from pgrecall.testing.vectors import twin

INSTANT = timedelta(microseconds=1)


@dataclass
class Row:
    """A version, whether it is forgotten, and the vectors of its fields."""

    fact: StoredFact
    key: FactKey
    deleted_at: datetime | None = None
    purge_at: datetime | None = None
    vectors: dict[str, Any] = field(default_factory=dict)

    def readable(self, now: datetime) -> bool:
        return self.deleted_at is None and (self.fact.expires_at is None or self.fact.expires_at > now)

    def live(self, now: datetime) -> bool:
        return self.fact.valid_to is None and self.readable(now)


@dataclass
class Shelf:
    """What one tenant holds."""

    rows: list[Row] = field(default_factory=list)
    events: list[MemoryEvent] = field(default_factory=list)
    space: EmbedSpace | None = None
    last: datetime = datetime(1970, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """The clock, later at each look."""
        self.last = max(datetime.now(UTC), self.last + INSTANT)
        return self.last

    def note(
        self, action: str, target: str | None, key: FactKey, actor: str, reason: str | None, **detail: Any
    ) -> None:
        event = (action, target, key.subject or None, actor, reason, detail or None)
        self.events.append(MemoryEvent(f"{len(self.events):09}", self.last, *event))


class MemoryFacts:
    """The facts of one tenant; `shelves` is what all stores of one "database" share."""

    def __init__(self, shelves, tenant, *, actor, space=None, keep_versions=None, grace=timedelta(days=30)):
        self._shelf = shelves.setdefault(tenant, Shelf())
        self._actor, self._space, self._keep, self._grace = actor_name(actor), space, keep_versions, grace

    # Putting

    def put_fact(self, fact, *, reason=None):
        return self.put_facts([fact], reason=reason)[0]

    def put_facts(self, facts, *, reason=None):
        packed, reason = pack(facts, {}), reason_text(reason)
        ready = [(p, self._stored_vectors(p)) for p in packed]
        return [self._put(p, vectors, reason) for p, vectors in ready]

    def _stored_vectors(self, packed: PackedFact) -> dict[str, Any]:
        if not packed.vectors:
            return {}
        if self._space is None:
            raise InvalidInput(f"fact {packed.name} has a vector, and nothing says what made it")
        if self._shelf.space not in (None, self._space):
            raise EmbedSpaceMismatch(f"memory holds vectors of {self._shelf.space}, not of {self._space}")
        self._shelf.space = self._space
        stored = guards.to_stored(list(packed.vectors.values()), self._space, list(packed.vectors))
        return dict(zip(packed.vectors, stored.vectors.astype(float), strict=True))

    def _put(self, packed: PackedFact, vectors, reason):
        shelf, now = self._shelf, self._shelf.now()
        before = next((r for r in self._chain(packed.key) if r.fact.valid_to is None and r.deleted_at is None), None)
        superseded = before if before is not None and before.live(now) else None
        expires = packed.expires_at or (None if packed.ttl is None else now + timedelta(seconds=packed.ttl))
        fact = StoredFact(
            *(packed.key.subject or None, packed.key.kind, packed.key.key, packed.given, packed.text, packed.source),
            *(packed.confidence, packed.ttl, expires, packed.refresh, packed.key.namespace),
            id=secrets.token_hex(8),
            actor=self._actor,
            created_at=superseded.fact.created_at if superseded else now,
            valid_from=now,
            supersedes_id=superseded.fact.id if superseded else None,
        )
        if before is not None:
            before.fact = replace(before.fact, valid_to=now)
            before.vectors = {}
        shelf.rows.append(Row(fact, packed.key, vectors=vectors))
        detail = {"supersedes": superseded.fact.id} if superseded else {}
        shelf.note("supersede" if superseded else "put", fact.id, packed.key, self._actor, reason, **detail)
        if self._keep is not None:
            for old in [r for r in self._chain(packed.key) if r.deleted_at is None][: -self._keep]:
                shelf.rows.remove(old)
                shelf.note("prune", old.fact.id, packed.key, self._actor, reason)
        return fact

    def _chain(self, key: FactKey) -> list[Row]:
        return [row for row in self._shelf.rows if row.key == key]

    # Reading

    def get(self, fact_id):
        now = self._shelf.now()
        return next((r.fact for r in self._shelf.rows if r.fact.id == fact_id and r.readable(now)), None)

    def get_facts(self, keys):
        now = self._shelf.now()
        return [next((r.fact for r in self._chain(whole_key(*k)) if r.live(now)), None) for k in keys]

    def search_facts(
        self,
        *,
        subject=None,
        kind=None,
        key=None,
        filters=None,
        query_vector=None,
        as_of=None,
        limit=10,
        text=None,
        namespace=(),
        order_by=None,
        offset=0,
    ):
        now, path = self._shelf.now(), labels(namespace, "namespace")
        kinds = [kind] if isinstance(kind, str) else kind
        if as_of is not None:
            moment(as_of, "as_of")
            if query_vector is not None:
                raise InvalidInput("as_of goes with words, not with vectors")
        if self._shelf.space not in (None, self._space) and query_vector is not None:
            raise EmbedSpaceMismatch(f"memory holds vectors of {self._shelf.space}, not of {self._space}")
        found = [
            row
            for row in self._shelf.rows
            if row.readable(now)
            and (row.fact.valid_to is None if as_of is None else _stood(row.fact, as_of))
            and subject in (None, row.fact.subject)
            and (kinds is None or row.fact.kind in kinds)
            and key in (None, row.fact.key)
            and row.fact.namespace[: len(path)] == path
            and (filters is None or matches(filters, row.fact.value))
        ]
        found.sort(key=lambda row: (row.fact.valid_from, row.fact.id), reverse=True)
        sides = []
        if text is not None:
            words = set(re.findall(r"\w+", text.lower()))
            ranks = {r.fact.id: sum(w in words for w in re.findall(r"\w+", (r.fact.text or "").lower())) for r in found}
            sides.append({i: n for i, n in ranks.items() if n})
        if query_vector is not None:
            asked = guards.to_stored([query_vector], self._space, ["the query"]).vectors[0].astype(float)
            sides.append({r.fact.id: max(_cosine(v, asked) for v in r.vectors.values()) for r in found if r.vectors})
        if sides:
            scores = sides[0] if len(sides) == 1 else _fused(sides)
            found = sorted((r for r in found if r.fact.id in scores), key=lambda r: scores[r.fact.id], reverse=True)
            facts = [replace(r.fact, score=scores[r.fact.id]) for r in found][offset : offset + limit]
        else:
            facts = [r.fact for r in found]
        if order_by in ("recency", "confidence"):
            facts.sort(key=lambda f: (f.valid_from, f.id), reverse=True)
        if order_by == "confidence":
            facts.sort(key=lambda f: -1.0 if f.confidence is None else f.confidence, reverse=True)
        return facts if sides else facts[offset : offset + limit]

    def history(self, fact_id=None, *, key=None, kind=None, subject=None, namespace=None):
        now = self._shelf.now()
        meant = self._named(
            fact_id, key, kind, subject, namespace, lambda r: r.readable(now) if fact_id else r.live(now)
        )
        return [r.fact for r in reversed(self._chain(meant)) if r.readable(now)] if meant else []

    def list_namespaces(self, *, prefixes=(), suffixes=()):
        now = self._shelf.now()
        found = sorted({r.fact.namespace for r in self._shelf.rows if r.live(now) and r.fact.namespace})

        def fits(path, pattern):
            return len(path) >= len(pattern) and all(p in ("*", label) for p, label in zip(pattern, path, strict=False))

        return [
            path
            for path in found
            if all(fits(path, p) for p in prefixes) and all(fits(path[::-1], s[::-1]) for s in suffixes)
        ]

    def events(self, *, subject=None, target_id=None, limit=100):
        kept = [e for e in self._shelf.events if subject in (None, e.subject) and target_id in (None, e.target_id)]
        return kept[:limit]

    # Forgetting, restoring, erasing

    def _named(self, fact_id, key, kind, subject, namespace, eligible) -> FactKey | None:
        if (fact_id is None) == (key is None):
            raise InvalidInput("say which fact: by id, or by key")
        keys = {
            row.key: None
            for row in self._shelf.rows
            if eligible(row)
            and fact_id in (None, row.fact.id)
            and key in (None, row.fact.key)
            and kind in (None, row.fact.kind)
            and subject in (None, row.fact.subject)
            and (namespace is None or tuple(namespace) == row.fact.namespace)
        }
        if len(keys) > 1:
            raise InvalidInput(f"the key {key!r} names {len(keys)} facts: {'; '.join(map(named, keys))}")
        return next(iter(keys), None)

    def delete(self, fact_id=None, *, key=None, kind=None, subject=None, namespace=None, reason=None):
        shelf, now = self._shelf, self._shelf.now()
        meant = self._named(
            fact_id, key, kind, subject, namespace, lambda r: r.readable(now) if fact_id else r.live(now)
        )
        live = next((r for r in self._chain(meant) if r.live(now)), None) if meant else None
        if live is None:
            return 0
        for row in self._chain(meant):
            if row.deleted_at is None:
                row.deleted_at, row.purge_at = now, now + self._grace
        shelf.note("forget", live.fact.id, meant, self._actor, reason)
        return 1

    def restore(self, fact_id=None, *, key=None, kind=None, subject=None, namespace=None, reason=None):
        shelf, now = self._shelf, self._shelf.now()

        def forgotten(row):
            return row.deleted_at is not None and row.purge_at > now

        meant = self._named(fact_id, key, kind, subject, namespace, forgotten)
        chain = self._chain(meant) if meant else []
        back = [r for r in chain if forgotten(r)]
        if not back:
            raise NotFound("no such fact was forgotten, or its grace time is over")
        if any(r.live(now) for r in chain):
            raise InvalidInput(f"fact {named(meant)} can't be restored: a newer version stands in its place")
        chosen = next((r for r in back if r.fact.id == fact_id), None) or max(back, key=lambda r: r.deleted_at)
        for row in [r for r in chain if r.deleted_at is None and r.fact.valid_to is None]:  # expired, not swept
            row.fact, row.vectors = replace(row.fact, valid_to=now), {}
        at = chosen.deleted_at
        for row in [r for r in back if r.deleted_at == at]:
            row.deleted_at = row.purge_at = None
            if row.fact.valid_to is None:
                head = row
        shelf.note("restore", head.fact.id, meant, self._actor, reason)
        if not head.live(now):
            raise InvalidInput("the fact has expired since it was forgotten; put it again")
        return head.fact

    def erase(self, fact_id=None, *, key=None, kind=None, subject=None, namespace=None, reason=None):
        meant = self._named(fact_id, key, kind, subject, namespace, lambda row: True)
        chain = self._chain(meant) if meant else []
        if not chain:
            return 0
        self._shelf.now()
        self._shelf.rows = [r for r in self._shelf.rows if r.key != meant]
        self._shelf.note("erase", chain[-1].fact.id, meant, self._actor, reason, versions=len(chain))
        return len(chain)

    # Beside the protocol, for the state machine

    def expire(self, fact_id):
        """Let a fact's time be over."""
        for row in self._shelf.rows:
            if row.fact.id == fact_id:
                row.fact = replace(row.fact, expires_at=datetime(2000, 1, 1, tzinfo=UTC))

    def sweep(self):
        """Purge what is due; returns how many."""
        now = self._shelf.now()
        count = 0
        for action, due in (
            ("expire", lambda r: r.fact.expires_at is not None and r.fact.expires_at <= now),
            ("purge", lambda r: r.purge_at is not None and r.purge_at <= now),
        ):
            for row in [r for r in self._shelf.rows if due(r)]:
                self._shelf.rows.remove(row)
                self._shelf.note(action, row.fact.id, row.key, "sweep", None)
                count += 1
        return count


def _stood(fact, then):
    return (
        fact.valid_from <= then
        and (fact.valid_to is None or fact.valid_to > then)
        and (fact.expires_at is None or fact.expires_at > then)
    )


def _cosine(a, b) -> float:
    return similarity(1.0 - float(np.dot(a, b)), "cosine")


def _fused(sides) -> dict[str, float]:
    scores: dict[str, float] = {}
    for side in sides:
        for rank, fact_id in enumerate(sorted(side, key=side.__getitem__, reverse=True), 1):
            scores[fact_id] = scores.get(fact_id, 0.0) + 1 / (60 + rank)
    return scores


for _verb in (
    "put_fact", "put_facts", "get", "get_facts", "search_facts", "history", "list_namespaces", "delete", "restore",
    "erase", "events",
):  # fmt: skip
    setattr(MemoryFacts, f"a{_verb}", twin(getattr(MemoryFacts, _verb)))
