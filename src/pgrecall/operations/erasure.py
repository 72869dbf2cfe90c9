"""Erases and exports everything about a tenant or a subject, and sweeps what has expired, across all tables."""

from __future__ import annotations

import hashlib
import inspect
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeAlias

from pgrecall.errors import ConfigurationError, InvalidInput
from pgrecall.facts import Erasure, ErasureReport, SweepReport
from pgrecall.operations import tombstones
from pgrecall.operations.memory.trail import Trail, now
from pgrecall.postgres.transactions import Gate, Scope, Transaction
from pgrecall.schema import ACTORS, DUE, SUBJECTS, TRAIL
from pgrecall.statements import erasure as sql
from pgrecall.statements import facts as fact_sql
from pgrecall.statements import tombstones as tombstone_sql

#: Called after an erasure, so that the application can erase data outside of pgrecall. May be async in async calls.
Hook: TypeAlias = Callable[[Erasure], Any]

#: Rows of an export that are read at once.
PAGE = 500


@dataclass(frozen=True, slots=True)
class Trails:
    """Access to a tenant's audit trail, which only the maintenance role may change."""

    gate: Gate
    scope: Scope


def erase_tenant(gate: Gate, scope: Scope, trails: Callable[[], Trails]) -> ErasureReport:
    """Delete a tenant's data and leave a tombstone. Its audit trail keeps ids and salted hashes."""
    _open_trail(gate, scope, None, trails)

    def body() -> ErasureReport:
        values = {"tenant": scope.tenant}
        with gate.transaction(scope, "tenant delete") as tx:
            tx.count(tombstone_sql.ERASE_TENANT, values)
            deleted = {name: tx.count(sql.delete(name, subject=False), values) for name in sql.TENANTS_OWN}
            return ErasureReport(deleted, _remaining(tx, sql.TENANTS_OWN, values, subject=False))

    report = gate.retrying(body)
    return _stripped(report, gate, scope, None, trails, secrets.token_bytes(16))


def erase_subject(
    gate: Gate, scope: Scope, subject: str, actor: str, reason: str | None, trails: Callable[[], Trails]
) -> ErasureReport:
    """Delete a subject's data and leave a tombstone. Its audit trail keeps ids and salted hashes."""
    _open_trail(gate, scope, subject, trails)
    salt = secrets.token_bytes(16)
    pseudonym = hashlib.sha256(salt + subject.encode()).hexdigest()
    values = {"tenant": scope.tenant, "subject": subject}

    def body() -> ErasureReport:
        with gate.transaction(scope, "subject erase") as tx:
            if not tx.rows(tombstone_sql.LOCK_OUT_WRITERS, values):
                return ErasureReport(dict.fromkeys(sql.SUBJECTS_OWN, 0), dict.fromkeys(sql.SUBJECTS_OWN, 0))
            tx.count(tombstone_sql.ADD_TOMBSTONE, {**values, "salt": secrets.token_bytes(16)})
            deleted = {name: tx.count(sql.delete(name, subject=True), values) for name in sql.SUBJECTS_OWN}
            for name in ACTORS:
                tx.count(sql.rename_actor(name), {**values, "pseudonym": pseudonym})
            nobody = {n: int(tx.rows(sql.count_without_subject(n), values)[0][0]) for n in SUBJECTS}
            trail = Trail(pseudonym if actor == subject else actor, reason)
            trail.add("erase_subject", None, pseudonym, {"deleted": deleted})
            tx.rows(*trail.write(scope.tenant, now(tx)))
            return ErasureReport(deleted, _remaining(tx, sql.SUBJECTS_OWN, values, subject=True), nobody)

    report = gate.retrying(body)
    return _stripped(report, gate, scope, subject, trails, salt)


def reopen_subject(gate: Gate, scope: Scope, subject: str, actor: str, reason: str | None) -> bool:
    """Remove a subject's tombstone; returns whether there was one."""

    def body() -> bool:
        with gate.transaction(scope, "subject reopen") as tx:
            values = {"tenant": scope.tenant, "subject": subject}
            tx.rows(*tombstones.tenant_lock(scope))
            lifted = tx.count(tombstone_sql.LIFT_TOMBSTONE, values)
            if lifted:
                trail = Trail(actor, reason)
                trail.add("reopen_subject", None, subject)
                tx.rows(*trail.write(scope.tenant, now(tx)))
            return bool(lifted)

    return gate.retrying(body)


def _remaining(tx: Transaction, names: Sequence[str], values: dict[str, Any], *, subject: bool) -> dict[str, int]:
    """Count the rows that are left. Raises ConfigurationError if there are any, so that nothing is deleted."""
    counts = tx.many([(sql.count(name, subject=subject), values) for name in names])
    left = {name: int(rows[0][0]) for name, rows in zip(names, counts, strict=True)}
    if any(left.values()):
        some = ", ".join(f"{n:,} of {name}" for name, n in left.items() if n)
        raise ConfigurationError(
            f"the erasure left rows behind ({some}), so it was rolled back and nothing was deleted. "
            "Run `pgrecall doctor` to find out why"
        )
    return left


def _unstripped(gate: Gate, scope: Scope, subject: str | None) -> int:
    with gate.transaction(scope, "trail") as tx:
        return int(tx.last(sql.UNSTRIPPED, {"tenant": scope.tenant, "subject": subject})[0][0])


