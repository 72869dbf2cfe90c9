"""`pgrecall doctor`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from pgrecall.cli.session import Exit, Session, command, plain

if TYPE_CHECKING:
    from rich.console import Console

    from pgrecall.doctor import Finding


def register(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    command(app, "doctor", rich_help_panel=panel)(doctor)


def doctor(session: Session) -> None:
    """Look the database over, as the login of --url: what is wrong, and what to do. Exit 1 on any failure.

    Checks the server and pgvector with its known CVEs, the revision, row-level security, roles, drift,
    INVALID indexes, what the login could reach, the statistics, and graphs. Changes nothing. --json adds
    numbers to watch.
    """
    from pgrecall import doctor as doctors

    with session.database() as database:
        findings = doctors.diagnose(database)
        healthy = not any(finding.status == "fail" for finding in findings)
        data = {"ok": healthy, "findings": [asdict(finding) for finding in findings]}
        if session.as_json:
            data["metrics"] = doctors.metrics(database)
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
