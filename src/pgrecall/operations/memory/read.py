"""Reading facts: by id, identity or conditions; by words, vector or both. Reading may restart a fact's ttl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import Any

from pgrecall import guards
from pgrecall.errors import InvalidInput
from pgrecall.facts import FactKey, MemoryEvent, Order, StoredFact
from pgrecall.hits import SearchMode
from pgrecall.jsonable import dumps
from pgrecall.operations import registry
from pgrecall.operations.memory.forget import Named
from pgrecall.operations.memory.packing import identities
from pgrecall.operations.memory.put import Memory, Settings, memory_space, settings
from pgrecall.operations.models.embedding import call_embed
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Gate, Rows, Transaction
from pgrecall.statements import fact_reads as reads
from pgrecall.statements import facts as sql
from pgrecall.statements.fact_reads import Facts
from pgrecall.statements.words import words
from pgrecall.types import EmbedSpace, Vector

#: Minimum number of facts from each side that are fused.
FETCH = 100
#: Attempts, in case other processes change the memory's settings between two messages.
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class FactSearch:
    """A search. `values` are the bound values of `which`."""

    which: Facts
    values: Mapping[str, Any]
    text: str | None
    vector: Vector | None
    mode: SearchMode | None
    order: Order
    top_k: int
    offset: int
    refresh: bool | None


def _fact(row: tuple[Any, ...]) -> StoredFact:
    (
        fact_id, namespace, subject, kind, key, value, text, source, confidence, actor, valid_from, valid_to,
        supersedes_id, ttl, refresh, expires_at, created_at, *score,
    ) = row  # fmt: skip
    return StoredFact(
        subject=subject or None,
        kind=kind,
        key=key,
        value=value,
        text=text,
        source=source,
        confidence=confidence,
        ttl=ttl,
        expires_at=expires_at,
        refresh_on_read=refresh,
        namespace=tuple(namespace),
        id=fact_id,
        actor=actor,
        created_at=created_at,
        valid_from=valid_from,
        valid_to=valid_to,
        supersedes_id=supersedes_id,
        score=score[0] if score else None,
    )


def _refreshed(gate: Gate, memory: Memory, found: list[StoredFact], refresh: bool | None) -> list[StoredFact]:
    """Restart the ttl of the facts that ask for it, or of all if `refresh`, or of none if it is False; return them."""
    due = [f.id for f in found if f.ttl is not None and f.valid_to is None and (refresh or f.refresh_on_read)]
    if due and refresh is not False:
        with gate.transaction(memory.scope, "refresh facts") as tx:
            tx.last(sql.REFRESH, memory.at(ids=wire.text_array(sorted(due))))
    return found


def get(gate: Gate, memory: Memory, fact_id: str, *, refresh: bool | None) -> StoredFact | None:
    """One version by id, unless it has expired or was forgotten."""
    rows = gate.read(memory.scope, "get fact", lambda tx: tx.last(reads.BY_ID, memory.at(id=fact_id)))
    found = _refreshed(gate, memory, [_fact(row) for row in rows], refresh)
    return found[0] if found else None


def get_many(
    gate: Gate, memory: Memory, keys: Sequence[FactKey], *, refresh: bool | Sequence[bool] | None
) -> list[StoredFact | None]:
    """The live facts of identities, in the same order; None for an identity without one."""
    if not keys:
        return []
    rows = gate.read(memory.scope, "get facts", lambda tx: tx.last(reads.BY_KEYS, memory.at(**identities(keys))))
    found = {row[-1]: _fact(row[:-1]) for row in rows}
    if isinstance(refresh, Sequence):
        _refreshed(gate, memory, [f for n, f in found.items() if refresh[n - 1]], True)
    else:
        _refreshed(gate, memory, list(found.values()), refresh)
    return [found.get(n) for n in range(1, len(keys) + 1)]


def history(gate: Gate, memory: Memory, meant: Named, *, limit: int, offset: int) -> list[StoredFact]:
    """All versions of one fact, newest first. Raises InvalidInput if a key matches several facts."""

    def body(tx: Transaction) -> Rows:
        key = meant.one(tx.rows(sql.NAMED, memory.at(**meant.params("live"))))
        if key is None:
            return []
        return tx.last(reads.HISTORY, memory.at(limit=limit, offset=offset, **identities([key])))

    return [_fact(row) for row in gate.read(memory.scope, "history", body)]


def search(gate: Gate, memory: Memory, asked: FactSearch) -> list[StoredFact]:
    """Facts that match all conditions, in the requested order.

    Raises: InvalidInput, EmbedSpaceMismatch, InvalidEmbedding.
    """
    values = memory.at(**asked.values, limit=asked.top_k, offset=asked.offset)
    mode = asked.mode
    if asked.text is None and asked.vector is None:
        statement = reads.listing(asked.which, asked.order)
        rows = gate.read(memory.scope, "search facts", lambda tx: tx.last(statement, values))
        return _refreshed(gate, memory, [_fact(row) for row in rows], asked.refresh)
    if mode is None:
        embeds = asked.vector is not None or (memory.model.embedder is not None and not asked.which.as_of)
        mode = "sparse" if not embeds else "dense" if asked.text is None else "hybrid"
    rows = _relevant(gate, memory, asked, mode, values)
    return _refreshed(gate, memory, [_fact(row) for row in rows], asked.refresh)


def _relevant(gate: Gate, memory: Memory, asked: FactSearch, mode: SearchMode, values: dict[str, Any]) -> Rows:
    space = vector = None
    if mode != "sparse":
        space = memory_space(gate, memory)
        if space is None:
            if memory.model.embedder is None and settings(gate, memory.scope) is not None:
                return _relevant(gate, memory, asked, "sparse", values) if mode == "hybrid" else []
            return []
        vector = _query_vector(gate, memory, asked, space)
    known = settings(gate, memory.scope)
    for _ in range(_ATTEMPTS):
        if known is None or (space is not None and known.space is None and mode == "dense"):
            return []
        if space is not None and known.space not in (None, space):
            registry.refuse_space(memory.what, known.space, space)
        params = dict(values)
        if mode != "dense":
            params |= {**words(asked.text or ""), "text_config": known.text_config}
        if space is not None:
            params |= {"query": vector, "space": known.space_id}
        if mode == "hybrid":
            params["fetch"] = max(FETCH, 2 * (asked.top_k + asked.offset))
        statement = reads.relevant(
            asked.which, asked.order, words=mode != "dense", distance=None if space is None else space.distance
        )
        work = [(sql.SETTINGS, memory.at()), (statement, params)]
        rows: Rows
        found, rows = gate.read(memory.scope, "search facts", methodcaller("many", work, commit=True))
        now = Settings.of(found)
        if now == known:
            return rows
        known = now
    raise AssertionError("the memory's settings changed on every attempt")


def _query_vector(gate: Gate, memory: Memory, asked: FactSearch, space: EmbedSpace) -> wire.Binary:
    vector = asked.vector
    if vector is None:
        if memory.model.embedder is None:
            raise InvalidInput(
                "a dense search needs vector=, or an embedding function for the text: memory(…, embed=…)"
            )
        vector = call_embed(gate, memory.model.embedder, [asked.text or ""])[0]
    return wire.halfvec(guards.to_stored([vector], space, ["the query"]).vectors[0])


def namespaces(
    gate: Gate,
    memory: Memory,
    prefixes: Sequence[Sequence[str]],
    suffixes: Sequence[Sequence[str]],
    *,
    depth: int | None,
    limit: int,
    offset: int,
) -> list[tuple[str, ...]]:
    """The namespaces of live facts, ordered by code point."""
    patterns = [
        *({"path": list(p), "suffix": False} for p in prefixes),
        *({"path": list(s), "suffix": True} for s in suffixes),
    ]
    values = {"patterns": dumps(patterns, "patterns"), "depth": depth, "limit": limit, "offset": offset}
    rows = gate.read(memory.scope, "namespaces", lambda tx: tx.last(reads.NAMESPACES, memory.at(**values)))
    return [tuple(path) for (path,) in rows]


def events(gate: Gate, memory: Memory, values: Mapping[str, Any]) -> list[MemoryEvent]:
    """Matching entries of the audit trail, oldest first."""
    rows = gate.read(memory.scope, "events", lambda tx: tx.last(reads.EVENTS, memory.at(**values)))
    return [MemoryEvent(*row) for row in rows]