def _open_trail(gate: Gate, scope: Scope, subject: str | None, trails: Callable[[], Trails]) -> None:
    """Check before an erasure that the audit trail, if any, can be stripped. Raises ConfigurationError."""
    if not _unstripped(gate, scope, subject):
        return
    try:
        opened = trails()
        with opened.gate.transaction(opened.scope, "trail") as tx:
            tx.begin()
    except ConfigurationError as exc:
        raise ConfigurationError(
            "an erasure strips the audit trail, which requires the maintenance login; nothing was erased. Pass "
            f"connect(…, maintenance_url=…), or set PGRECALL_MAINTENANCE_URL ({exc})"
        ) from exc


def _stripped(
    report: ErasureReport, gate: Gate, scope: Scope, subject: str | None, trails: Callable[[], Trails], salt: bytes
) -> ErasureReport:
    """Strip the audit trail and return the report. If a crash prevents it, repeating the erasure strips the trail."""
    if not _unstripped(gate, scope, subject):
        return report
    opened = trails()
    with opened.gate.transaction(opened.scope, "trail strip") as tx:
        values = {"tenant": scope.tenant, "subject": subject, "salt": salt}
        stripped = tx.count(sql.STRIP, values)
    return ErasureReport(
        report.deleted,
        {**report.remaining, TRAIL: _unstripped(gate, scope, subject)},
        report.without_subject,
        stripped,
    )


def call_hooks(gate: Gate, hooks: Sequence[Hook], erased: Erasure, report: ErasureReport) -> ErasureReport:
    """Call every hook and return the report. The report lists hooks that fail; the others are called nevertheless."""
    failed = {}
    for hook in hooks:
        name = getattr(hook, "__qualname__", None) or repr(hook)
        try:
            result = hook(erased)
            if inspect.isawaitable(result):
                if not gate.is_async:
                    if inspect.iscoroutine(result):
                        result.close()
                    raise InvalidInput(
                        "the hook is asynchronous, but the call is not; call the a… method, or use a synchronous hook"
                    )
                gate.wait(result)
        except Exception as exc:  # noqa: BLE001 -- the report has the errors of hooks, whatever they are
            failed[name] = f"{type(exc).__name__}: {exc}"
    return ErasureReport(report.deleted, report.remaining, report.without_subject, report.events, failed)


# Export

#: Where an export continues: the table, and the key of its last exported row (None for its start). None at the end.
ExportKey: TypeAlias = tuple[str, dict[str, Any] | None] | None
Page: TypeAlias = tuple[list[str], ExportKey]
EXPORT_START: ExportKey = (sql.EXPORTED[0], None)


def export_head(tenant: str, subject: str) -> str:
    """The first line of an export."""
    about = {"tenant": tenant, "subject": subject, "exported_at": datetime.now(UTC).isoformat()}
    return json.dumps({"format": "pgrecall-subject", "version": 1, **about}, ensure_ascii=False)


def export_page(gate: Gate, scope: Scope, subject: str, start: ExportKey) -> Page:
    """The next lines of the export, one row each, and where it continues."""
    assert start is not None
    name, after = start
    values = {"tenant": scope.tenant, "subject": subject, "limit": PAGE}
    values |= {f"after_{column}": value for column, value in (after or {}).items()}
    with gate.transaction(scope, "export") as tx:
        rows = tx.last(sql.export(name, first=after is None), values)
    lines = [f'{{"table": "{name}", "row": {row[-1]}}}' for row in rows]
    if len(rows) == PAGE:
        return lines, (name, dict(zip(sql.page_key(name), rows[-1], strict=False)))
    following = sql.EXPORTED[sql.EXPORTED.index(name) + 1 :]
    return lines, (following[0], None) if following else None


# Sweeps


def sweep(gate: Gate, across: Scope, of_tenant: Callable[[str], Scope], *, batch: int, dry_run: bool) -> SweepReport:
    """Delete expired rows, and deleted facts whose grace period has passed. Several sweeps may run concurrently."""
    purged: dict[str, int] = {}
    touched = set()
    for name, columns in DUE.items():
        for column, action in columns.items():
            with gate.transaction(across, "sweep look") as tx:
                tenants = [row[0] for row in tx.last(sql.tenants_due(name, column), {})]
            for tenant in tenants:
                clean = _count_due if dry_run else partial(_sweep, action=action, batch=batch)
                counts = clean(gate, of_tenant(tenant), name, column)
                if counts[name]:
                    touched.add(tenant)
                for table, count in counts.items():
                    purged[table] = purged.get(table, 0) + count
    return SweepReport({name: purged.get(name, 0) for name in DUE} | purged, len(touched), dry_run)


def _count_due(gate: Gate, scope: Scope, name: str, column: str) -> dict[str, int]:
    with gate.transaction(scope, "sweep count") as tx:
        return {name: int(tx.last(sql.count_due(name, column), {"tenant": scope.tenant})[0][0])}


def _sweep(gate: Gate, scope: Scope, name: str, column: str, *, action: Any, batch: int) -> dict[str, int]:
    counts = dict.fromkeys((name, *sql.swept(name)), 0)
    values = {"tenant": scope.tenant, "batch": batch}

    def body() -> list[Any]:
        with gate.transaction(scope, "sweep") as tx:
            # Locked as every writer does, so that an erasure waits for this batch and its events.
            held = tombstones.tenant_lock(scope)
            _, gone, [(at,)] = tx.many([held, (sql.sweep(name, column), values), (fact_sql.NOW, {})])
            if gone and action is not None:
                trail = Trail("sweep")
                for fact_id, subject, *_ in gone:
                    trail.add(action, fact_id, subject)
                tx.many([trail.write(scope.tenant, at)], commit=True)
            return gone

    while True:
        gone = gate.retrying(body)
        counts[name] += len(gone)
        for table, count in zip(sql.swept(name), gone[0][2:] if gone else (), strict=False):
            counts[table] += count
        if len(gone) < batch:
            return counts
