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
    recall_queries: Annotated[int, typer.Option(help="Samples of each space's graph; 0 measures none.")] = 20,
    recall_k: Annotated[int, typer.Option(help="How many nearest chunks a sample asks for.")] = 10,
    recall_seconds: Annotated[float, typer.Option(help="What measuring recall may take, in all.")] = 5.0,
) -> None:
    """Look the database over, as the login of --url: what is wrong, and what to do. Exit 1 on any failure.

    Checks the server and pgvector with its known CVEs, the revision, row-level security, roles, drift,
    INVALID indexes, what the login could reach, the statistics, and, with a login for maintenance, graphs: what waits
    beside them, what they lost, and their recall, against exact searches of a sample. Changes nothing. --json adds
    numbers to watch.
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
        console.print(f"\n{failed} failed, {warned} to look at, {len(findings) - failed - warned} well.")

    return show
