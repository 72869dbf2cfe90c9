"""A progress bar on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pgrecall.cli.session import Session


@contextmanager
def progress(
    session: Session, what: str, total: int | None, *, bytes_: bool = False
) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr if it is a terminal; yields a function that takes the amount done so far."""
    if session.as_json or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    amount = DownloadColumn() if bytes_ else MofNCompleteColumn()
    columns = TextColumn("{task.description}"), BarColumn(40), amount, TimeElapsedColumn()
    with Progress(*columns, console=session.stderr(), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
