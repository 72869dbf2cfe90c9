"""Filters: whether those on large collections may use an index under row-level security."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgrecall.doctor.findings import Check, Finding
from pgrecall.errors import PgRecallError
from pgrecall.statements import doctor as sql

if TYPE_CHECKING:
    from pgrecall.stores.database import Database

#: Chunks of a collection that a filter reads in some 10 to 20 ms.
SLOW_CHUNKS = 20_000


def check_filters(database: Database) -> Iterator[Finding]:
    """Whether a filter on a large collection reads all of its chunks, which only a login for maintenance can count."""
    check = Check("filters", f"an index for filters on collections of more than {SLOW_CHUNKS:,} chunks")
    try:
        with database.backend.engines.sync_gate().bare() as tx:
            [(marked,)] = tx.rows(sql.LEAKPROOF, {})
        if marked:
            yield check.ok("jsonb_contains is LEAKPROOF: filters use the metadata's index")
            return
        gate = database.backend.maintenance_gate()
        with gate.transaction(database.backend.maintenance_scope(gate), "doctor filters") as tx:
            slow = tx.rows(sql.WITHOUT_KEYS, {"most": SLOW_CHUNKS})
    except PgRecallError:
        return
    if not slow:
        yield check.ok("no collection without an indexed key is so large that reading it is slow")
        return
    tenant, collection, chunks = slow[0]
    yield check.bad(
        "warn",
        f"each filter on {len(slow)} large collections reads all of their chunks (the largest: {collection!r} of "
        f"tenant {tenant!r}, {chunks:,})",
        "pgrecall db tune, as a superuser, after a restore too; elsewhere, for keys that filters name: "
        "pgrecall collections index-key COLLECTION KEY:TYPE",
    )
