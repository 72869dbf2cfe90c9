"""Tenants, spaces and collections: created on first use, exactly once even if many processes do so concurrently."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np

from pgrecall import guards
from pgrecall.errors import (
    EmbedSpaceMismatch,
    FingerprintMismatch,
    InvalidInput,
    MigrationRequired,
    NotFound,
)
from pgrecall.operations import tombstones
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Gate, Ground, Scope, Transaction
from pgrecall.schema import REVISION
from pgrecall.statements import deletes
from pgrecall.statements import registry as sql
from pgrecall.statements import tombstones as tombstone_sql
from pgrecall.types import (
    CollectionInfo,
    DeleteReport,
    EmbedModel,
    EmbedSpace,
    IndexedKey,
    SpaceInfo,
    SpaceUse,
    TenantInfo,
    Vector,
)


@dataclass(frozen=True, slots=True)
class Server:
    """What is read once per database: the properties that scopes depend on, and the OID of pgvector's halfvec."""

    ground: Ground
    halfvec_oid: int


def probe(gate: Gate, *, maintenance: bool = False) -> Server:
    """Check the database before its first use, in the role that the gate's login is for.

    Raises: MigrationRequired, ConfigurationError, Unavailable.
    """
    with gate.bare() as tx:
        [(vector_schema, version, migrated, citus)] = tx.rows(sql.VECTOR_SCHEMA, {})
    if vector_schema is None:
        raise MigrationRequired("extension vector is not installed in this database. Run: pgrecall db upgrade")
    if not migrated:
        raise MigrationRequired("this database has no pgrecall schema. Run: pgrecall db upgrade")
    ground = Ground(vector_schema, citus)
    scope = Scope.of_maintenance(ground) if maintenance else Scope.of_tenant("-", ground)
    with gate.transaction(scope, "probe") as tx:
        found = tx.last(sql.PROBE, {"vector_schema": vector_schema})
    if not found:
        raise MigrationRequired(
            f"pgvector is at version {version}; expected 0.7 or later, which has halfvec. "
            "Run: ALTER EXTENSION vector UPDATE"
        )
    revision, oid = found[0]
    if revision is None or revision < REVISION:
        raise MigrationRequired(
            f"the database is at revision {revision or 'base'}; this version of pgrecall expects {REVISION}. "
            "Run: pgrecall db upgrade"
        )
    return Server(ground, oid)


class StaleSpace(Exception):
    """A cached space id now refers to another space and must be looked up again."""


class Guarded(NamedTuple):
    """The collection's state at the start of a write, which the transaction locks with FOR SHARE."""

    space_id: int
    fingerprint: list[float] | None
    text_config: str | None
    graph_generation: int
    #: Declared keys, as stored in `collections.settings`.
    keys: list[dict[str, Any]]
    #: The space that the collection is being re-embedded to, if any.
    next_space_id: int | None


@dataclass(frozen=True, slots=True)
class Place:
    """One collection of one tenant."""

    scope: Scope
    collection: str

    def at(self, **values: Any) -> dict[str, Any]:
        """Parameters of a statement about this collection."""
        return {"tenant": self.scope.tenant, "collection": self.collection, **values}


class Collection(NamedTuple):
    """A collection's space, text search configuration and fingerprint."""

    space: EmbedSpace
    text_config: str | None
    fingerprint: list[float] | None
    text_complete: bool


def find_collection(gate: Gate, place: Place) -> Collection | None:
    """The collection, or None if it does not exist."""
    rows = gate.read(place.scope, "collection", lambda tx: tx.last(sql.COLLECTION, place.at()))
    if not rows:
        return None
    fingerprint, text_config, text_complete, *space = rows[0]
    return Collection(EmbedSpace(*space), text_config, fingerprint, text_complete)


def space_params(space: EmbedSpace) -> dict[str, Any]:
    """An EmbedSpace as statement parameters."""
    return {"provider": space.provider, "model": space.model, "dim": space.dim, "distance": space.distance}


def find_space(gate: Gate, scope: Scope, space: EmbedSpace) -> int | None:
    """The space's id, or None if it is not registered."""
    rows = gate.read(scope, "space", lambda tx: tx.last(sql.SPACE_ID, space_params(space)))
    return int(rows[0][0]) if rows else None


def ensure_space(gate: Gate, scope: Scope, space: EmbedSpace) -> int:
    """The space's id. Registers the space if it is new."""
    found = find_space(gate, scope, space)
    if found is not None:
        return found
    # In its own transaction even within an atomic block, because others wait for the registry until it ends.
    with gate.outside.transaction(scope, "space add") as tx:
        return add_space(tx, space)


