"""Filters: whether those on large collections can use an index under row-level security."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pgrecall.doctor.findings import Check, Finding
from pgrecall.errors import PgRecallError
from pgrecall.statements import doctor as sql

if TYPE_CHECKING:
    from pgrecall.stores.database import Database

#: The number of chunks that a filter reads in 10 to 20 ms.
SLOW_CHUNKS = 20_000


def check_filters(database: Database) -> Iterator[Finding]:
    """Whether a filter on a large collection reads all of its chunks. Counting them requires a maintenance login."""
    check = Check("filters", f"an index for filters on collections of more than {SLOW_CHUNKS:,} chunks")
    try:
        with database.backend.engines.sync_gate().bare() as tx:
            [(marked,)] = tx.rows(sql.LEAKPROOF, {})
        if marked:
            yield check.ok("jsonb_contains is LEAKPROOF, so filters use the index on metadata")
            return
        gate = database.backend.maintenance_gate()
        with gate.transaction(database.backend.maintenance_scope(gate), "doctor filters") as tx:
            slow = tx.rows(sql.WITHOUT_KEYS, {"most": SLOW_CHUNKS})
    except PgRecallError:
        return
    if not slow:
        yield check.ok("every large collection has an indexed key")
        return
    tenant, collection, chunks = slow[0]
    yield check.bad(
        "warn",
        f"filters on {len(slow)} large collections read all of their chunks (the largest: {collection!r} of tenant "
        f"{tenant!r}, {chunks:,} chunks)",
        "as a superuser, and again after a restore: pgrecall db tune. Without a superuser, for each key in filters: "
        "pgrecall collections index-key COLLECTION KEY:TYPE",
    )
