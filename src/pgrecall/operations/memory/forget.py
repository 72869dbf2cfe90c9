"""Forgets, restores and erases facts, under the locks of their identities, and records the events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Literal, NamedTuple

from pgrecall.errors import InvalidInput, NotFound
from pgrecall.facts import FactKey
from pgrecall.operations import tombstones
from pgrecall.operations.memory.packing import array_literal, identities, lock_numbers, named
from pgrecall.operations.memory.put import INSTANT, Memory
from pgrecall.operations.memory.trail import Trail
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Gate, Rows, Transaction
from pgrecall.statements import facts as sql

Which = Literal["live", "forgotten", "any"]


@dataclass(frozen=True, slots=True)
class Named:
    """Selects one fact: by the id of any version, or by key and optional other parts. `subject` '' means none."""

    fact_id: str | None = None
    key: str | None = None
    kind: str | None = None
    subject: str | None = None
    namespace: tuple[str, ...] | None = None

    def params(self, which: Which) -> dict[str, Any]:
        """Parameters of `NAMED`."""
        path = None if self.namespace is None else array_literal(self.namespace)
        values = {"id": self.fact_id, "key": self.key, "kind": self.kind, "subject": self.subject}
        return {**values, "namespace": path, "which": which}

    def one(self, rows: Rows) -> FactKey | None:
        """The selected identity, or None. Raises InvalidInput if the key matches several facts."""
        keys = [FactKey(subject, kind, key, tuple(path)) for subject, kind, key, path in rows]
        if len(keys) > 1:
            listed = "; ".join(named(k) for k in keys[:5]) + ("; …" if len(keys) > 5 else "")
            raise InvalidInput(
                f"the key {self.key!r:.80} matches {len(keys) if len(keys) < 20 else '20 or more'} facts: {listed}. "
                "Select one by subject=, kind= and namespace=, or by id"
            )
        return keys[0] if keys else None


class FactVersion(NamedTuple):
    """A row of `CHAINS`."""

    n: int
    id: str
    is_last: bool
    deleted_at: datetime | None
    expired: bool | None
    purge_at: datetime | None
    now: datetime
    valid_from: datetime

    @property
    def live(self) -> bool:
        """Whether this is the version that readers see."""
        return self.is_last and self.deleted_at is None and not self.expired


def _chains(tx: Transaction, memory: Memory, keys: Sequence[FactKey]) -> list[list[FactVersion]]:
    """Lock the identities and read all their versions, oldest first."""
    assert memory.scope.tenant is not None
    locks = (sql.LOCK, {"locks": lock_numbers(memory.scope.tenant, keys)})
    _, rows = tx.many([locks, (sql.CHAINS, memory.at(**identities(keys)))])
    chains: list[list[FactVersion]] = [[] for _ in keys]
    for n, versions in groupby(map(FactVersion._make, rows), key=lambda v: v.n):
        chains[n - 1] = list(versions)
    return chains


def _find(tx: Transaction, memory: Memory, meant: Named, which: Which) -> FactKey | None:
    # The tenant's row is locked as every writer does, so that an erasure waits for this change and its event.
    _, rows = tx.many([tombstones.tenant_lock(memory.scope), (sql.NAMED, memory.at(**meant.params(which)))])
    return meant.one(rows)


def forget(gate: Gate, memory: Memory, meant: Named | Sequence[FactKey], reason: str | None) -> int:
    """Forget facts with all their versions; returns how many facts were live."""

    def body() -> int:
        with gate.transaction(memory.scope, "forget facts") as tx:
            if isinstance(meant, Named):
                found = _find(tx, memory, meant, "live")
                keys: Sequence[FactKey] = [] if found is None else [found]
            else:
                tx.rows(*tombstones.tenant_lock(memory.scope))
                keys = meant
            if not keys:
                return 0
            trail, gone = Trail(memory.actor, reason), []
            at: datetime | None = None
            for key, chain in zip(keys, _chains(tx, memory, keys), strict=True):
                live = next((v for v in chain if v.live), None)
                if live is None:
                    continue
                at = max(v for v in (at, live.now, chain[-1].valid_from + INSTANT) if v is not None)
                gone += [v.id for v in chain if v.deleted_at is None]
                trail.add("forget", live.id, key.subject)
            if at is not None:
                values = memory.at(ids=wire.text_array(gone), at=at, purge_at=at + memory.grace)
                tx.many([(sql.FORGET, values), trail.write(memory.scope.tenant, at)], commit=True)
            return len(trail)

    return gate.retrying(body)


def restore(gate: Gate, memory: Memory, meant: Named, reason: str | None) -> str:
    """Restore a forgotten fact with its versions and vectors; returns the id of the live version.

    Raises: NotFound, InvalidInput.
    """

    def body() -> str:
        with gate.transaction(memory.scope, "restore fact") as tx:
            key = _find(tx, memory, meant, "forgotten")
            [chain] = _chains(tx, memory, [key]) if key is not None else [[]]
            forgotten = [v for v in chain if v.deleted_at is not None and v.purge_at and v.purge_at > v.now]
            if key is None or not forgotten:
                raise NotFound("there is no such forgotten fact, or its grace period is over")
            if any(v.live for v in chain):
                raise InvalidInput(
                    f"fact {named(key)} cannot be restored, because a newer version has replaced it; delete that first"
                )
            # If it was forgotten several times: the version selected by id, or the last one.
            chosen = next((v for v in forgotten if v.id == meant.fact_id), None) or max(
                forgotten, key=lambda v: (v.deleted_at, v.valid_from)
            )
            back = [v for v in forgotten if v.deleted_at == chosen.deleted_at]
            [head] = [v for v in back if v.is_last]
            at = max(head.now, chain[-1].valid_from + INSTANT)
            trail = Trail(memory.actor, reason)
            trail.add("restore", head.id, key.subject)
            work: list[tuple[str, Mapping[str, Any]]] = []
            if blocking := [v.id for v in chain if v.is_last and v.deleted_at is None]:  # expired, not swept
                ids = wire.text_array(blocking)
                work += [(sql.CLOSE, memory.at(ids=ids, at=at)), (sql.DELETE_VECTORS, memory.at(ids=ids))]
            work.append((sql.RESTORE, memory.at(ids=wire.text_array([v.id for v in back]))))
            tx.many([*work, trail.write(memory.scope.tenant, at)], commit=True)
            return head.id

    return gate.retrying(body)


def erase(gate: Gate, memory: Memory, meant: Named, reason: str | None) -> int:
    """Permanently delete all versions of a fact, including forgotten ones, and their vectors; returns how many."""

    def body() -> int:
        with gate.transaction(memory.scope, "erase fact") as tx:
            key = _find(tx, memory, meant, "any")
            [chain] = _chains(tx, memory, [key]) if key is not None else [[]]
            if key is None or not chain:
                return 0
            trail = Trail(memory.actor, reason)
            trail.add("erase", chain[-1].id, key.subject, {"versions": len(chain)})
            gone = memory.at(ids=wire.text_array([v.id for v in chain]))
            event = trail.write(memory.scope.tenant, chain[-1].now)
            tx.many([(sql.DELETE_VECTORS, gone), (sql.DELETE, gone), event], commit=True)
            return len(chain)

    return gate.retrying(body)
