"""What every benchmark needs: a real server, fresh databases, systems that take turns, and a report.

The machine is shared and noisy, so figures are medians, and what is compared runs in one process by turns
(A B C, B C A, …): a slow second slows all of them, and the ratio stays.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql
from rich.console import Console
from rich.table import Table

from pgrecall import embedded, migrate

#: Autovacuum off, so that every ingest runs on a database that was never analyzed; all else as embedded sizes it.
SETTINGS = {"autovacuum": "off"}


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number; `at_least` or `at_most` is its target."""

    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most

    @property
    def target(self) -> str:
        """The target as text."""
        if self.at_least is not None:
            return f"≥ {_number(self.at_least)}"
        return "" if self.at_most is None else f"≤ {_number(self.at_most)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}"


class Bench:
    """A server of its own, fsync on, and databases on it."""

    def __init__(self, server: embedded.EmbeddedServer, *, quick: bool) -> None:
        self.quick = quick
        self._url = sa.make_url(server.url)
        self._numbers = itertools.count()

    @contextmanager
    def database(self) -> Iterator[sa.URL]:
        """A fresh, migrated database; dropped after."""
        name = sql.Identifier(f"bench_{next(self._numbers)}")
        url = self._url.set(database=name.as_string(None).strip('"'))
        self._execute(sql.SQL("CREATE DATABASE {}").format(name))
        try:
            migrate.upgrade(url)
            yield url
        finally:
            self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(dsn(self._url), autocommit=True) as connection:
            connection.execute(statement)

    def machine(self) -> dict[str, Any]:
        """Where the figures come from."""
        with self.database() as url, psycopg.connect(dsn(url)) as connection:
            [postgres] = connection.execute("SHOW server_version").fetchone() or ["?"]
            [pgvector] = connection.execute(
                "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
            ).fetchone() or ["?"]
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        packages = {name: version(name) for name in ("pgrecall", "psycopg", "sqlalchemy", "numpy", "pgvector")}
        return {
            "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gib": round(memory / 2**30, 1),
            "load": round(os.getloadavg()[0], 1),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "postgres": postgres,
            "pgvector_extension": pgvector,
            **packages,
            "quick": self.quick,
        }


@contextmanager
def started(*, quick: bool, major: int = 18) -> Iterator[Bench]:
    """An embedded server for the benchmarks, its data in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="pgrecall-bench-"))
    folder.chmod(0o755)  # as root, the server runs as another user
    try:
        with embedded.start(folder / "home", version=major, settings=SETTINGS) as server:
            yield Bench(server, quick=quick)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def dsn(url: sa.URL) -> str:
    """A URL for psycopg itself."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


Seconds = dict[str, list[float]]


def by_turns(systems: Mapping[str, Callable[[int], Any]], rounds: int, *, warm: int = 0) -> Seconds:
    """Call each system once a round, in turn, with the round's number; returns the seconds of every call.

    The first `warm` rounds are run, not counted.
    """
    took: Seconds = {name: [] for name in systems}
    with _steady():
        for turn in range(rounds + warm):
            for name in _rotated(systems, turn):
                started_at = time.perf_counter()
                systems[name](turn)
                if turn >= warm:
                    took[name].append(time.perf_counter() - started_at)
    return took


async def aby_turns(systems: Mapping[str, Callable[[int], Awaitable[Any]]], rounds: int, *, warm: int = 0) -> Seconds:
    """As `by_turns`, within one event loop."""
    took: Seconds = {name: [] for name in systems}
    with _steady():
        for turn in range(rounds + warm):
            for name in _rotated(systems, turn):
                started_at = time.perf_counter()
                await systems[name](turn)
                if turn >= warm:
                    took[name].append(time.perf_counter() - started_at)
    return took


def _rotated(systems: Mapping[str, Any], turn: int) -> list[str]:
    names = list(systems)
    at = turn % len(names)
    return names[at:] + names[:at]


@contextmanager
def _steady() -> Iterator[None]:
    # The benchmark's own data would be walked by every full collection, at random, in one system's time.
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def ratio(ours: list[float], theirs: list[float]) -> float:
    """How many times as long ours took, call by call (median)."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def report(results: Mapping[str, list[Figure]], machine: Mapping[str, Any], console: Console) -> None:
    """Print what was measured, each figure beside its target."""
    for benchmark, figures in results.items():
        table = Table("figure", "value", "", "target", "", title=benchmark, title_justify="left")
        for f in figures:
            verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[f.met]
            table.add_row(f.name, _number(f.value), f.unit, f.target, verdict)
        table.columns[1].justify = table.columns[3].justify = "right"
        console.print(table)
    console.print(" · ".join(f"{key} {value}" for key, value in machine.items()), style="dim")


def write_json(path: Path, results: Mapping[str, list[Figure]], machine: Mapping[str, Any]) -> None:
    """The same as JSON."""
    figures = {name: [asdict(f) | {"met": f.met} for f in found] for name, found in results.items()}
    path.write_text(json.dumps({"machine": dict(machine), "figures": figures}, indent=1) + "\n")


def say(text: str) -> None:
    """Tell on stderr what runs, so that a silent minute is no riddle."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201
