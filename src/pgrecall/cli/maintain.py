"""`pgrecall maintain`, and the code that `pgrecall spaces index` shares with it."""

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
    float, typer.Option(help="Seconds to wait for another maintenance process. Default: 0.", show_default=False)
]
MemoryOption: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Memory for a build, such as 2GB. Default: by the server's settings.", show_default=False),
]
WorkersOption: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Parallel workers of a build. Default: half of max_parallel_workers.", show_default=False),
]


def register(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    command(app, "maintain", rich_help_panel=panel)(maintain)


def maintain(
    session: Session,
    space: Annotated[
        int | None, typer.Option(help="Only this space, by its id in `spaces list`.", show_default=False)
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Rebuild graphs even if they are up to date.")] = False,
    wait: WaitOption = 0.0,
    memory: MemoryOption = None,
    workers: WorkersOption = None,
) -> None:
    """Keep searches of large collections fast: add new rows to their space's HNSW graph, or build a new graph.

    Run it regularly. With --wait, several processes take turns. Searches and writes continue meanwhile. Needs the
    owner's login on a direct connection, not through a pooler, and the maintenance login.
    """
    from pgrecall.types import GraphBuild

    run_maintenance(session, space, rebuild=rebuild, wait=wait, build=GraphBuild(memory, workers))


def run_maintenance(session: Session, space: int | None, *, rebuild: bool, wait: float, build: GraphBuild) -> None:
    """Maintain graphs, and print what was done for each space."""
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
                f"space {d.space_id} needs no graph: it has no collection of more than {exact_max(d.space.dim):,} rows "
                f"with at most {MAX_DIM:,} dimensions, so its searches are exact"
            )


@contextmanager
def _progress(session: Session) -> Iterator[Callable[[str, int, int], None] | None]:
    """A progress bar on stderr if it is a terminal."""
    if session.as_json or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=session.stderr(), transient=True) as bar:
        task = bar.add_task("maintaining", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None)
