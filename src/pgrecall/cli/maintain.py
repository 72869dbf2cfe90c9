"""`pgrecall maintain`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pgrecall.cli.session import Session, command, table


def register(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    command(app, "maintain", rich_help_panel=panel)(maintain)


def maintain(
    session: Session,
    space: Annotated[
        int | None, typer.Option(help="One space, as `spaces list` numbers them.", show_default=False)
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make graphs anew, whatever they hold.")] = False,
) -> None:
    """Keep searches of large collections fast: waiting rows enter their space's graph (HNSW), or a new one is built.

    Run it from time to time, from one place or from many: one works, the others leave. Searches and writes go on
    meanwhile. Needs the owner's login on a direct connection, not through a pooler, and the one for maintenance.
    """
    run_maintenance(session, space, rebuild=rebuild)


def run_maintenance(session: Session, space: int | None, *, rebuild: bool) -> None:
    """Maintain, and print what was done for each space."""
    with session.database() as database, session.working("Maintaining…"):
        done = database.maintain(space, rebuild=rebuild)
    entries = [asdict(d) | {"space": str(d.space)} for d in done]
    columns = "id", "space", "done", "rows", "generation"
    rows = [(d.space_id, str(d.space), d.action, d.rows, d.generation) for d in done]
    session.emit(entries, table(columns, rows) if rows else "No spaces yet.")
