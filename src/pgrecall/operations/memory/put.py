"""A tenant's memory: its settings, and writes of facts under the locks of their identities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np

from pgrecall import guards
from pgrecall.errors import InvalidInput
from pgrecall.facts import FactKey, StoredFact
from pgrecall.operations import registry, tombstones
from pgrecall.operations.memory.packing import PackedFact, identities, lock_numbers
from pgrecall.operations.memory.trail import Trail, batches, new_ids
from pgrecall.operations.models.calls import EMBED_BATCH, embed_ahead
from pgrecall.operations.models.embedding import ModelInUse
from pgrecall.operations.registry import space_params
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Gate, Rows, Scope, Transaction
from pgrecall.statements import facts as sql
from pgrecall.types import EmbedSpace, Vector

#: Facts per statement; fewer if they have more than BATCH_BYTES.
BATCH, BATCH_BYTES = 1_000, 64_000_000
#: The smallest difference between the times of two versions of a fact.
INSTANT = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Memory:
    """One tenant's memory, and the options of the store that accesses it."""

    scope: Scope
    actor: str
    model: ModelInUse
    halfvec_oid: int
    create_tenants: bool
    text_config: str | None
    keep_versions: int | None
    grace: timedelta

    @property
    def what(self) -> str:
        """The memory, as error messages name it."""
        return f"memory of tenant {self.scope.tenant!r}"

    def at(self, **values: Any) -> dict[str, Any]:
        """Parameters of a statement about this tenant."""
        return {"tenant": self.scope.tenant, **values}


class Vectors(NamedTuple):
    """The space of a tenant's fact vectors, and their model's fingerprint."""

    space: EmbedSpace
    fingerprint: list[float] | None


class Settings(NamedTuple):
    """The settings that a tenant's memory was created with."""

    text_config: str
    fingerprint: list[float] | None
    space_id: int | None
    space: EmbedSpace | None

    @classmethod
    def of(cls, rows: Rows) -> Settings | None:
        """From the rows of `SETTINGS`."""
        if not rows:
            return None
        config, fingerprint, space_id, *identity = rows[0]
        return cls(config, fingerprint, space_id, None if space_id is None else EmbedSpace(*identity))

    @property
    def held(self) -> Vectors | None:
        """The space and fingerprint, or None if the memory has no vectors."""
        return None if self.space is None else Vectors(self.space, self.fingerprint)


def settings(gate: Gate, scope: Scope) -> Settings | None:
    """The settings of the tenant's memory, or None if it has none yet."""
    return Settings.of(gate.read(scope, "memory settings", lambda tx: tx.last(sql.SETTINGS, {"tenant": scope.tenant})))


def memory_space(gate: Gate, memory: Memory) -> EmbedSpace | None:
    """The memory's space. Raises as `ModelInUse.known_space` does."""

    def held() -> Vectors | None:
        found = settings(gate, memory.scope)
        return None if found is None else found.held

    return memory.model.known_space(gate, memory.what, held)


# Vectors


class FactVectors(NamedTuple):
    """Validated vectors of a batch: the field names of each fact, and the vectors as stored."""

    fields: list[list[str]]
    stored: guards.Stored | None


def embed(gate: Gate, memory: Memory, facts: Sequence[PackedFact]) -> list[PackedFact]:
    """Embed the facts' texts if the store has an embedding function. Call it outside of transactions."""
    function = memory.model.embedder
    wanted = [(n, field, text) for n, fact in enumerate(facts) for field, text in fact.texts.items()]
    if function is None or not wanted:
        return list(facts)
    made: dict[int, dict[str, Vector]] = {}
    parts = ((part, [text for _, _, text in part]) for part in batches(wanted, EMBED_BATCH))
    for part, vectors in embed_ahead(gate, function, parts):
        for (n, field, _), vector in zip(part, vectors, strict=True):
            made.setdefault(n, {})[field] = vector
    return [replace(f, vectors={**f.vectors, **made[n]}) if n in made else f for n, f in enumerate(facts)]


def _checked(facts: Sequence[PackedFact], space: EmbedSpace | None) -> FactVectors:
    named_vectors = [(f"{field!r} of fact {f.name}", v) for f in facts for field, v in f.vectors.items()]
    if named_vectors and space is None:
        raise InvalidInput(f"{named_vectors[0][0]} has a vector, but its space is unknown; pass it: memory(…, space=…)")
    stored = None
    if named_vectors and space is not None:
        stored = guards.to_stored([v for _, v in named_vectors], space, [n for n, _ in named_vectors])
    return FactVectors([list(f.vectors) for f in facts], stored)


# Putting


