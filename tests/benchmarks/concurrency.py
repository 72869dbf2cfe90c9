"""Eight processes search without pause, first alone, then while another process ingests and one promotes.

Rows and questions are those of [search](#search), a third of the questions from each class of tenants. The ingesting
process upserts without pause: 1,000 chunks per call into collections of ten new tenants, and after each call 20 chunks
into the largest collection that is searched. At the same time `pgrecall maintain` builds the next generation of the
graph in a process of its own. The phase lasts until that ends, and ten seconds at least. The new vectors point in
random directions, so that no question's nearest rows change and recall can be measured.

Rows that wait to enter the graph are scanned: 1,000 of them in one collection make its searches 1 ms slower until the
next `pgrecall maintain`. They do not affect other collections.
"""

from __future__ import annotations

import multiprocessing
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import sqlalchemy as sa
from tests.benchmarks import corpora
from tests.benchmarks.corpora import CLASSES, K, Question
from tests.benchmarks.harness import Bench, Figure, analyze, dsn, say

import pgrecall
from pgrecall import Chunk, PgRecallError

SEARCHERS = 8
#: Chunks per call into a new tenant's collection, and into the largest collection that is searched.
CALL, SOME = 1_000, 20
IDLE, BUSY = "idle", "one ingests, one promotes"
PHASES = (IDLE, BUSY)
#: Marks the end of the last phase.
OVER = len(PHASES)
WHY = {
    "p95:": """The machine has two cores, and the eight searchers alone already keep both busy. In the second phase they
    share the cores with the ingesting process, its server process, and the processes that build the graph. All classes
    of tenants wait equally for a core.""",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: its phase, its class, and how it was answered."""

    phase: int
    kind: str
    seconds: float
    recall: float
    error: str = ""


def run(bench: Bench) -> list[Figure]:
    """Measure the idle phase, then the busy one."""
    corpus, least = bench.corpus, 3.0 if bench.quick else 10.0
    spawn = multiprocessing.get_context("spawn")
    phase = spawn.Value("i", -1)
    with bench.database() as url:
        with pgrecall.connect(url, admin_url=url) as db:
            corpora.fill(db, corpus)
            db.maintain()
            analyze(url)
            with spawn.Pool(SEARCHERS, _share, (phase,)) as pool:
                given = [(dsn(url), _mixed(corpus, seed), corpus.space) for seed in range(SEARCHERS)]
                asking = [pool.apply_async(_ask, one) for one in given]
                time.sleep(3)  # imports, connections, caches
                phase.value = 0
                time.sleep(least)
                written = _busy(db, url, corpus, phase, least)
                phase.value = OVER
                asked = [one for given in asking for one in given.get(timeout=120)]
        with psycopg.connect(dsn(url)) as connection:
            [stored] = connection.execute("SELECT count(*) FROM pgrecall.chunks").fetchone()
    if stored != len(corpus.owners) + written:
        raise RuntimeError(f"{stored} rows are stored, but {len(corpus.owners) + written} were written")
    if errors := {one.error for one in asked if one.error}:
        say("  " + "; ".join(sorted(errors)))
    return _figures(asked)


def _mixed(corpus: corpora.Corpus, seed: int) -> list[Question]:
    """The same number of questions from each class, shuffled by `seed`."""
    classes = [corpus.of_class(kind) for kind in CLASSES]
    questions = [q for kind in classes for q in kind[: min(map(len, classes))]]
    return [questions[i] for i in np.random.default_rng(seed).permutation(len(questions))]


_phase: Any = None


def _share(phase: Any) -> None:
    """Give a searcher's process the current phase."""
    global _phase
    _phase = phase


def _ask(url: str, questions: list[Question], space: pgrecall.EmbedSpace) -> list[Asked]:
    """Search without pause until the last phase ends. Errors are recorded as answers."""
    asked: list[Asked] = []
    with pgrecall.connect(url) as db:
        for turn in range(10**9):
            if (at := _phase.value) == OVER:
                break
            question = questions[turn % len(questions)]
            started, error, found = time.perf_counter(), "", set[str]()
            try:
                found = {hit.chunk_id for hit in corpora.store(db, question.tenant, space).query(question.vector, K)}
            except PgRecallError as exc:
                error = f"{type(exc).__name__}: {exc}"
            took = time.perf_counter() - started
            if at >= 0:
                recall = len(question.nearest & found) / len(question.nearest)
                asked.append(Asked(at, question.kind, took, recall, error))
    return asked


def _busy(db: pgrecall.Database, url: sa.URL, corpus: corpora.Corpus, phase: Any, least: float) -> int:
    """Ingest, and promote what was ingested. Returns the number of rows that were written."""
    count = max(sum(len(corpus.rows(tenant)) for tenant in corpus.large()) // 3, 30_000)
    anywhere = np.random.default_rng(13).normal(size=(CALL, corpus.vectors.shape[1])).astype(np.float32)
    asked = corpora.store(db, corpus.large()[0], corpus.space)
    others = [corpora.store(db, -1 - n, corpus.space) for n in range(10)]

    def ingest(number: int) -> int:
        vectors = np.roll(anywhere, number, axis=1)  # another direction for each call
        chunks = [Chunk(f"new-{number}-{n}", "new", vector, metadata={"n": n}) for n, vector in enumerate(vectors)]
        return others[number % 10].upsert(chunks).written + asked.upsert(chunks[:SOME]).written

    ahead = -(-count // CALL)
    written = sum(map(ingest, range(ahead)))  # enough waiting rows for maintenance to build a generation
    phase.value, until = 1, time.monotonic() + least
    command = [str(Path(sys.executable).with_name("pgrecall")), "maintain", "--url", dsn(url), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as promoting:
        number = ahead
        while promoting.poll() is None or time.monotonic() < until:
            written += ingest(number)
            number += 1
        said = promoting.communicate()[0]
    if promoting.returncode or '"built"' not in said:
        raise RuntimeError(f"pgrecall maintain built nothing: exit code {promoting.returncode}, output {said}")
    say(f"  ingested {written - ahead * (CALL + SOME):,} rows during the busy phase")
    return written


def _figures(asked: list[Asked]) -> list[Figure]:
    """The figures by phase and class, and over all."""
    figures = [Figure("errors", sum(bool(one.error) for one in asked), at_most=0)]
    p95 = {}
    for at, phase in enumerate(PHASES):
        seconds = [one.seconds * 1e3 for one in asked if one.phase == at]
        p95[phase] = float(np.quantile(seconds, 0.95))
        figures += [
            Figure("p50", statistics.median(seconds), "ms", series=phase),
            Figure("p95", p95[phase], "ms", series=phase),
            Figure("p99", float(np.quantile(seconds, 0.99)), "ms", series=phase),
        ]
        for kind in CLASSES:
            own = [one.seconds * 1e3 for one in asked if one.phase == at and one.kind == kind]
            figures.append(Figure(f"p95, {kind} tenants", float(np.quantile(own, 0.95)), "ms", series=phase))
            recall = statistics.mean(one.recall for one in asked if one.phase == at and one.kind == kind)
            figures.append(Figure(f"recall@10, {kind}", recall, "share", at_least=0.99, series=phase))
    figures.append(Figure(f"p95: {BUSY} / {IDLE}", p95[BUSY] / p95[IDLE], at_most=3.0))
    return figures
