"""`pgrecall doctor`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pgrecall.cli.session import Exit, Session, command, plain

if TYPE_CHECKING:
    from rich.console import Console

    from pgrecall.doctor import Finding


def register(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    command(app, "doctor", rich_help_panel=panel)(doctor)


def doctor(
    session: Session,
    recall_queries: Annotated[
        int, typer.Option(help="Queries per space's graph to measure its recall with; 0 measures nothing.")
    ] = 20,
    recall_k: Annotated[int, typer.Option(help="Nearest chunks per query: the k of recall@k.")] = 10,
    recall_seconds: Annotated[
        float, typer.Option(help="Time limit for measuring recall, in seconds, over all graphs.")
    ] = 5.0,
) -> None:
    """Check the database as the login of --url, and print what is wrong and how to fix it. Exit 1 on any failure.

    Checks the server, pgvector and its known CVEs, the schema revision, row-level security, roles, drift, INVALID
    indexes, the login's privileges and the statistics. With the maintenance login it also checks graphs: rows that are
    not in them yet, deleted rows, and recall compared with exact searches. Changes nothing. --json adds metrics for
    monitoring.
    """
    from pgrecall import doctor as doctors

    with session.database() as database:
        found = doctors.examine(database, doctors.Sampling(recall_queries, recall_k, recall_seconds))
        findings = found.findings
        healthy = not any(finding.status == "fail" for finding in findings)
        data = {"ok": healthy, "findings": [asdict(finding) for finding in findings]}
        if session.as_json:
            data["metrics"] = doctors.metrics(database) | {"graphs": [asdict(state) for state in found.graphs]}
    session.emit(data, _shown(findings))
    if not healthy:
        raise typer.Exit(Exit.NO)


def _shown(findings: list[Finding]) -> Callable[[Console], None]:
    def show(console: Console) -> None:
        from rich.table import Table
        from rich.text import Text

        marks = {"ok": ("✓", "green"), "warn": ("!", "bold yellow"), "fail": ("✗", "bold red")}
        grid = Table.grid(padding=(0, 2))
        for finding in findings:
            sign, style = marks[finding.status]
            cell = Text(plain(finding.found))
            if finding.fix:
                cell.append(f"\nexpected: {plain(finding.expected)}", style="dim")
                cell.append(f"\n→ {plain(finding.fix)}", style="cyan")
            grid.add_row(Text(sign, style), Text(finding.check, "bold"), cell)
        console.print(grid)
        failed = sum(finding.status == "fail" for finding in findings)
        warned = sum(finding.status == "warn" for finding in findings)
        passed = len(findings) - failed - warned
        console.print(f"\n{passed} passed, {warned} warning{'s' * (warned != 1)}, {failed} failed.")

    return show
