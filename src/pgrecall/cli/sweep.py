"""`pgrecall sweep`: delete what expired."""

from __future__ import annotations

from typing import Annotated

import typer

from pgrecall.cli.session import Session, command, table


def register(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    command(app, "sweep", rich_help_panel=panel)(sweep)


def sweep(
    session: Session,
    batch: Annotated[int, typer.Option("--batch", help="Rows per transaction.")] = 1_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only; delete nothing.")] = False,
) -> None:
    """Delete expired rows, and facts whose grace time after `facts forget` is over, of all tenants.

    Needs the maintenance login.
    """
    with session.database() as database, session.working("Sweeping…"):
        report = database.sweep(batch=batch, dry_run=dry_run)
    rows = [(name, count) for name, count in report.items()]
    verb = "would be deleted" if dry_run else "deleted"
    session.emit({"purged": dict(report), "tenants": report.tenants, "dry_run": dry_run}, table(("table", verb), rows))
