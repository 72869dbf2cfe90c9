"""Indexed metadata keys: `collections.settings` declares them, `chunk_keys` holds the chunks' values.

A key goes through three states. Declared: every write that begins afterwards adds its values. Filling: the values of
existing chunks are added in batches, concurrently with writes. Ready: filters use it. Key numbers are never reused, so
a process that has cached a dropped key finds no entries of another key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, get_args

from pgrecall.errors import Conflict, FilterError, InvalidInput, NotFound
from pgrecall.filters import F
from pgrecall.filters.keys import Key, lookup
from pgrecall.operations.registry import Place
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Gate, Params, Transaction
from pgrecall.statements import keys as sql
from pgrecall.statements.reads import Where
from pgrecall.types import IndexedKey, KeyType

Progress: TypeAlias = Callable[[int, int | None], None]
#: Keys as stored in `collections.settings`: number, path, type, ready.
Declared: TypeAlias = list[dict[str, Any]]
Statements: TypeAlias = list[tuple[str, Params]]

#: Chunks, or entries, per transaction.
BATCH = 1_000
#: Most indexed keys of a collection, because each makes every write of a chunk slower.
MOST_KEYS = 16
#: Seconds between attempts to delete entries that another transaction has locked.
PAUSE = 0.05


def checked(key: str | Sequence[str], key_type: KeyType) -> tuple[tuple[str, ...], KeyType]:
    """Validate a key's path and type. Raises InvalidInput."""
    if key_type not in get_args(KeyType):
        raise InvalidInput(f"the type is {key_type!r:.40}; expected one of {', '.join(get_args(KeyType))}")
    if not isinstance(key, str) and not isinstance(key, Collection):
        raise InvalidInput(f"the key is {type(key).__name__}; expected a string, or a list of strings for a nested key")
    path = (key,) if isinstance(key, str) else tuple(key)
    try:
        F[path]
    except FilterError as exc:
        raise InvalidInput(f"the key cannot be indexed: {exc}") from exc
    return path, key_type


def several(named: Mapping[Any, KeyType]) -> tuple[IndexedKey, ...]:
    """Validate the keys that a new collection is created with. Raises InvalidInput."""
    if not isinstance(named, Mapping):
        raise InvalidInput(f"indexed_keys is {type(named).__name__}; expected a mapping such as {{'lang': 'text'}}")
    if len(named) > MOST_KEYS:
        raise InvalidInput(f"indexed_keys has {len(named)} keys; expected at most {MOST_KEYS}")
    return tuple(IndexedKey(*checked(key, key_type), ready=True) for key, key_type in named.items())


def ready_keys(declared: Declared | None) -> tuple[Key, ...]:
    """The keys that filters can use."""
    return tuple(Key(k["number"], tuple(k["path"]), k["type"]) for k in declared or () if k.get("ready"))


def narrowed(where: Where, values: dict[str, Any], keys: Sequence[Key]) -> tuple[Where, dict[str, Any]]:
    """The same condition, evaluated with indexed keys if they can answer all or part of it."""
    found = lookup(where.tree, keys) if keys and where.tree is not None else None
    if found is None:
        return where, values
    return replace(where, keys=found.form, by_keys_alone=found.whole), values | sql.bind_values(found)


def entries(place: Place, ids: wire.Binary, declared: Declared) -> Statements:
    """The statements that update these chunks' key entries. The caller must hold locks on the chunks' rows."""
    values = place.at(ids=ids, keys=json.dumps(declared))
    return [(sql.DELETE_STALE, values), (sql.ADD, values)]


def index_key(
    gate: Gate, place: Place, path: tuple[str, ...], key_type: KeyType, progress: Progress | None
) -> IndexedKey:
    """Declare a key and fill it. Resumes an interrupted fill, and does nothing if it is ready. Raises NotFound."""
    entry = gate.retrying(lambda: _declare(gate, place, path, key_type))
    if not entry["ready"]:
        _fill(gate, place, entry, progress)
        gate.retrying(lambda: _finish(gate, place, entry["number"]))
    return IndexedKey(path, key_type, ready=True)


