"""Tenants, spaces and collections: made on first use, once, however many processes come at the same moment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, NoReturn

import numpy as np

from pgrecall import guards
from pgrecall.errors import (
    EmbedSpaceMismatch,
    FingerprintMismatch,
    InvalidInput,
    MigrationRequired,
    NotFound,
    SubjectErased,
    TenantErased,
    UnknownTenant,
)
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Gate, Ground, Rows, Scope, Transaction
from pgrecall.schema import REVISION
from pgrecall.statements import deletes
from pgrecall.statements import registry as sql
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
    """What is asked of a database once: what its scopes stand on, and the number of pgvector's type."""

    ground: Ground
    halfvec_oid: int


def probe(gate: Gate, *, maintenance: bool = False) -> Server:
    """Look the database over before its first use, in the role that the gate's login is for.

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
            f"pgvector {version} has no halfvec; pgrecall needs 0.7 or later: ALTER EXTENSION vector UPDATE"
        )
    revision, oid = found[0]
    if revision is None or revision < REVISION:
        raise MigrationRequired(
            f"the database is at revision {revision or 'base'}, this version of pgrecall needs {REVISION}. "
            "Run: pgrecall db upgrade"
        )
    return Server(ground, oid)


class StaleSpace(Exception):
    """A remembered number stands for another space now; look it up again."""


class Guarded(NamedTuple):
    """What a write transaction learned, and holds with FOR SHARE, before it writes."""

    space_id: int
    fingerprint: list[float] | None
    text_config: str | None
    graph_generation: int
    #: Declared keys, as `collections.settings` has them.
    keys: list[dict[str, Any]]
    #: The space that is being filled beside the active one, if any.
    next_space_id: int | None


@dataclass(frozen=True, slots=True)
class Place:
    """One collection of one tenant."""

    scope: Scope
    collection: str

    def at(self, **values: Any) -> dict[str, Any]:
        """Parameters of a statement about this place."""
        return {"tenant": self.scope.tenant, "collection": self.collection, **values}


class Collection(NamedTuple):
    """What a collection was made with."""

    space: EmbedSpace
    text_config: str | None
    fingerprint: list[float] | None
    text_complete: bool


def find_collection(gate: Gate, place: Place) -> Collection | None:
    """The collection at this place, or None."""
    rows = gate.read(place.scope, "collection", lambda tx: tx.last(sql.COLLECTION, place.at()))
    if not rows:
        return None
    fingerprint, text_config, text_complete, *space = rows[0]
    return Collection(EmbedSpace(*space), text_config, fingerprint, text_complete)


def space_params(space: EmbedSpace) -> dict[str, Any]:
    """An EmbedSpace as parameters of a statement."""
    return {"provider": space.provider, "model": space.model, "dim": space.dim, "distance": space.distance}


def find_space(gate: Gate, scope: Scope, space: EmbedSpace) -> int | None:
    """The space's number in the registry, or None."""
    rows = gate.read(scope, "space", lambda tx: tx.last(sql.SPACE_ID, space_params(space)))
    return int(rows[0][0]) if rows else None


def ensure_space(gate: Gate, scope: Scope, space: EmbedSpace) -> int:
    """The space's number, registered if it is new."""
    found = find_space(gate, scope, space)
    if found is not None:
        return found
    # Of its own where an atomic block is open: others wait for the registry until the transaction ends.
    with gate.outside.transaction(scope, "space add") as tx:
        return add_space(tx, space)


def add_space(tx: Transaction, space: EmbedSpace) -> int:
    """Register the space within a transaction, which holds the registry until it ends; returns its number."""
    tx.rows(sql.LOCK_SPACES, {})
    tx.count(sql.ADD_SPACE, space_params(space))
    [(number,)] = tx.rows(sql.SPACE_ID, space_params(space))
    return int(number)


def ensure_tenant(tx: Transaction, tenant: str, *, create: bool) -> None:
    """Hold the tenant's row FOR SHARE, making it if it is new.

    Raises: TenantErased; UnknownTenant where `create` is false and it was never made.
    """
    rows = tx.rows(sql.LOCK_TENANT, {"tenant": tenant})
    if not rows and not create:
        raise UnknownTenant(
            f"tenant {tenant!r} does not exist and this database requires known tenants; create_tenant first"
        )
    if not rows:
        tx.count(sql.ADD_TENANT, {"tenant": tenant})
        rows = tx.rows(sql.LOCK_TENANT, {"tenant": tenant})
    if rows[0][0] is not None:
        refuse_erased(tenant, rows[0][0])


