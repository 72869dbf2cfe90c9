"""The read replica: whether it answers, and how far it has replayed the log."""

from __future__ import annotations

from pgrecall.doctor.findings import Check, Finding
from pgrecall.errors import PgRecallError
from pgrecall.postgres.engines import Engines
from pgrecall.statements.replicas import STATE


def check_replica(replica: Engines) -> Finding:
    """Whether reads can go to the replica."""
    check = Check("read replica", "a streaming replica that answers to the application's login")
    try:
        with replica.sync_gate().bare() as tx:
            [(recovering, replayed, age)] = tx.rows(STATE, {})
    except PgRecallError as exc:
        return check.bad("warn", f"{exc}; every read goes to the primary", "correct PGRECALL_READ_URL, or start it")
    if not recovering:
        return check.bad(
            "warn",
            "PGRECALL_READ_URL is not a replica: it was promoted, or is the primary",
            "set it to a replica, or unset it",
        )
    since = "" if age is None else f"; the last replayed commit is {age:,.0f} s old"
    return check.ok(f"replayed up to {replayed}{since}")
