"""Erasing, exporting and sweeping: everything of a tenant, of a subject, or that is due, whichever table has it."""

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
from pgrecall.operations.memory.trail import Trail, now
from pgrecall.postgres.transactions import Gate, Scope, Transaction
from pgrecall.schema import ACTORS, DUE, SUBJECTS, TRAIL
from pgrecall.statements import erasure as sql
from pgrecall.statements import facts as fact_sql
from pgrecall.statements import registry as registry_sql

#: Called after an erasure with what was erased, in the caller's mode: for what lives elsewhere.
Hook: TypeAlias = Callable[[Erasure], Any]

#: Lines of an export that are read at once.
PAGE = 500


@dataclass(frozen=True, slots=True)
class Trails:
    """How the trail of a tenant is reached: only the maintenance role may alter it."""

    gate: Gate
    scope: Scope


def erase_tenant(gate: Gate, scope: Scope, trails: Callable[[], Trails]) -> ErasureReport:
    """Delete everything of a tenant and leave a tombstone; its trail keeps ids and salted hashes."""
    _open_trail(gate, scope, None, trails)

    def body() -> ErasureReport:
        values = {"tenant": scope.tenant}
        with gate.transaction(scope, "tenant delete") as tx:
            tx.count(sql.ERASE_TENANT, values)
            deleted = {name: tx.count(sql.delete(name, subject=False), values) for name in sql.TENANTS_OWN}
            return ErasureReport(deleted, _remaining(tx, sql.TENANTS_OWN, values, subject=False))

    report = gate.retrying(body)
    return _stripped(report, gate, scope, None, trails, secrets.token_bytes(16))


def erase_subject(
    gate: Gate, scope: Scope, subject: str, actor: str, reason: str | None, trails: Callable[[], Trails]
) -> ErasureReport:
    """Delete everything of a subject and leave a tombstone; its trail keeps ids and salted hashes."""
    _open_trail(gate, scope, subject, trails)
    salt = secrets.token_bytes(16)
    pseudonym = hashlib.sha256(salt + subject.encode()).hexdigest()
    values = {"tenant": scope.tenant, "subject": subject}

    def body() -> ErasureReport:
        with gate.transaction(scope, "subject erase") as tx:
            if not tx.rows(sql.LOCK_TENANT, values):
                return ErasureReport(dict.fromkeys(sql.SUBJECTS_OWN, 0), dict.fromkeys(sql.SUBJECTS_OWN, 0))
            tx.count(sql.ADD_TOMBSTONE, {**values, "salt": secrets.token_bytes(16)})
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
    """Lift a subject's tombstone; True where there was one."""

    def body() -> bool:
        with gate.transaction(scope, "subject reopen") as tx:
            values = {"tenant": scope.tenant, "subject": subject}
            tx.rows(registry_sql.LOCK_TENANT, values)
            lifted = tx.count(sql.LIFT_TOMBSTONE, values)
            if lifted:
                trail = Trail(actor, reason)
                trail.add("reopen_subject", None, subject)
                tx.rows(*trail.write(scope.tenant, now(tx)))
            return bool(lifted)

    return gate.retrying(body)


def _remaining(tx: Transaction, names: Sequence[str], values: dict[str, Any], *, subject: bool) -> dict[str, int]:
    """What is left, counted. Raises ConfigurationError where anything is: nothing was deleted then."""
    counts = tx.many([(sql.count(name, subject=subject), values) for name in names])
    left = {name: int(rows[0][0]) for name, rows in zip(names, counts, strict=True)}
    if any(left.values()):
        some = ", ".join(f"{n:,} of {name}" for name, n in left.items() if n)
        raise ConfigurationError(f"rows could not be deleted: {some}; nothing was. Run `pgrecall doctor`")
    return left


def _unstripped(gate: Gate, scope: Scope, subject: str | None) -> int:
    with gate.transaction(scope, "trail") as tx:
        return int(tx.last(sql.UNSTRIPPED, {"tenant": scope.tenant, "subject": subject})[0][0])


def _open_trail(gate: Gate, scope: Scope, subject: str | None, trails: Callable[[], Trails]) -> None:
    """Before anything is erased, see that the trail, if there is one, can be stripped. Raises ConfigurationError."""
    if not _unstripped(gate, scope, subject):
        return
    try:
        opened = trails()
        with opened.gate.transaction(opened.scope, "trail") as tx:
            tx.begin()
    except ConfigurationError as exc:
        raise ConfigurationError(
            "an erasure strips the trail of events, which only the login for maintenance may: connect(…, "
            f"maintenance_url=…), or PGRECALL_MAINTENANCE_URL. Nothing was erased ({exc})"
        ) from exc


def _stripped(
    report: ErasureReport, gate: Gate, scope: Scope, subject: str | None, trails: Callable[[], Trails], salt: bytes
) -> ErasureReport:
    """The report, after the trail was stripped. What a crash before it left is stripped when it is called again."""
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
    """The report, after every hook was called; one that fails is told, and keeps no other from being called."""
    failed = {}
    for hook in hooks:
        name = getattr(hook, "__qualname__", None) or repr(hook)
        try:
            result = hook(erased)
            if inspect.isawaitable(result):
                if not gate.is_async:
                    if inspect.iscoroutine(result):
                        result.close()
                    raise InvalidInput("the hook is asynchronous; call the a… method, or register a synchronous one")
                gate.wait(result)
        except Exception as exc:  # noqa: BLE001 -- whatever a hook raises is the report's to tell
            failed[name] = f"{type(exc).__name__}: {exc}"
    return ErasureReport(report.deleted, report.remaining, report.without_subject, report.events, failed)


# Export

#: Where an export goes on: the table, and the key of the row before (None: from its first row). None: it is done.
ExportKey: TypeAlias = tuple[str, dict[str, Any] | None] | None
Page: TypeAlias = tuple[list[str], ExportKey]
EXPORT_START: ExportKey = (sql.EXPORTED[0], None)


def export_head(tenant: str, subject: str) -> str:
    """The first line of an export."""
    about = {"tenant": tenant, "subject": subject, "exported_at": datetime.now(UTC).isoformat()}
    return json.dumps({"format": "pgrecall-subject", "version": 1, **about}, ensure_ascii=False)


def export_page(gate: Gate, scope: Scope, subject: str, start: ExportKey) -> Page:
    """Lines of one table, a row each, and where the export goes on."""
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
    """Delete what expired, and what was forgotten longer ago than its grace time; several may run at once."""
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
            # Held as every writer holds it: an erasure waits for this batch and its events.
            held = (registry_sql.LOCK_TENANT, values)
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