def put(gate: Gate, memory: Memory, facts: Sequence[PackedFact], reason: str | None) -> list[StoredFact]:
    """Write facts with distinct identities in one transaction; returns them as stored, in the same order."""
    if not facts:
        return []
    embeds = memory.model.embedder is not None and any(f.texts for f in facts)
    space = memory_space(gate, memory) if embeds or any(f.vectors for f in facts) else None
    if embeds and space is None:
        raise InvalidInput("the space of the embedding function is unknown; pass it: memory(…, space=…)")
    facts = embed(gate, memory, facts)
    _checked(facts, space)  # raises before anything is locked
    if space is not None:
        registry.ensure_space(gate, memory.scope, space)

    def body() -> list[StoredFact]:
        with gate.transaction(memory.scope, "put facts") as tx:
            done: list[StoredFact] = []
            # Take all locks first, in lock order, before any batch is written.
            found = _lock_and_read(tx, memory, [f.key for f in facts], space)
            for part in _parts(facts):
                done += _put_part(tx, memory, part, found, reason, space, last=len(done) + len(part) == len(facts))
            return done

    return gate.retrying(body)


def _parts(facts: Sequence[PackedFact]) -> list[list[PackedFact]]:
    parts: list[list[PackedFact]] = [[]]
    size = 0
    for fact in facts:
        if len(parts[-1]) >= BATCH or (parts[-1] and size + fact.size > BATCH_BYTES):
            parts.append([])
            size = 0
        parts[-1].append(fact)
        size += fact.size
    return parts


class PutState(NamedTuple):
    """The state that a write found: the memory's settings, and for each identity its row of `HEADS`."""

    settings: Settings
    heads: dict[FactKey, tuple[Any, ...]]


def _lock_and_read(tx: Transaction, memory: Memory, keys: Sequence[FactKey], space: EmbedSpace | None) -> PutState:
    """The first round trip of a put: check the tenant, the subjects and the space, and lock and read the heads."""
    tenant = memory.scope.tenant
    assert tenant is not None
    subjects = sorted({k.subject for k in keys if k.subject})
    first: list[tuple[str, Mapping[str, Any]]] = [
        tombstones.tenant_lock(memory.scope),
        tombstones.subject_tombstones(memory.scope, subjects),
        (sql.SETTINGS, memory.at()),
    ]
    work = [
        *first,
        (sql.LOCK, {"locks": lock_numbers(tenant, keys)}),
        (sql.HEADS, memory.at(keep=_kept(memory), **identities(keys))),
    ]
    lives, erased, rows, _, heads = tx.many(work)
    if not lives or not rows:
        tombstones.ensure_tenant(tx, memory.scope, create=memory.create_tenants)
        config = registry.known_text_config(tx, memory.text_config or "simple")
        tx.count(sql.ADD_SETTINGS, memory.at(text_config=config))
        lives, erased, rows = tx.many(first)
    tombstones.refuse_erased_tenant(memory.scope, lives[0][0])
    tombstones.refuse_erased_subjects(erased)
    found = Settings.of(rows)
    assert found is not None
    if memory.text_config is not None and memory.text_config != found.text_config:
        raise InvalidInput(
            f"the memory of tenant {tenant!r} was created with text_config={found.text_config!r}, but "
            f"text_config={memory.text_config!r} was requested; omit text_config"
        )
    if space is not None:
        found = _in_space(tx, memory, found, space)
    return PutState(found, dict(zip(keys, heads, strict=True)))


def _kept(memory: Memory) -> int | None:
    """How many older versions are kept when a new one is stored; None for all."""
    return None if memory.keep_versions is None else memory.keep_versions - 1


def _in_space(tx: Transaction, memory: Memory, found: Settings, space: EmbedSpace) -> Settings:
    """The settings, with `space` stored if they had none. Raises: EmbedSpaceMismatch, FingerprintMismatch."""
    fingerprint = memory.model.fingerprint
    stored = None if fingerprint is None else wire.float4_array(np.asarray(fingerprint))
    if found.space is None:
        values = memory.at(fingerprint=stored, **space_params(space))
        tx.count(sql.SET_SPACE, values)
        if (again := Settings.of(tx.rows(sql.SETTINGS, memory.at()))) is None or again.space is None:
            registry.add_space(tx, space)  # the space was dropped after it was registered
            tx.count(sql.SET_SPACE, values)
            again = Settings.of(tx.rows(sql.SETTINGS, memory.at()))
        assert again is not None and again.space is not None
        found = again
    assert found.space is not None
    if found.space != space:
        registry.refuse_space(memory.what, found.space, space)
    if fingerprint is not None and found.fingerprint is not None:
        registry.check_fingerprint(memory.what, space, found.fingerprint, fingerprint)
    elif fingerprint is not None:
        tx.count(sql.SET_FINGERPRINT, memory.at(fingerprint=stored))
    return found


