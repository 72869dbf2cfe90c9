"""The server: its version, its collation, and pgvector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from pgrecall.doctor.findings import Check, Finding, quoted
from pgrecall.maintenance.advisories import OLDEST_PGVECTOR, Version, dotted, faults, version

OLDEST_SERVER = 16


class ServerFacts(NamedTuple):
    """What is read from the server once."""

    version: str
    number: int
    bits_64: bool
    pgvector: str | None
    pgvector_available: str | None
    vector_schema: str | None
    citus: bool
    database: str
    collation: str | None
    collation_now: str | None


def check_collation(server: ServerFacts) -> Iterator[Finding]:
    """Whether indexes are sorted by the system's current collation version. No finding if they are."""
    if server.collation != server.collation_now:
        check = Check("collation", "indexes built with the system's collation version; others may miss rows")
        name = quoted(server.database)
        yield check.bad(
            "warn",
            f"the system has collation version {server.collation_now}, but indexes were built with {server.collation}",
            f"REINDEX DATABASE {name}; ALTER DATABASE {name} REFRESH COLLATION VERSION;",
        )


def check_pgvector(installed: str | None, available: str | None, *, bits_64: bool = True) -> list[Finding]:
    """Findings about pgvector's version. `available` is the version that the server's files would install."""
    check = Check("pgvector", f"pgvector {dotted(OLDEST_PGVECTOR)} or later, without known faults")
    create = "CREATE EXTENSION vector;"
    if installed is None:
        fix = create if available else f"install pgvector on the server, then {create}"
        return [check.fail("extension vector is not installed in this database", fix)]
    if version(installed) < OLDEST_PGVECTOR:
        return [check.fail(f"pgvector {installed}, which has no halfvec", _update(OLDEST_PGVECTOR, available))]
    found = [
        Check("pgvector", f"pgvector {dotted(fault.fixed)} or later").bad(
            fault.status,
            f"pgvector {installed} has {fault.name}: {fault.what}",
            _update(fault.fixed, available),
        )
        for fault in faults(installed, bits_64=bits_64)
    ]
    return found or [check.ok(f"pgvector {installed}")]


def _update(to: Version, available: str | None) -> str:
    update = "ALTER EXTENSION vector UPDATE;"
    if available is not None and version(available) >= to:
        return update
    return f"install pgvector {dotted(to)} or later on the server, restart it, then {update}"
