"""Operations on runs: compare-and-set of their state, ordered events, pruning; one body for sync and async."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pgrecall.arguments import MAX_ID_BYTES, MAX_NAME_BYTES, check_text
from pgrecall.errors import Conflict, InvalidInput, NotFound, RunConflict
from pgrecall.jsonable import json_object
from pgrecall.operations import tombstones
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Gate, Scope, Transaction
from pgrecall.runs import RunEvent, RunState
from pgrecall.statements import runs as sql

#: The most bytes of a state as JSON, unless a store says otherwise.
MAX_STATE_BYTES = 1_000_000
#: Runs that are deleted per transaction.
BATCH = 500


@dataclass(frozen=True, slots=True)
class RunPlace:
    """One tenant's runs, and the options for writing them. `max_bytes` limits a state, and an event's data."""

    scope: Scope
    create_tenants: bool
    ttl: timedelta | None = None
    max_bytes: int = MAX_STATE_BYTES

    def at(self, run_id: str, **values: Any) -> dict[str, Any]:
        """Parameters of a statement about a run."""
        return {"tenant": self.scope.tenant, "run": run_id, **values}


def sized_json(value: object, what: str, max_bytes: int) -> str:
    """Serialize a mapping as JSON. Raises InvalidInput, also if it is larger than `max_bytes`."""
    text = json_object(value, what)
    size = len(text) if text.isascii() else len(text.encode())
    if size > max_bytes:
        raise InvalidInput(
            f"{what} has {size:,} bytes as JSON; expected at most {max_bytes:,}. Store large values elsewhere and put "
            "references here, or raise the limit: runs(max_state_bytes=…)"
        )
    return text


def check_state(run: object) -> RunState:
    """Validate a run's state. Raises InvalidInput."""
    if not isinstance(run, RunState):
        raise InvalidInput(f"a run's state is {type(run).__name__}; expected pgrecall.RunState")
    check_text(run.run_id, "run_id", MAX_ID_BYTES)
    check_text(run.status, "status", MAX_NAME_BYTES)
    if run.subject is not None:
        check_text(run.subject, "subject", MAX_ID_BYTES)
    version = run.state_version
    if version is not None and (isinstance(version, bool) or not isinstance(version, int) or not 0 <= version < 2**62):
        raise InvalidInput(
            f"state_version is {version!r:.40}; expected the version that was read, 0 for a new run, or None"
        )
    return run


def put(gate: Gate, place: RunPlace, run: RunState) -> RunState:
    """Store a run's state if the stored version is still the one that was read; returns it as stored.

    Raises: RunConflict, InvalidInput, SubjectErased, TenantErased, UnknownTenant, Conflict.
    """
    name = f"run {run.run_id!r:.80}"
    statement = sql.PUT_NEXT if run.state_version else sql.PUT_NEW
    values = place.at(
        run.run_id,
        subject=run.subject,
        status=run.status,
        state=sized_json(run.state, f"the state of {name}", place.max_bytes),
        metadata=sized_json(run.metadata, f"the metadata of {name}", place.max_bytes),
        expected=run.state_version,
        ttl=place.ttl,
        expires_at=run.expires_at,
    )

    def body() -> RunState:
        with gate.transaction(place.scope, "run put") as tx:
            rows = tx.many([tombstones.tenant_lock(place.scope), (statement, values)], commit=True)[-1]
        if not rows:
            with gate.transaction(place.scope, "run put") as tx:
                _prepare_put(tx, place, run)
                rows = tx.last(statement, values)
        if not rows:
            raise Conflict(f"{name} was written or deleted concurrently; nothing was written. Repeat the call")
        return RunState(*rows[0])

    return gate.retrying(body)


def _prepare_put(tx: Transaction, place: RunPlace, run: RunState) -> None:
    """Find out why a put wrote no row, and prepare a second attempt or raise.

    Creates a new tenant, and deletes an expired run.
    """
    tombstones.ensure_tenant(tx, place.scope, create=place.create_tenants)
    if run.subject is not None:
        tombstones.refuse_erased_subjects(tx.rows(*tombstones.subject_tombstones(place.scope, [run.subject])))
    found = _lock(tx, place, run.run_id)
    expected = run.state_version
    if found is None:
        if expected:
            raise RunConflict(
                f"run {run.run_id!r:.80} does not exist or was deleted, but this put is based on version {expected}; "
                "to create it, put it with state_version=0",
                expected=expected,
            )
        return
    version, subject = found
    if run.subject is not None and subject not in (None, run.subject):
        raise InvalidInput(
            f"run {run.run_id!r:.80} belongs to another subject than {run.subject!r:.80}; nothing was written. "
            "Use a different run_id for this subject"
        )
    if expected is not None and version != expected:
        raise RunConflict(
            f"run {run.run_id!r:.80} is at version {version}, but this put is based on version {expected}; nothing "
            "was written. Read the run again with get, and reapply the change",
            expected=expected,
            found=version,
        )


def _lock(tx: Transaction, place: RunPlace, run_id: str) -> tuple[int, str | None] | None:
    """Lock a run's row and return its version and subject, or None if it does not exist. Deletes an expired run."""
    rows = tx.rows(sql.LOCK, place.at(run_id))
    if not rows:
        return None
    version, subject, expired = rows[0]
    if expired:
        _delete(tx, place, [run_id])
        return None
    return version, subject