def _put_part(
    tx: Transaction,
    memory: Memory,
    facts: Sequence[PackedFact],
    state: PutState,
    reason: str | None,
    space: EmbedSpace | None,
    *,
    last: bool,
) -> list[StoredFact]:
    """Close superseded versions and insert the new ones with their vectors and events, in one round trip."""
    heads = [state.heads[f.key] for f in facts]
    # One time for all facts, later than each previous version.
    at = max(max(h[0], h[4] + INSTANT) if h[4] else h[0] for h in heads)
    trail = Trail(memory.actor, reason)
    stored: list[StoredFact] = []
    closed: list[str] = []
    pruned: list[str] = []
    for fact_id, fact, (_, live_id, created_at, expired, _, stale) in zip(
        new_ids(at, len(facts)), facts, heads, strict=True
    ):
        # An expired version is invisible to readers, even though the sweep has not deleted it yet.
        superseded = None if expired else live_id
        stored.append(_stored(fact, fact_id, memory.actor, at, superseded, created_at if superseded else at))
        if live_id is not None:
            closed.append(live_id)
        trail.add(
            "supersede" if superseded else "put",
            fact_id,
            fact.key.subject,
            {"supersedes": superseded} if superseded else None,
        )
        for old in stale:
            trail.add("prune", old, fact.key.subject)
        pruned += stale
    work: list[tuple[str, Mapping[str, Any]]] = []
    if closed:
        ids = wire.text_array(closed)
        work += [(sql.CLOSE, memory.at(ids=ids, at=at)), (sql.DELETE_VECTORS, memory.at(ids=ids))]
    if pruned:
        ids = wire.text_array(pruned)
        work += [(sql.DELETE_VECTORS, memory.at(ids=ids)), (sql.DELETE, memory.at(ids=ids))]
    work.append((sql.INSERT, _columns(memory, facts, stored, at, state.settings.text_config)))
    vectors = _checked(facts, space)
    if vectors.stored is not None:
        work.append((sql.INSERT_VECTORS, _vector_columns(memory, vectors, stored, state.settings.space_id)))
    work.append(trail.write(memory.scope.tenant, at))
    tx.many(work, commit=last)
    return stored


def _stored(
    fact: PackedFact, fact_id: str, actor: str, at: datetime, superseded: str | None, created_at: datetime
) -> StoredFact:
    expires_at = fact.expires_at
    if fact.ttl is not None and expires_at is None:
        expires_at = _later(at, fact.ttl)
    return StoredFact(
        subject=fact.key.subject or None,
        kind=fact.key.kind,
        key=fact.key.key,
        value=fact.given,
        text=fact.text,
        source=fact.source,
        confidence=fact.confidence,
        ttl=fact.ttl,
        expires_at=expires_at,
        refresh_on_read=fact.refresh,
        namespace=fact.key.namespace,
        id=fact_id,
        actor=actor,
        created_at=created_at,
        valid_from=at,
        supersedes_id=superseded,
    )


def _later(at: datetime, seconds: float) -> datetime:
    try:
        return at + timedelta(seconds=seconds)
    except OverflowError as exc:
        raise InvalidInput(
            f"a ttl of {seconds:,.0f} seconds ends after the year 9999; shorten it, or omit it for no limit"
        ) from exc


def _columns(
    memory: Memory, facts: Sequence[PackedFact], stored: Sequence[StoredFact], at: datetime, text_config: str
) -> dict[str, Any]:
    def texts(values: Sequence[Any]) -> wire.Binary:
        return wire.text_array(
            [None if v is None else v.isoformat() if isinstance(v, datetime) else str(v) for v in values]
        )

    return memory.at(
        actor=memory.actor,
        at=at,
        text_config=text_config,
        **identities([f.key for f in facts]),
        ids=wire.text_array([s.id for s in stored]),
        values=wire.jsonb_array([f.value for f in facts]),
        texts=wire.text_array([f.text for f in facts]),
        sources=wire.text_array([f.source for f in facts]),
        confidences=texts([f.confidence for f in facts]),
        supersedes=wire.text_array([s.supersedes_id for s in stored]),
        ttls=texts([f.ttl for f in facts]),
        refreshes=wire.text_array(["t" if f.refresh else "f" for f in facts]),
        expires=texts([s.expires_at for s in stored]),
        created=texts([s.created_at for s in stored]),
    )


def _vector_columns(
    memory: Memory, vectors: FactVectors, stored: Sequence[StoredFact], space_id: int | None
) -> dict[str, Any]:
    assert vectors.stored is not None
    pairs = [(s.id, field) for s, fields in zip(stored, vectors.fields, strict=True) for field in fields]
    return memory.at(
        space=space_id,
        fact_ids=wire.text_array([i for i, _ in pairs]),
        fields=wire.text_array([f for _, f in pairs]),
        norms=wire.float4_array(vectors.stored.norms),
        embeddings=wire.halfvec_array(vectors.stored.vectors, memory.halfvec_oid),
    )