class SpaceIds:
    """A process' cache of space ids. It may be outdated, because each statement checks that the id is the space's."""

    def __init__(self) -> None:
        self._known: dict[EmbedSpace, int] = {}

    def ensure(self, gate: Gate, scope: Scope, space: EmbedSpace) -> int:
        """The space's id. Registers the space if it is new."""
        if space not in self._known:
            self._known[space] = ensure_space(gate, scope, space)
        return self._known[space]

    def find(self, gate: Gate, scope: Scope, space: EmbedSpace, *, reload: bool = False) -> int:
        """The space's id, or -1 if it is not registered, which no collection has. `reload` bypasses the cache."""
        if reload or space not in self._known:
            found = find_space(gate, scope, space)
            if found is None:
                return -1
            self._known[space] = found
        return self._known[space]

    def forget(self) -> None:
        """Forget all numbers."""
        self._known.clear()


def add_space(tx: Transaction, space: EmbedSpace) -> int:
    """Register the space within a transaction, which locks the registry until it ends; returns the space's id."""
    tx.rows(sql.LOCK_SPACES, {})
    tx.count(sql.ADD_SPACE, space_params(space))
    [(number,)] = tx.rows(sql.SPACE_ID, space_params(space))
    return int(number)


def guard(
    tx: Transaction,
    place: Place,
    space: EmbedSpace,
    *,
    create_tenants: bool,
    text_config: str | None,
    indexed_keys: Sequence[IndexedKey],
    fingerprint: Vector | None,
) -> Guarded:
    """The first statement of every write: lock and check the tenant and the collection, creating them if needed.

    Raises: TenantErased, UnknownTenant, EmbedSpaceMismatch, FingerprintMismatch, InvalidInput.
    """
    rows = tx.rows(sql.GUARD, place.at())
    if not rows:
        tombstones.ensure_tenant(tx, place.scope, create=create_tenants)
        if text_config is not None:
            text_config = known_text_config(tx, text_config)
        stored = None if fingerprint is None else wire.float4_array(np.asarray(fingerprint))
        # Ready at once, because the collection has no chunks yet.
        keys = [{"number": n, "path": k.path, "type": k.type, "ready": True} for n, k in enumerate(indexed_keys, 1)]
        settings = json.dumps({"keys": keys, "key_numbers": len(keys)} if keys else {})
        values = place.at(text_config=text_config, fingerprint=stored, settings=settings, **space_params(space))
        if not tx.count(sql.ADD_COLLECTION, values) and not tx.rows(sql.GUARD, place.at()):
            # The space was dropped after it was registered.
            add_space(tx, space)
            tx.count(sql.ADD_COLLECTION, values)
        rows = tx.rows(sql.GUARD, place.at())
    erased_at, active, stored_print, stored_config, generation, keys, next_space, *identity = rows[0]
    tombstones.refuse_erased_tenant(place.scope, erased_at)
    if (holds := EmbedSpace(*identity)) != space:
        refuse_space(f"collection {place.collection!r}", holds, space)
    if text_config is not None and text_config != stored_config:
        found = "without full-text search" if stored_config is None else f"with text_config={stored_config!r}"
        raise InvalidInput(
            f"collection {place.collection!r} was created {found}, but text_config={text_config!r} was requested; omit "
            f"text_config, or change all chunks: tenant.set_text_config({place.collection!r}, {text_config!r})"
        )
    _check_keys(place, indexed_keys, keys)
    if fingerprint is not None and stored_print is not None:
        check_fingerprint(f"collection {place.collection!r}", space, stored_print, fingerprint)
    elif fingerprint is not None:
        tx.count(sql.SET_FINGERPRINT, place.at(fingerprint=wire.float4_array(np.asarray(fingerprint))))
    return Guarded(active, stored_print, stored_config, generation, keys or [], next_space)


def _check_keys(place: Place, wanted: Sequence[IndexedKey], declared: list[dict[str, Any]] | None) -> None:
    held = {(key.path, key.type) for key in _indexed(declared)}
    for key in wanted:
        if (key.path, key.type) not in held:
            raise InvalidInput(
                f"collection {place.collection!r} has no indexed key {list(key.path)} of type {key.type}; add it with "
                "tenant.index_key, or omit indexed_keys"
            )


def known_text_config(tx: Transaction, text_config: str) -> str:
    """The configuration's name as this server knows it. Raises InvalidInput if it does not exist."""
    found = tx.rows(sql.KNOWN_TEXT_CONFIG, {"text_config": text_config})
    if not found:
        raise InvalidInput(
            f"text_config is {text_config!r}; expected a text search configuration of this server (see pg_ts_config)"
        )
    return str(found[0][0])


def refuse_space(what: str, holds: EmbedSpace, given: EmbedSpace | EmbedModel) -> NoReturn:
    """Raise EmbedSpaceMismatch. `what` names what holds the vectors, for example "collection 'x'"."""
    kind = what.partition(" ")[0]
    if kind == "collection":
        todo = (
            "If the collection was re-embedded, use its new space and model: tenant.vectors(name, space, embed=…). "
            "Otherwise embed with the collection's model, or re-embed the collection with yours: tenant.reembed"
        )
    else:
        todo = f"Embed with the {kind}'s model, or re-embed all of it"
    raise EmbedSpaceMismatch(f"{what} holds vectors of {holds}, but these are of {given}. {todo}")


