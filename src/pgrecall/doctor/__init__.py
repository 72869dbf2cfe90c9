"""Checks of a database: what was found, what was expected, and what to do about it. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgrecall.doctor.filters import check_filters
from pgrecall.doctor.findings import Check, Finding, FindingStatus
from pgrecall.doctor.graphs import GraphState, Sampling, check_graphs, look_at_graphs
from pgrecall.doctor.logins import check_login, check_maintenance_login, check_roles, read_login
from pgrecall.doctor.placement import check_placement
from pgrecall.doctor.replicas import check_replica
from pgrecall.doctor.server import OLDEST_SERVER, ServerFacts, check_collation, check_pgvector
from pgrecall.doctor.tables import check_drift, check_indexes, check_revision, check_row_security, check_statistics
from pgrecall.statements import doctor as sql

if TYPE_CHECKING:
    from pgrecall.stores.database import Database

__all__ = [
    "Examination",
    "Finding",
    "FindingStatus",
    "GraphState",
    "Sampling",
    "check_pgvector",
    "diagnose",
    "examine",
    "metrics",
]


@dataclass(frozen=True, slots=True)
class Examination:
    """The findings, and the state of the graphs (empty if that requires a maintenance login)."""

    findings: list[Finding]
    graphs: list[GraphState]


def diagnose(database: Database, sampling: Sampling | None = None) -> list[Finding]:
    """The findings of `examine`."""
    return examine(database, sampling).findings


def examine(database: Database, sampling: Sampling | None = None) -> Examination:
    """Run the checks that this login can run, the most basic first. Checks that need something missing are skipped.

    What weakens isolation is a failure in production and a warning in development: on the embedded server, or if the
    database is marked by `pgrecall db mark development`. `sampling` sets how recall is measured. Raises: Unavailable.
    """
    findings = list(_diagnose(database))
    states = None
    if any(finding.check == "statistics" for finding in findings):  # the last check that needs only the tables
        states = look_at_graphs(database, sampling or Sampling())
    if states is not None:
        findings += check_graphs(states)
    return Examination(findings, states or [])


def _diagnose(database: Database) -> Iterator[Finding]:
    gate = database.backend.engines.sync_gate()
    with gate.bare() as tx:
        server = ServerFacts(*tx.rows(sql.SERVER, {})[0])
        [(marked,)] = tx.rows(sql.DEVELOPMENT, {})
        [(migrated,)] = tx.rows(sql.MIGRATED, {})
    check = Check("server", f"Postgres {OLDEST_SERVER} or later")
    if server.number < OLDEST_SERVER * 10_000:
        yield check.fail(f"Postgres {server.version}", "upgrade the server")
        return
    yield check.ok(f"Postgres {server.version}, database {server.database!r}")
    yield from check_collation(server)
    yield from check_pgvector(server.pgvector, server.pgvector_available, bits_64=server.bits_64)
    login = read_login(gate)
    yield check_revision(gate, server, login, migrated=migrated)
    if not migrated:
        return
    yield check_roles(gate, citus=server.citus)
    yield check_row_security(gate)
    yield check_drift(gate)
    yield check_indexes(gate)
    yield check_placement(gate, server)
    weak: FindingStatus = "warn" if marked or database.is_embedded else "fail"
    yield from check_login(login, weak)
    if database.backend.maintenance.url != database.backend.engines.url:
        yield check_maintenance_login(database.backend.maintenance, weak)
    if database.backend.engines.replica is not None:
        yield check_replica(database.backend.engines.replica)
    yield check_statistics(gate)
    yield from check_filters(database)


def metrics(database: Database) -> dict[str, Any]:
    """Numbers to monitor: connections of the whole server, ages in seconds, sizes in bytes, estimated rows.

    `dead_share` is the share of a table's rows that are dead, from 0 to 1. An age is None if there is nothing to
    measure, or if the login sees only its own sessions (GRANT pg_monitor shows all). Raises: Unavailable.
    """
    with database.backend.engines.sync_gate().bare() as tx:
        used, most, size, longest, prepared = tx.rows(sql.METRICS, {})[0]
        tables = tx.rows(sql.TABLES, {})
    return {
        "connections_used": used,
        "connections_max": most,
        "longest_transaction_seconds": longest,
        "oldest_prepared_transaction_seconds": prepared,
        "database_bytes": size,
        "tables": {
            name: {"rows": max(rows, live), "bytes": total, "dead_share": dead / ((live + dead) or 1)}
            for name, rows, live, dead, total, _ in tables
        },
    }
