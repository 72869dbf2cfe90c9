"""The one place that locks a tenant's row for a write, and that refuses erased tenants and subjects.

Every write locks its tenant's row FOR SHARE first. The deletion of the tenant and the erasure of a subject wait for
that lock. A later write finds their tombstone here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias

from pgrecall.errors import SubjectErased, TenantErased, UnknownTenant
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Rows, Scope, Transaction
from pgrecall.statements import tombstones as sql

Statement: TypeAlias = tuple[str, dict[str, Any]]


def tenant_lock(scope: Scope) -> Statement:
    """The statement that locks the tenant's row FOR SHARE. Returns `erased_at`, or no row if the tenant is new."""
    return sql.LOCK_TENANT, {"tenant": scope.tenant}


def ensure_tenant(tx: Transaction, scope: Scope, *, create: bool) -> None:
    """Lock the tenant's row FOR SHARE, creating it if `create`.

    Raises: TenantErased; UnknownTenant if the tenant does not exist and `create` is false.
    """
    rows = tx.rows(*tenant_lock(scope))
    if not rows and not create:
        raise UnknownTenant(
            f"tenant {scope.tenant!r} does not exist, and this database does not create tenants on first write; call "
            "create_tenant first"
        )
    if not rows:
        tx.count(sql.ADD_TENANT, {"tenant": scope.tenant})
        rows = tx.rows(*tenant_lock(scope))
    refuse_erased_tenant(scope, rows[0][0])


def refuse_erased_tenant(scope: Scope, erased_at: datetime | None) -> None:
    """Raise TenantErased if the tenant was deleted at some time."""
    if erased_at is not None:
        raise TenantErased(
            f"tenant {scope.tenant!r} was deleted at {erased_at:%Y-%m-%d %H:%M:%S %Z}; nothing was written. "
            "To use the name again, call create_tenant(name, reopen=True)"
        )


def subject_tombstones(scope: Scope, subjects: Sequence[str]) -> Statement:
    """The statement that finds tombstones of subjects. It must follow the tenant's lock, as a statement of its own."""
    return sql.ERASED_SUBJECTS, {"tenant": scope.tenant, "subjects": wire.text_array(subjects)}


def refuse_erased_subjects(rows: Rows) -> None:
    """Raise SubjectErased if the statement of `subject_tombstones` returned any rows."""
    for _, erased_at in rows:
        # The message does not name the subject, because it may be logged, and the subject was erased.
        raise SubjectErased(
            f"this subject was erased at {erased_at:%Y-%m-%d %H:%M:%S %Z}; nothing was written. "
            "To store data about it again, call tenant.reopen_subject(subject)"
        )
