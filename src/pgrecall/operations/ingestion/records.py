"""Index records: when an ingestion pipeline last saw each key."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pgrecall.arguments import MAX_ID_BYTES, check_text, whole_number
from pgrecall.errors import InvalidInput
from pgrecall.operations import tombstones
from pgrecall.operations.chunks.packing import id_array
from pgrecall.operations.registry import Place
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Gate
from pgrecall.statements import records as sql


def time(gate: Gate, place: Place) -> float:
    """The server's clock, in seconds since 1970."""
    with gate.transaction(place.scope, "records time") as tx:
        return float(tx.last(sql.TIME, {})[0][0])


def update(
    gate: Gate,
    place: Place,
    namespace: str,
    keys: Sequence[str],
    groups: Sequence[str | None] | None,
    time_at_least: float | None,
    *,
    create_tenant: bool,
) -> None:
    """Record that keys were seen now. Raises InvalidInput."""
    pairs = _pairs(keys, groups)
    values = place.at(
        namespace=namespace,
        keys=wire.text_array([key for key, _ in pairs]),
        groups=wire.text_array([group for _, group in pairs]),
    )

    def body() -> None:
        with gate.transaction(place.scope, "records update") as tx:
            tombstones.ensure_tenant(tx, place.scope, create=create_tenant)
            [(now,)], _ = tx.many([(sql.TIME, {}), (sql.UPDATE, values)])
            if time_at_least is not None and now < time_at_least:
                raise InvalidInput(
                    f"time_at_least is {time_at_least!r}; expected at most the server's current time ({now!r}). "
                    "Use time(), which returns the server's clock"
                )
            tx.commit()

    gate.retrying(body)


def _pairs(keys: Sequence[str], groups: Sequence[str | None] | None) -> list[tuple[str, str | None]]:
    """Distinct keys with their groups, in lock order (by key). If a key occurs twice, the later one wins."""
    if isinstance(keys, str) or not isinstance(keys, Collection):
        raise InvalidInput(f"keys is {type(keys).__name__} {keys!r:.60}; expected a list of ids")
    if groups is None:
        groups = [None] * len(keys)
    if len(keys) != len(groups):
        raise InvalidInput(
            f"there are {len(keys)} keys and {len(groups)} group_ids; expected one group id per key, or group_ids=None"
        )
    found: dict[str, str | None] = {}
    for key, group in zip(keys, groups, strict=True):
        if group is not None:
            check_text(group, "one of group_ids", MAX_ID_BYTES)
        found[check_text(key, "one of keys", MAX_ID_BYTES)] = group
    return sorted(found.items())


def exists(gate: Gate, place: Place, namespace: str, keys: Sequence[str]) -> list[bool]:
    """For each key, whether it has a record and its chunk is in the collection."""
    values = place.at(namespace=namespace, keys=id_array(keys, "keys"))
    with gate.transaction(place.scope, "records exist") as tx:
        found = {row[0] for row in tx.last(sql.EXISTS, values)}
    return [key in found for key in keys]


def listing(
    gate: Gate,
    place: Place,
    namespace: str,
    *,
    before: float | None,
    after: float | None,
    groups: Sequence[str] | None,
    limit: int | None,
) -> list[str]:
    """Matching keys, ordered by code point."""
    values: dict[str, Any] = {
        "namespace": namespace,
        "before": before,
        "after": after,
        "groups": None if groups is None else id_array(groups, "group_ids"),
        "limit": None if limit is None else whole_number(limit, "limit", 0),
    }
    with gate.transaction(place.scope, "records list") as tx:
        return [row[0] for row in tx.last(sql.LIST, place.at(**values))]


def delete(gate: Gate, place: Place, namespace: str, keys: Sequence[str]) -> int:
    """Delete the records of keys; returns how many existed."""
    values = place.at(namespace=namespace, keys=id_array(keys, "keys"))

    def body() -> int:
        with gate.transaction(place.scope, "records delete") as tx:
            return tx.count(sql.DELETE, values)

    return gate.retrying(body)