def get(gate: Gate, place: RunPlace, run_id: str) -> RunState | None:
    """A run's state, or None if it does not exist."""
    rows = gate.read(place.scope, "run get", lambda tx: tx.last(sql.GET, place.at(run_id)))
    return RunState(*rows[0]) if rows else None


def listing(gate: Gate, place: RunPlace, where: sql.RunFilters, values: dict[str, Any]) -> list[RunState]:
    """Matching runs, the most recently written first."""
    bound = {"tenant": place.scope.tenant, **values, **where.values()}
    rows = gate.read(place.scope, "run list", lambda tx: tx.last(sql.listing(where), bound))
    return [RunState(*row) for row in rows]


def count(gate: Gate, place: RunPlace, where: sql.RunFilters, values: dict[str, Any]) -> int:
    """The number of matching runs."""
    bound = {"tenant": place.scope.tenant, **values, **where.values()}
    [(count,)] = gate.read(place.scope, "run count", lambda tx: tx.last(sql.count(where), bound))
    return int(count)


def next_seq(tx: Transaction, place: RunPlace, run_id: str) -> tuple[int, datetime]:
    """Lock a run until the transaction ends, creating it if it is new; returns its next `seq`, and the time.

    Raises: TenantErased, UnknownTenant, Conflict.
    """
    touch = (sql.TOUCH, place.at(run_id, ttl=place.ttl))
    taken = tx.many([tombstones.tenant_lock(place.scope), touch])[-1]
    if not taken:
        tombstones.ensure_tenant(tx, place.scope, create=place.create_tenants)
        if _lock(tx, place, run_id) is None:
            tx.count(sql.ADD, place.at(run_id))
        taken = tx.rows(*touch)
    if not taken:
        raise Conflict(f"run {run_id!r:.80} was deleted concurrently; nothing was written. Repeat the call")
    return taken[0][0], taken[0][1]


def append_event(gate: Gate, place: RunPlace, run_id: str, kind: str, data: Any) -> RunEvent:
    """Append an event to a run."""
    text = sized_json(data, f"the data of an event of run {run_id!r:.80}", place.max_bytes)

    def body() -> RunEvent:
        with gate.transaction(place.scope, "run event") as tx:
            seq, now = next_seq(tx, place, run_id)
            tx.last(sql.ADD_EVENT, place.at(run_id, seq=seq, kind=kind, data=text, now=now))
            return RunEvent(run_id, seq, kind, data, now)

    return gate.retrying(body)


def events(gate: Gate, place: RunPlace, run_id: str, *, after: int, limit: int | None) -> list[RunEvent]:
    """A run's events after a `seq`, in order."""
    values = place.at(run_id, after=after, limit=limit)
    rows = gate.read(place.scope, "run events", lambda tx: tx.last(sql.EVENTS, values))
    return [RunEvent(run_id, *row) for row in rows]


def follow(gate: Gate, place: RunPlace, run_id: str, after: int) -> tuple[str | None, list[RunEvent]]:
    """A run's status (None if it does not exist), and its events after a `seq`."""
    # The status is read first, so that all events from before the run became final are included.
    work = [(sql.GET, place.at(run_id)), (sql.EVENTS, place.at(run_id, after=after, limit=None))]
    found, rows = gate.read(place.scope, "run follow", lambda tx: tx.many(work, commit=True))
    return (found[0][2] if found else None), [RunEvent(run_id, *row) for row in rows]


def prune(gate: Gate, place: RunPlace, values: dict[str, Any]) -> int:
    """Delete runs that have not been written for long, in batches; returns how many."""
    gone = 0

    def body() -> int:
        with gate.transaction(place.scope, "run prune") as tx:
            rows = tx.rows(sql.PRUNABLE, {"tenant": place.scope.tenant, "batch": BATCH, **values})
            if rows:
                _delete(tx, place, [row[0] for row in rows])
            return len(rows)

    while batch := gate.retrying(body):
        gone += batch
    return gone


def delete(gate: Gate, place: RunPlace, run_id: str) -> dict[str, int]:
    """Delete a run with its events and evidence; returns the number of rows by table. Raises NotFound."""

    def body() -> dict[str, int] | None:
        with gate.transaction(place.scope, "run delete") as tx:
            held = tx.rows(sql.LOCK, place.at(run_id))
            counts = _delete(tx, place, [run_id]) if held else {}
            return counts if any(not row[2] for row in held) else None

    counts = gate.retrying(body)
    if counts is None:
        raise NotFound(f"run {run_id!r:.80} does not exist")
    return counts


def _delete(tx: Transaction, place: RunPlace, run_ids: Sequence[str]) -> dict[str, int]:
    """Delete runs whose rows are locked, leaf tables first; returns the number of rows by table."""
    values = {"tenant": place.scope.tenant, "runs": wire.text_array(run_ids)}
    gone = tx.many([(statement, values) for statement in sql.DELETE.values()])
    return {table: len(rows) for table, rows in zip(sql.DELETE, gone, strict=True)}
