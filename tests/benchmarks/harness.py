"""What every benchmark needs: a real server, fresh databases, the peers, and turns.

The machine is shared and noisy. Therefore figures are medians, and systems that are compared take turns in one process
(A B C, B C A, …): a slow second slows all of them, and their ratio stays the same.
"""

from __future__ import annotations

import gc
import itertools
import os
import platform
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import date
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql
from tests.benchmarks import corpora, peers
from tests.benchmarks.figures import Figure, Section

import pgrecall
from pgrecall import MaintenanceResult, embedded
from pgrecall.admin import migrate

#: Without autovacuum every ingest runs on a database that was never analyzed. The embedded server sizes the rest.
SETTINGS = {"autovacuum": "off"}


class Bench:
    """A server with fsync on, its databases, and the peers, which are filled on first use."""

    def __init__(self, server: embedded.EmbeddedServer, stack: ExitStack, *, quick: bool, python: Path | None) -> None:
        self.quick = quick
        self._url = sa.make_url(server.url)
        self._stack = stack
        self._python = python
        self._numbers = itertools.count()
        self._plans: dict[str, str] = {}

    @cached_property
    def corpus(self) -> corpora.Corpus:
        """Chunks of many tenants and questions about them, the same for all systems."""
        return corpora.corpus(*((10_000, 100, 40) if self.quick else (50_000, 200, 200)))

    @cached_property
    def promoted(self) -> tuple[sa.URL, MaintenanceResult]:
        """A pgrecall database with the corpus, its large collections in a graph. It is kept until the end."""
        say("  filling pgrecall")
        url = self._stack.enter_context(self.database())
        with pgrecall.connect(url, admin_url=url) as db:
            corpora.fill(db, self.corpus)
            [built] = db.maintain()
        analyze(url)
        return url, built

    @cached_property
    def peers(self) -> dict[str, peers.Peer]:
        """Each peer with the corpus in its own database. They are kept until the end."""
        if self._python is None:
            raise SystemExit("this benchmark needs the peers' environment; run `make bench`, or pass --peers PYTHON")
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pgrecall-peers-")))
        self.corpus.save(folder)
        found = {}
        for name, label in peers.NAMES.items():  # one after the other: in parallel they would slow each other down
            say(f"  filling {label} with {len(self.corpus.owners):,} rows")
            url = self._stack.enter_context(self.database(migrated=False))
            found[label] = peers.fill(name, self._python, url, folder, self._stack)
            analyze(url)
        return found

    def attach(self, title: str, plan: str) -> None:
        """Add a plan to the page, with vectors shortened."""
        self._plans[title] = re.sub(r"'(\[[^,\]]*),[^\]]*\]'", r"'\1, …]'", plan)

    def measure(self, name: str, run: Callable[[Bench], list[Figure]]) -> Section:
        """Run a benchmark and return its section."""
        say(f"{name} …")
        started_at, self._plans = time.perf_counter(), {}
        found = run(self)
        took = round(time.perf_counter() - started_at, 1)
        return Section(date.today().isoformat(), took, self.machine, found, self._plans)

    @contextmanager
    def database(self, *, migrated: bool = True) -> Iterator[sa.URL]:
        """A fresh database, migrated or with pgvector only. It is dropped afterwards."""
        name = sql.Identifier(f"bench_{next(self._numbers)}")
        url = self._url.set(database=name.as_string(None).strip('"'))
        self._execute(sql.SQL("CREATE DATABASE {}").format(name))
        try:
            if migrated:
                migrate.upgrade(url)
            else:
                with psycopg.connect(dsn(url), autocommit=True) as connection:
                    connection.execute("CREATE EXTENSION vector")
            yield url
        finally:
            self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(dsn(self._url), autocommit=True) as connection:
            connection.execute(statement)

    @cached_property
    def machine(self) -> dict[str, Any]:
        """The machine, versions and settings of this run."""
        settings = ("server_version", "shared_buffers", "maintenance_work_mem", "fsync", "autovacuum")
        with self.database() as url, psycopg.connect(dsn(url)) as connection:
            shown = {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in settings}
            [pgvector] = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return {
            "cpu": _processor(),
            "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory": f"{memory / 2**30:.1f} GiB",
            "system": f"{platform.system()} {platform.machine()}",
            "Postgres": shown.pop("server_version"),
            "settings": shown,
            "pgvector": pgvector,
            "Python": platform.python_version(),
            "packages": {name: version(name) for name in ("pgrecall", "psycopg", "SQLAlchemy", "numpy", "pgvector")},
            "peers": {} if self._python is None else peers.versions(self._python),
        }


def _processor() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


@contextmanager
def started(*, quick: bool, major: int = 18, python: Path | None = None) -> Iterator[Bench]:
    """Start an embedded server with its data in a temporary folder. `python` is the peers' interpreter."""
    folder = Path(tempfile.mkdtemp(prefix="pgrecall-bench-"))
    folder.chmod(0o755)  # as root, the server runs as another user
    try:
        with embedded.start(folder / "home", version=major, settings=SETTINGS) as server, ExitStack() as stack:
            yield Bench(server, stack, quick=quick, python=python)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def analyze(url: sa.URL) -> None:
    """Do what autovacuum would have done."""
    with psycopg.connect(dsn(url), autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def dsn(url: sa.URL) -> str:
    """The URL in psycopg's format."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


Seconds = dict[str, list[float]]


def by_turns(systems: Mapping[str, Callable[[int], Any]], rounds: int, *, warm: int = 0, block: int = 1) -> Seconds:
    """Call each system once per round with the round's number, in turn, and return the seconds of every call.

    The first `warm` rounds are not counted. If a system returns `peers.Timed`, that is its time. A turn consists of
    `block` consecutive calls, so that caches are warm, as in a process that answers one question after another.
    """
    took: Seconds = {name: [] for name in systems}
    with _steady():
        for start in range(0, rounds + warm, block):
            turns = range(start, min(start + block, rounds + warm))
            for name, turn in itertools.product(_rotated(systems, start // block), turns):
                started_at = time.perf_counter()
                given = systems[name](turn)
                seconds = given.seconds if isinstance(given, peers.Timed) else time.perf_counter() - started_at
                if turn >= warm:
                    took[name].append(seconds)
    return took


async def aby_turns(systems: Mapping[str, Callable[[int], Awaitable[Any]]], rounds: int, *, warm: int = 0) -> Seconds:
    """Like `by_turns`, in one event loop."""
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
    # Otherwise full garbage collections would walk the benchmark's own data, at random, in one system's time.
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over all calls of our time divided by theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def say(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201