def _settings(tx: Transaction, place: Place) -> dict[str, Any]:
    """Lock and read the collection's settings: waits for current writers, and blocks later ones."""
    rows = tx.rows(sql.LOCK, place.at())
    if not rows:
        raise NotFound(f"collection {place.collection!r} does not exist; the first write creates it")
    return dict(rows[0][0])


def _same(entry: dict[str, Any], path: tuple[str, ...], key_type: KeyType) -> bool:
    return tuple(entry["path"]) == path and entry["type"] == key_type


def _set(tx: Transaction, place: Place, settings: dict[str, Any]) -> None:
    tx.count(sql.SET, place.at(settings=json.dumps(settings)))


def _declare(gate: Gate, place: Place, path: tuple[str, ...], key_type: KeyType) -> dict[str, Any]:
    with gate.transaction(place.scope, "key declare") as tx:
        settings = _settings(tx, place)
        declared: Declared = settings.get("keys", [])
        for entry in declared:
            if _same(entry, path, key_type):
                return entry
        if len(declared) >= MOST_KEYS:
            raise InvalidInput(
                f"collection {place.collection!r} has {len(declared)} indexed keys already; at most {MOST_KEYS} are "
                "allowed. Drop one first: tenant.unindex_key"
            )
        number = settings.get("key_numbers", 0) + 1
        entry = {"number": number, "path": list(path), "type": key_type, "ready": False}
        _set(tx, place, settings | {"keys": [*declared, entry], "key_numbers": number})
    return entry


def _fill(gate: Gate, place: Place, entry: dict[str, Any], progress: Progress | None) -> None:
    total = None
    if progress is not None:
        with gate.transaction(place.scope, "key count") as tx:
            total = int(tx.last(sql.CHUNKS, place.at())[0][0])
    done, after = 0, ""

    def batch() -> tuple[int, str | None]:
        with gate.transaction(place.scope, "key fill") as tx:
            page = place.at(after=after, batch=BATCH, keys=json.dumps([entry]))
            held, rows = tx.many([(sql.HOLD, place.at()), (sql.BACKFILL, page)])
            if not any(k["number"] == entry["number"] for k in (held[0][0] if held else None) or ()):
                raise NotFound(f"the key was dropped from collection {place.collection!r} while it was being filled")
            return rows[0][0], rows[0][1]

    while True:
        count, last = gate.retrying(batch)
        done += count
        if progress is not None:
            progress(done, total)
        if count < BATCH or last is None:
            return
        after = last


def _finish(gate: Gate, place: Place, number: int) -> None:
    with gate.transaction(place.scope, "key ready") as tx:
        settings = _settings(tx, place)
        keys = [k | {"ready": True} if k["number"] == number else k for k in settings.get("keys", [])]
        if not any(k["number"] == number for k in keys):
            raise Conflict("the key was dropped while it was being filled; repeat the call to index it again")
        _set(tx, place, settings | {"keys": keys})


def unindex_key(gate: Gate, place: Place, path: tuple[str, ...], key_type: KeyType) -> int:
    """Drop a key: writes and filters stop using it, and then its entries are deleted. Raises NotFound."""

    def undeclare() -> int:
        with gate.transaction(place.scope, "key drop") as tx:
            settings = _settings(tx, place)
            declared: Declared = settings.get("keys", [])
            numbers = [k["number"] for k in declared if _same(k, path, key_type)]
            if not numbers:
                raise NotFound(f"collection {place.collection!r} has no indexed key {list(path)} of type {key_type}")
            _set(tx, place, settings | {"keys": [k for k in declared if k["number"] not in numbers]})
            return int(numbers[0])

    number = gate.retrying(undeclare)
    gone = 0
    while True:
        with gate.transaction(place.scope, "key entries") as tx:
            some = tx.count(sql.FORGET, place.at(number=number, batch=BATCH))
            [(left,)] = tx.rows(sql.LEFT, place.at(number=number))
        gone += some
        if not left:
            return gone
        if not some:
            gate.sleep(PAUSE)
