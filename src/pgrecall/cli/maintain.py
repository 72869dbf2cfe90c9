"""`pgrecall maintain`, and what `pgrecall spaces index` shares with it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from pgrecall.cli.session import Session, command, table

if TYPE_CHECKING:
    from pgrecall.types import GraphBuild

WaitOption: TypeAlias = Annotated[
    float, typer.Option(help="Seconds to wait for another process that maintains.", show_default=False)
]
MemoryOption: TypeAlias = Annotated[
    str | None,
    typer.Option(help="What a build may take, such as 2GB; else what the server's settings allow.", show_default=False),
]
WorkersOption: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Processes that help to build; else half of max_parallel_workers.", show_default=False),
]


def register(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    command(app, "maintain", rich_help_panel=panel)(maintain)


def maintain(
    session: Session,
    space: Annotated[
        int | None, typer.Option(help="One space, as `spaces list` numbers them.", show_default=False)
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Make graphs anew, whatever they hold.")] = False,
    wait: WaitOption = 0.0,
    memory: MemoryOption = None,
    workers: WorkersOption = None,
) -> None:
    """Keep searches of large collections fast: waiting rows enter their space's graph (HNSW), or a new one is built.

    Run it from time to time, from one place or, with --wait, from many: they take turns. Searches and writes go on
    meanwhile. Needs the owner's login on a direct connection, not through a pooler, and the one for maintenance.
    """
    from pgrecall.types import GraphBuild

    run_maintenance(session, space, rebuild=rebuild, wait=wait, build=GraphBuild(memory, workers))


def run_maintenance(session: Session, space: int | None, *, rebuild: bool, wait: float, build: GraphBuild) -> None:
    """Maintain, and print what was done for each space."""
    from pgrecall.operations.search.routes import MAX_DIM, exact_max

    with session.database() as database, _progress(session) as progress:
        done = database.maintain(space, rebuild=rebuild, wait=wait, build=build, progress=progress)
    entries = [asdict(d) | {"space": str(d.space)} for d in done]
    columns = "id", "space", "done", "rows", "generation"
    rows = [(d.space_id, str(d.space), d.action, d.rows, d.generation) for d in done]
    session.emit(entries, table(columns, rows) if rows else "No spaces yet.")
    for d in done:
        if rebuild and d.action == "exact":
            session.note(
                f"space {d.space_id} has no collection that a graph would serve (more than {exact_max(d.space.dim):,} "
                f"rows of up to {MAX_DIM:,} dims): its searches are exact"
            )


@contextmanager
def _progress(session: Session) -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar on stderr, where that is a terminal."""
    if session.as_json or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=session.stderr(), transient=True) as bar:
        task = bar.add_task("maintaining", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None)