def refuse_erased_subject(tx: Transaction, tenant: str, subject: str | None) -> None:
    """Raise SubjectErased where there is a tombstone; the tenant's row is held, which an erasure waits for."""
    if subject is not None:
        refuse_erased_subjects(tx.rows(sql.ERASED_SUBJECTS, {"tenant": tenant, "subjects": [subject]}))


def refuse_erased_subjects(rows: Rows) -> None:
    """Raise SubjectErased where `ERASED_SUBJECTS` found any."""
    for _, erased_at in rows:
        # Not named: the message may be logged, and the point was to forget.
        raise SubjectErased(
            f"what was held about this subject was erased at {erased_at:%Y-%m-%d %H:%M:%S %Z}; nothing was written. "
            "To keep something about it again: tenant.reopen_subject(subject)"
        )


def refuse_erased(tenant: str, erased_at: datetime) -> None:
    """Raise TenantErased."""
    raise TenantErased(
        f"tenant {tenant!r} was deleted at {erased_at:%Y-%m-%d %H:%M:%S %Z}; nothing was written. "
        "To use the name again: create_tenant(name, reopen=True)"
    )


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
    """The first statement of every write: the tenant lives, the collection stands and answers in this space.

    Raises: TenantErased, UnknownTenant, EmbedSpaceMismatch, InvalidInput.
    """
    rows = tx.rows(sql.GUARD, place.at())
    if not rows:
        assert place.scope.tenant is not None
        ensure_tenant(tx, place.scope.tenant, create=create_tenants)
        if text_config is not None:
            text_config = known_text_config(tx, text_config)
        stored = None if fingerprint is None else wire.float4_array(np.asarray(fingerprint))
        # Ready at once: there is nothing yet to fill them with.
        keys = [{"number": n, "path": k.path, "type": k.type, "ready": True} for n, k in enumerate(indexed_keys, 1)]
        settings = json.dumps({"keys": keys, "key_numbers": len(keys)} if keys else {})
        values = place.at(text_config=text_config, fingerprint=stored, settings=settings, **space_params(space))
        if not tx.count(sql.ADD_COLLECTION, values) and not tx.rows(sql.GUARD, place.at()):
            # The space was dropped since it was registered.
            add_space(tx, space)
            tx.count(sql.ADD_COLLECTION, values)
        rows = tx.rows(sql.GUARD, place.at())
    erased_at, active, stored_print, stored_config, generation, keys, next_space, *identity = rows[0]
    if erased_at is not None:
        assert place.scope.tenant is not None
        refuse_erased(place.scope.tenant, erased_at)
    if (holds := EmbedSpace(*identity)) != space:
        refuse_space(f"collection {place.collection!r}", holds, space)
    if text_config is not None and text_config != stored_config:
        keeps = "no full text" if stored_config is None else f"full text as {stored_config!r}"
        raise InvalidInput(
            f"collection {place.collection!r} keeps {keeps}, not {text_config!r}, since it was made; "
            f"leave text_config out, or change it for all chunks: "
            f"tenant.set_text_config({place.collection!r}, {text_config!r})"
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
                f"collection {place.collection!r} has no indexed key {list(key.path)} of type {key.type}; add it by "
                "tenant.index_key, or leave indexed_keys out"
            )


def known_text_config(tx: Transaction, text_config: str) -> str:
    """The name of a text search configuration that this server has. Raises InvalidInput."""
    found = tx.rows(sql.KNOWN_TEXT_CONFIG, {"text_config": text_config})
    if not found:
        raise InvalidInput(
            f"text_config is {text_config!r}; this server has no such text search configuration (see pg_ts_config)"
        )
    return str(found[0][0])