def check_fingerprint(what: str, space: EmbedSpace, stored: list[float], fingerprint: Vector) -> None:
    """Raise FingerprintMismatch if the model gives the fingerprint text another vector than before."""
    cosine = guards.same_model(fingerprint, stored)
    if not cosine >= guards.FINGERPRINT_COSINE:
        raise FingerprintMismatch(
            f"the embedding function for {what} is declared as {space}, but its vector of the fingerprint's text "
            f"differs from the stored one (cosine {cosine:.4f}, expected at least {guards.FINGERPRINT_COSINE}). The "
            "model has changed under the same name: use the previous model, or re-embed as another space"
        )


def collections(gate: Gate, scope: Scope, name: str | None = None) -> list[CollectionInfo]:
    """The tenant's collections, or only the one with this name."""
    values = {"tenant": scope.tenant, "name": name}
    rows = gate.read(scope, "collections", lambda tx: tx.last(sql.COLLECTIONS, values))
    return [_collection_info(row) for row in rows]


def _collection_info(row: tuple[Any, ...]) -> CollectionInfo:
    name, *space = row[:5]
    text_config, created_at, documents, chunks, keys, complete, ef_search, *coming = row[5:]
    return CollectionInfo(
        name,
        EmbedSpace(*space),
        text_config,
        created_at,
        documents,
        chunks,
        _indexed(keys),
        complete,
        None if coming[0] is None else EmbedSpace(*coming),
        ef_search,
    )


def _indexed(keys: list[dict[str, Any]] | None) -> tuple[IndexedKey, ...]:
    return tuple(IndexedKey(tuple(key["path"]), key["type"], key["ready"]) for key in keys or ())


def drop_collection(gate: Gate, place: Place) -> DeleteReport:
    """Delete a collection and everything in it. Raises NotFound."""

    def body() -> DeleteReport:
        with gate.transaction(place.scope, "collection drop") as tx:
            if not tx.rows(deletes.LOCK_COLLECTION, place.at()):
                raise NotFound(f"collection {place.collection!r} does not exist")
            return DeleteReport(**_rows({k: tx.count(s, place.at()) for k, s in deletes.COLLECTION.items()}))

    return gate.retrying(body)


def _rows(counts: dict[str, int]) -> dict[str, int]:
    """The counts without the entries of indexed keys, which are internal."""
    return {table: count for table, count in counts.items() if table != "keys"}


def clear_collection(gate: Gate, place: Place) -> DeleteReport:
    """Delete everything in a collection, but not the collection itself. Does nothing if it does not exist."""

    def body() -> DeleteReport:
        with gate.transaction(place.scope, "collection clear") as tx:
            if not tx.rows(deletes.LOCK_COLLECTION, place.at()):
                return DeleteReport()
            emptied = {k: s for k, s in deletes.COLLECTION.items() if k not in deletes.STAYS}
            return DeleteReport(**_rows({k: tx.count(s, place.at()) for k, s in emptied.items()}))

    return gate.retrying(body)


def create_tenant(gate: Gate, scope: Scope, *, reopen: bool) -> bool:
    """Register a tenant; returns whether it is new or was reopened. Raises TenantErased unless `reopen`."""
    values = {"tenant": scope.tenant}
    with gate.transaction(scope, "tenant create") as tx:
        made = tx.count(tombstone_sql.ADD_TENANT, values)
        if reopen:
            made += tx.count(tombstone_sql.REOPEN_TENANT, values)
        [(erased_at,)] = tx.rows(*tombstones.tenant_lock(scope))
        tombstones.refuse_erased_tenant(scope, erased_at)
    return bool(made)


def tenants(gate: Gate, scope: Scope) -> list[TenantInfo]:
    """All tenants, including tombstones. Requires the maintenance role."""
    with gate.transaction(scope, "tenants") as tx:
        return [TenantInfo(*row) for row in tx.last(sql.TENANTS, {})]


def tenant(gate: Gate, scope: Scope) -> TenantInfo | None:
    """The scope's own tenant, or None if it does not exist."""
    rows = gate.read(scope, "tenant", lambda tx: tx.last(sql.TENANT, {"tenant": scope.tenant}))
    return TenantInfo(*rows[0]) if rows else None


def space_use(gate: Gate, across: Scope) -> dict[int, SpaceUse]:
    """What uses each space, by the space's id. Unused spaces are omitted. Requires the maintenance role."""
    with gate.transaction(across, "space use") as tx:
        return {number: SpaceUse(*counts) for number, *counts in tx.last(sql.SPACE_USE, {})}


def spaces(gate: Gate, scope: Scope) -> list[SpaceInfo]:
    """All registered spaces."""
    with gate.transaction(scope, "spaces") as tx:
        return [SpaceInfo(r[0], EmbedSpace(*r[1:5]), r[5]) for r in tx.last(sql.SPACES, {})]
