"""A store of facts in memory."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from pgrecall import guards
from pgrecall.arguments import MAX_NAME_BYTES, actor_name, check_text, labels, moment, one_of, reason_text, whole_number
from pgrecall.errors import EmbedSpaceMismatch, FilterError, InvalidInput, NotFound
from pgrecall.facts import Fact, FactKey, MemoryEvent, Order, StoredFact
from pgrecall.filters import Filter
from pgrecall.hits import SearchMode
from pgrecall.testing import checks, words
from pgrecall.testing.checks import twin
from pgrecall.testing.filters import matches
from pgrecall.testing.versions import Row, TenantFacts, checked, fits, stood
from pgrecall.types import EmbedSpace, Vector

if TYPE_CHECKING:
    from pgrecall.protocols import MemoryStore


class InMemoryFactStore:
    """A `MemoryStore` that keeps one tenant's facts in memory, for tests of applications.

    It keeps the same contract as `PostgresMemoryStore`. Not safe to share between threads.

    Args:
        actor: Who acts, as the trail names it.
        space: What the facts' vectors are made by. By default there is none, and facts can't have vectors.
        embed: A synchronous function from a list of texts to their vectors, for facts and searches that come
            without a vector.
        keep_versions: How many versions of a fact are kept, including the live one. By default all.
        grace: How long a forgotten fact can be restored; by default 30 days.
        tenant: The tenant's id; by default "test".
        shared: A dictionary of facts by tenant. Stores with the same one share their rows; by default each has its own.
    """

    def __init__(
        self,
        *,
        actor: str,
        space: EmbedSpace | None = None,
        embed: Callable[[list[str]], Any] | None = None,
        keep_versions: int | None = None,
        grace: timedelta = timedelta(days=30),
        tenant: str = "test",
        shared: dict[str, TenantFacts] | None = None,
    ) -> None:
        self.tenant_id = check_text(tenant, "tenant", MAX_NAME_BYTES)
        self.actor = actor_name(actor)
        self._space, self._embed, self._grace = space, embed, grace
        self._keep = None if keep_versions is None else whole_number(keep_versions, "keep_versions", 1)
        self._held = ({} if shared is None else shared).setdefault(tenant, TenantFacts())

    # Putting

    def put_fact(self, fact: Fact, *, reason: str | None = None) -> StoredFact:
        """Store a fact; the live one with the same identity is superseded. Returns it as stored."""
        return self.put_facts([fact], reason=reason)[0]

    def put_facts(self, facts: Iterable[Fact], *, reason: str | None = None) -> list[StoredFact]:
        """Store facts, all or none; the last of two with the same identity wins."""
        why = reason_text(reason)
        distinct: dict[FactKey, tuple[Fact, dict[str, Any]]] = {}
        for fact in checks.all_of(facts, Fact):
            clean = checked(fact)
            key = FactKey(clean.subject, clean.kind, clean.key, clean.namespace)
            distinct.pop(key, None)
            distinct[key] = clean, self._vectors(clean)
        return [self._put(key, fact, vectors, why) for key, (fact, vectors) in distinct.items()]

    def _vectors(self, fact: Fact) -> dict[str, Any]:
        """The vectors of a fact's fields: as given, or embedded."""
        given = fact.embedding
        vectors = {} if given is None else dict(given) if isinstance(given, Mapping) else {"text": given}
        texts = fact.embed_texts
        if texts is None:
            texts = {"text": fact.text} if fact.text and given is None else {}
        if self._embed is not None:
            bare = {name: text for name, text in texts.items() if name not in vectors}
            vectors |= zip(bare, checks.embedded(self._embed, list(bare.values())), strict=True)
        return self._stored(vectors) if vectors else {}

    def _stored(self, vectors: dict[str, Vector]) -> dict[str, Any]:
        """Checked vectors, as they are stored. Raises InvalidInput, InvalidEmbedding, EmbedSpaceMismatch."""
        if self._space is None:
            raise InvalidInput("a vector was given, but the store has no space; open it with space=EmbedSpace(…)")
        if self._held.space not in (None, self._space):
            raise EmbedSpaceMismatch(
                f"the memory holds vectors of {self._held.space}, but the store was opened for {self._space}"
            )
        stored = guards.to_stored(list(vectors.values()), self._space, list(vectors))
        return dict(zip(vectors, stored.vectors.astype(float), strict=True))

    def _put(self, key: FactKey, fact: Fact, vectors: dict[str, Any], reason: str | None) -> StoredFact:
        held, now = self._held, self._held.now()
        before = next((r for r in held.versions(key) if r.fact.valid_to is None and r.deleted_at is None), None)
        superseded = before.fact if before is not None and before.live(now) else None
        expires = fact.expires_at
        if expires is None and isinstance(fact.ttl, float):
            expires = now + timedelta(seconds=fact.ttl)
        stored = StoredFact(
            fact.subject, fact.kind, fact.key, fact.value, fact.text, fact.source, fact.confidence, fact.ttl, expires,
            fact.refresh_on_read, fact.namespace,
            id=secrets.token_hex(8), actor=self.actor, created_at=superseded.created_at if superseded else now,
            valid_from=now, supersedes_id=superseded.id if superseded else None,
        )  # fmt: skip
        if before is not None:
            before.fact, before.vectors = replace(before.fact, valid_to=now), {}
        if vectors:
            held.space = self._space
        held.rows.append(Row(stored, vectors=vectors))
        if superseded:
            held.note("supersede", stored, self.actor, reason, supersedes=superseded.id)
        else:
            held.note("put", stored, self.actor, reason)
        if self._keep is not None:
            for old in [r for r in held.versions(key) if r.deleted_at is None][: -self._keep]:
                held.rows.remove(old)
                held.note("prune", old.fact, self.actor, reason)
        return stored

    # Reading

    def get(self, fact_id: str) -> StoredFact | None:
        """A version by id; None if it expired or was forgotten."""
        now = self._held.now()
        return next((r.fact for r in self._held.rows if r.fact.id == fact_id and r.readable(now)), None)

    def get_facts(self, keys: Sequence[FactKey]) -> list[StoredFact | None]:
        """The live facts of identities, in their order; None for each that has none."""
        now = self._held.now()
        chains = [self._held.versions(checks.identity(*key)) for key in keys]
        return [next((r.fact for r in chain if r.live(now)), None) for chain in chains]

    def search_facts(
        self,
        *,
        subject: str | None = None,
        kind: str | Sequence[str] | None = None,
        key: str | None = None,
        filters: Filter | None = None,
        vector: Vector | None = None,
        as_of: datetime | None = None,
        top_k: int = 10,
        text: str | None = None,
        mode: SearchMode | None = None,
        namespace: Sequence[str] = (),
        order_by: Order | None = None,
        offset: int = 0,
    ) -> list[StoredFact]:
        """Facts that match every condition, live now or at the time `as_of`; the most relevant, or newest, first.

        The arguments are those of `PostgresMemoryStore.search_facts`.
        """
        now, path = self._held.now(), labels(namespace, "namespace")
        kinds = [kind] if isinstance(kind, str) else kind
        if filters is not None and not isinstance(filters, Filter):
            raise FilterError(f"filters is {type(filters).__name__}; expected a filter such as F.lang == 'de'")
        if mode is not None:
            one_of(mode, get_args(SearchMode), "mode")
            if text is None and (mode != "dense" or vector is None):
                raise InvalidInput(f"mode is {mode!r}, but there is nothing to search by; pass text= or vector=")
        if as_of is not None:
            moment(as_of, "as_of")
            if vector is not None or mode in ("dense", "hybrid"):
                raise InvalidInput("as_of was given together with a vector; superseded versions have no vectors")
        found = [
            row
            for row in self._held.rows
            if row.readable(now)
            and (row.fact.valid_to is None if as_of is None else stood(row.fact, as_of))
            and subject in (None, row.fact.subject)
            and (kinds is None or row.fact.kind in kinds)
            and key in (None, row.fact.key)
            and row.fact.namespace[: len(path)] == path
            and (filters is None or matches(filters, row.fact.value))
        ]
        found.sort(key=lambda row: (row.fact.valid_from, row.fact.id), reverse=True)
        if mode == "sparse":
            vector = None
        elif text is not None and vector is None and as_of is None and self._embed is not None:
            [vector] = checks.embedded(self._embed, [text])
        if vector is None and mode in ("dense", "hybrid"):
            if (self._space or self._held.space) is not None:
                raise InvalidInput(f"mode {mode!r} needs a vector; pass vector=, or embed= for the store")
            found = [] if mode == "dense" else found  # a memory without vectors has only words
        scores = self._scores(found, None if mode == "dense" else text, vector)
        start, end = whole_number(offset, "offset", 0), offset + whole_number(top_k, "top_k", 0)
        if scores is None:
            facts = [row.fact for row in found]
        else:
            found = sorted((r for r in found if r.fact.id in scores), key=lambda r: scores[r.fact.id], reverse=True)
            facts = [replace(row.fact, score=scores[row.fact.id]) for row in found][start:end]
        if order_by in ("recency", "confidence"):
            facts.sort(key=lambda f: (f.valid_from, f.id), reverse=True)
        if order_by == "confidence":
            facts.sort(key=lambda f: -1.0 if f.confidence is None else f.confidence, reverse=True)
        return facts[start:end] if scores is None else facts

    def _scores(self, rows: list[Row], text: str | None, vector: Vector | None) -> dict[str, float] | None:
        """Scores by fact id, of what the search finds; None if it is a search by conditions alone."""
        legs: list[dict[str, float]] = []
        if text is not None:
            legs.append(words.best(text, ((r.fact.id, r.fact.text or "") for r in rows)))
        if vector is not None:
            asked = self._stored({"the query": vector})["the query"]
            near = {r.fact.id: max(self._similarity(v, asked) for v in r.vectors.values()) for r in rows if r.vectors}
            legs.append(words.first(near, len(near)))
        if len(legs) < 2:
            return legs[0] if legs else None
        scores: dict[str, float] = {}
        for leg in legs:
            for rank, fact_id in enumerate(leg, 1):
                scores[fact_id] = scores.get(fact_id, 0.0) + 1 / (60 + rank)
        return scores

    def _similarity(self, one: Any, other: Any) -> float:
        if self._space is not None and self._space.distance == "l2":
            return checks.similarity(float(np.linalg.norm(one - other)), self._space)
        return float(np.dot(one, other))

    def history(
        self,
        fact_id: str | None = None,
        *,
        key: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
        namespace: Sequence[str] | None = None,
    ) -> list[StoredFact]:
        """Every readable version of one fact, newest first.

        The arguments are those of `PostgresMemoryStore.history`.
        """
        now = self._held.now()
        meant = self._meant(fact_id, key, kind, subject, namespace, _reachable(fact_id, now))
        return [r.fact for r in reversed(self._held.versions(meant)) if r.readable(now)] if meant else []

    def list_namespaces(
        self, *, prefixes: Sequence[Sequence[str]] = (), suffixes: Sequence[Sequence[str]] = ()
    ) -> list[tuple[str, ...]]:
        """The namespaces of live facts that begin with each prefix and end with each suffix; ``*`` is any one label."""
        now = self._held.now()
        begin = [labels(path, "one of prefixes") for path in prefixes]
        end = [labels(path, "one of suffixes") for path in suffixes]
        found = sorted({r.fact.namespace for r in self._held.rows if r.live(now) and r.fact.namespace})
        return [
            path for path in found if all(fits(path, p) for p in begin) and all(fits(path[::-1], s[::-1]) for s in end)
        ]

    def list_events(
        self, *, subject: str | None = None, target_id: str | None = None, limit: int = 100
    ) -> list[MemoryEvent]:
        """The trail, oldest first."""
        kept = [e for e in self._held.events if subject in (None, e.subject) and target_id in (None, e.target_id)]
        return kept[: whole_number(limit, "limit", 0)]

    # Forgetting, restoring, erasing

    def _meant(
        self,
        fact_id: str | None,
        key: str | None,
        kind: str | None,
        subject: str | None,
        namespace: Sequence[str] | None,
        eligible: Callable[[Row], bool],
    ) -> FactKey | None:
        """The identity that a call names; None if there is no such fact. Raises InvalidInput if there are several."""
        if fact_id is None and key is None:
            raise InvalidInput("no fact was named; pass its id or key=")
        if fact_id is not None and not (key is kind is subject is namespace is None):
            raise InvalidInput(
                "a fact's id was given together with key=, subject=, kind= or namespace=; pass the id alone"
            )
        path = None if namespace is None else labels(namespace, "namespace")
        keys = {
            row.fact.fact_key: None
            for row in self._held.rows
            if eligible(row)
            and fact_id in (None, row.fact.id)
            and key in (None, row.fact.key)
            and kind in (None, row.fact.kind)
            and subject in (None, row.fact.subject)
            and path in (None, row.fact.namespace)
        }
        if len(keys) > 1:
            raise InvalidInput(
                f"the key {key!r} matches {len(keys)} facts: {'; '.join(map(checks.described, keys))}. "
                "Select one by subject=, kind= and namespace="
            )
        return next(iter(keys), None)

    def delete(
        self,
        fact_id: str | None = None,
        *,
        key: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
        namespace: Sequence[str] | None = None,
        reason: str | None = None,
    ) -> int:
        """Forget a fact with its history, by the id of any version or by its key; returns how many, 0 or 1.

        The arguments are those of `PostgresMemoryStore.delete`.
        """
        now = self._held.now()
        meant = self._meant(fact_id, key, kind, subject, namespace, _reachable(fact_id, now))
        live = next((r for r in self._held.versions(meant) if r.live(now)), None) if meant else None
        if live is None or meant is None:
            return 0
        for row in self._held.versions(meant):
            if row.deleted_at is None:
                row.deleted_at, row.purge_at = now, now + self._grace
        self._held.note("forget", live.fact, self.actor, reason)
        return 1

    def restore(
        self,
        fact_id: str | None = None,
        *,
        key: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
        namespace: Sequence[str] | None = None,
        reason: str | None = None,
    ) -> StoredFact:
        """Bring a forgotten fact back as it was; returns it. Raises NotFound, InvalidInput.

        The arguments are those of `PostgresMemoryStore.restore`.
        """
        now = self._held.now()

        def forgotten(row: Row) -> bool:
            return row.purge_at is not None and row.purge_at > now

        meant = self._meant(fact_id, key, kind, subject, namespace, forgotten)
        chain = self._held.versions(meant) if meant else []
        back = [row for row in chain if forgotten(row)]
        if not back:
            raise NotFound("there is no such forgotten fact, or its grace period is over")
        if any(row.live(now) for row in chain):
            raise InvalidInput(
                f"fact {checks.described(back[0].fact.fact_key)} cannot be restored, because a newer version has "
                "replaced it"
            )
        for row in chain:
            if row.deleted_at is None and row.fact.valid_to is None:  # expired, but not swept yet
                row.fact, row.vectors = replace(row.fact, valid_to=now), {}
        by_id = next((row for row in back if row.fact.id == fact_id), None)
        at = by_id.deleted_at if by_id else max(row.deleted_at for row in back if row.deleted_at)
        restored = [row for row in back if row.deleted_at == at]
        for row in restored:
            row.deleted_at = row.purge_at = None
        head = next(row for row in restored if row.fact.valid_to is None)
        self._held.note("restore", head.fact, self.actor, reason)
        if not head.live(now):
            raise InvalidInput("the fact expired after it was forgotten; put it again")
        return head.fact

    def erase(
        self,
        fact_id: str | None = None,
        *,
        key: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
        namespace: Sequence[str] | None = None,
        reason: str | None = None,
    ) -> int:
        """Delete every version of a fact for good; returns how many versions.

        The arguments are those of `PostgresMemoryStore.erase`.
        """
        meant = self._meant(fact_id, key, kind, subject, namespace, lambda row: True)
        chain = self._held.versions(meant) if meant else []
        if chain:
            self._held.now()
            self._held.rows = [row for row in self._held.rows if row.fact.fact_key != meant]
            self._held.note("erase", chain[-1].fact, self.actor, reason, versions=len(chain))
        return len(chain)

    aput_fact, aput_facts, aget, aget_facts = twin(put_fact), twin(put_facts), twin(get), twin(get_facts)
    asearch_facts, ahistory, alist_namespaces = twin(search_facts), twin(history), twin(list_namespaces)
    alist_events, adelete, arestore, aerase = twin(list_events), twin(delete), twin(restore), twin(erase)


def _reachable(fact_id: str | None, now: datetime) -> Callable[[Row], bool]:
    """What a call can name: by id any readable version, by key only the live one."""
    return lambda row: row.readable(now) if fact_id else row.live(now)


if TYPE_CHECKING:
    _: type[MemoryStore] = InMemoryFactStore