def refuse_space(what: str, holds: EmbedSpace, given: EmbedSpace | EmbedModel) -> NoReturn:
    """Raise EmbedSpaceMismatch: what "collection 'x'" or such holds, what came, what to do."""
    kind = what.partition(" ")[0]
    if kind == "collection":
        todo = (
            "If it was embedded anew since, go on with that space and its model: tenant.vectors(name, space, embed=…). "
            "Else embed with the collection's model, or have all of it embedded anew by yours: tenant.reembed"
        )
    else:
        todo = f"Embed with the {kind}'s model, or embed it all anew"
    raise EmbedSpaceMismatch(f"{what} holds vectors of {holds}, but these are of {given}. {todo}")


def check_fingerprint(what: str, space: EmbedSpace, stored: list[float], fingerprint: Vector) -> None:
    """Raise FingerprintMismatch if the model gives the fingerprint text another vector than before."""
    cosine = guards.same_model(fingerprint, stored)
    if not cosine >= guards.FINGERPRINT_COSINE:
        raise FingerprintMismatch(
            f"the embedding function for {what} calls itself {space}, but gives a known text another vector "
            f"than when the first were stored (cosine {cosine:.4f}, expected at least {guards.FINGERPRINT_COSINE}). "
            "The model was changed under its name: use the old one, or embed what is stored anew, as another space"
        )


def collections(gate: Gate, scope: Scope, name: str | None = None) -> list[CollectionInfo]:
    """The tenant's collections, or the one of this name."""
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
    """Delete a collection with everything in it. Raises NotFound."""

    def body() -> DeleteReport:
        with gate.transaction(place.scope, "collection drop") as tx:
            if not tx.rows(deletes.LOCK_COLLECTION, place.at()):
                raise NotFound(f"collection {place.collection!r} does not exist")
            return DeleteReport(**_rows({k: tx.count(s, place.at()) for k, s in deletes.COLLECTION.items()}))

    return gate.retrying(body)


def _rows(counts: dict[str, int]) -> dict[str, int]:
    """The counts without the entries of indexed keys, which are no rows of a caller's."""
    return {table: count for table, count in counts.items() if table != "keys"}


def clear_collection(gate: Gate, place: Place) -> DeleteReport:
    """Delete what is in a collection, which stays; one that is not there is empty."""

    def body() -> DeleteReport:
        with gate.transaction(place.scope, "collection clear") as tx:
            if not tx.rows(deletes.LOCK_COLLECTION, place.at()):
                return DeleteReport()
            emptied = {k: s for k, s in deletes.COLLECTION.items() if k not in deletes.STAYS}
            return DeleteReport(**_rows({k: tx.count(s, place.at()) for k, s in emptied.items()}))

    return gate.retrying(body)


def create_tenant(gate: Gate, scope: Scope, *, reopen: bool) -> bool:
    """Register a tenant; True where it is new (or reopened). Raises TenantErased unless `reopen`."""
    values = {"tenant": scope.tenant}
    with gate.transaction(scope, "tenant create") as tx:
        made = tx.count(sql.ADD_TENANT, values)
        if reopen:
            made += tx.count(sql.REOPEN_TENANT, values)
        [(erased_at,)] = tx.rows(sql.LOCK_TENANT, values)
        if erased_at is not None:
            assert scope.tenant is not None
            refuse_erased(scope.tenant, erased_at)
    return bool(made)


def tenants(gate: Gate, scope: Scope) -> list[TenantInfo]:
    """Every tenant, tombstones included; needs the maintenance role."""
    with gate.transaction(scope, "tenants") as tx:
        return [TenantInfo(*row) for row in tx.last(sql.TENANTS, {})]


def tenant(gate: Gate, scope: Scope) -> TenantInfo | None:
    """What the registry says of the scope's own tenant."""
    rows = gate.read(scope, "tenant", lambda tx: tx.last(sql.TENANT, {"tenant": scope.tenant}))
    return TenantInfo(*rows[0]) if rows else None


def space_use(gate: Gate, across: Scope) -> dict[int, SpaceUse]:
    """What uses each space, by its number; a space that nothing uses is left out. Needs the maintenance role."""
    with gate.transaction(across, "space use") as tx:
        return {number: SpaceUse(*counts) for number, *counts in tx.last(sql.SPACE_USE, {})}


def spaces(gate: Gate, scope: Scope) -> list[SpaceInfo]:
    """The registry of spaces."""
    with gate.transaction(scope, "spaces") as tx:
        return [SpaceInfo(r[0], EmbedSpace(*r[1:5]), r[5]) for r in tx.last(sql.SPACES, {})]
