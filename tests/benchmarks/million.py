"""Searches in 1,000,000 chunks of 5,000 tenants against searches in 50,000 chunks of 200 tenants.

Both are made as in [search](#search), with the same classes: a large tenant owns more than 5 % of all rows, so it is
also twenty times as large; a medium one owns more than 0.5 %. `db.maintain()` has promoted the large collections. Both
databases answer the same number of questions, by turns. Recall compares with an exact search by numpy.

*As large as medium ones of 50,000* are tenants of the million that have 250 to 2,500 rows, as many as the medium
tenants of the 50,000. They show what the rows of other tenants cost.

Filters keep 25 %, 2 % and 0.1 % of the largest tenant's chunks, by declared keys. Answers with fewer rows than
expected (10, or all matching rows if there are fewer) are counted.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import sqlalchemy as sa
from tests.benchmarks import corpora, data
from tests.benchmarks.corpora import CLASSES, COLLECTION, Corpus, K, Question
from tests.benchmarks.harness import Bench, Figure, analyze, by_turns, say

import pgrecall
from pgrecall import Chunk, F, Filter

SAME = "as large as medium ones of 50,000"
#: Name -> the metadata key and n, if one in n rows matches.
SHARES = {"25 %": ("quarter", 4), "2 %": ("fiftieth", 50), "0.1 %": ("thousandth", 1_000)}
WHY = {
    "p50, large:": """The graph has thirty times as many rows, and with 100 candidates a search of it reads three times
    as many pages (see the buffers of the plans here and in [search](#search)). Also, among 50,000 to 160,000 rows of
    one tenant more rows are almost as near as the nearest. Therefore searches keep 460 to 600 candidates; with 100 they
    took a third less time and found 0.94 of the nearest.""",
    "recall@10, ": """Among 50,000 to 160,000 rows of one tenant many are almost as near as the nearest. More candidates
    find more of them (`ef_search`, or `pgrecall collections tune --recall`). The share also differs from build to
    build: in one graph, 400 candidates found 0.99 for the large tenants.""",
    "p50, medium:": """A medium tenant has 5,000 to 50,000 of the million rows and is searched by the graph; of the
    50,000 rows it has 250 to 2,500 and is searched exactly. See below for tenants of the same size.""",
    "p50, filter of": """2 % of the largest tenant's 159,000 rows are 3,200 rows. These are too many to scan, so the
    search uses the graph, which returns 700 rows until 20 match. Among the 50,000 rows the largest tenant has 10,500;
    2 % of them are 210 rows, which are scanned. The filter of 25 % uses the graph in both databases, with more
    candidates in the million (see large tenants).""",
}
#: Selects some of the given rows.
Among: TypeAlias = Callable[[np.ndarray], np.ndarray]


@dataclass
class Side:
    """One of the two databases, its corpus, and the quality of its answers."""

    name: str
    corpus: Corpus
    db: pgrecall.Database
    short: int = 0
    recalls: list[float] = field(default_factory=list)

    def ask(self, tenant: int, vector: data.Matrix, nearest: frozenset[str], tree: Filter | None = None) -> None:
        """Search, and record the quality of the answer."""
        hits = corpora.store(self.db, tenant, self.corpus.space).query(vector, K, tree)
        self.short += len(hits) < len(nearest)
        self.recalls.append(len(nearest & {hit.chunk_id for hit in hits}) / len(nearest))


def run(bench: Bench) -> list[Figure]:
    """Measure each class of tenants, then filters."""
    rows, tenants = (100_000, 500) if bench.quick else (1_000_000, 5_000)
    small = bench.corpus
    say(f"  making {rows:,} rows")
    large = corpora.corpus(rows, tenants, len(small.of_class("large")))
    names = {f"{len(corpus.owners):,} rows": corpus for corpus in (small, large)}
    figures: list[Figure] = []
    with ExitStack() as stack:
        sides = []
        for name, corpus in names.items():
            say(f"  filling {name}")
            url = stack.enter_context(bench.database())
            db = stack.enter_context(pgrecall.connect(url, admin_url=url))
            figures += _fill(db, url, corpus, name)
            sides.append(Side(name, corpus, db))
        asked = {kind: [side.corpus.of_class(kind) for side in sides] for kind in CLASSES}
        asked[SAME] = [small.of_class("medium"), _of_size(large, len(small.of_class("medium")))]
        for kind, questions in asked.items():
            say(f"  {kind} tenants")
            figures += _compare(sides, kind, [_plain(side, q) for side, q in zip(sides, questions, strict=True)])
        for label, (key, every) in SHARES.items():
            say(f"  {label}")
            figures += _compare(sides, f"filter of {label}", [_filtered(side, key, every) for side in sides])
        _attach(bench, sides[-1])
        figures.append(Figure("answers with fewer rows than exist", sum(side.short for side in sides), at_most=0))
    return figures


def _fill(db: pgrecall.Database, url: sa.URL, corpus: Corpus, name: str) -> list[Figure]:
    """Write the rows tenant by tenant, then build the graph."""
    order = np.argsort(corpus.owners, kind="stable")
    bounds = np.flatnonzero(np.diff(corpus.owners[order])) + 1
    largest = corpus.large()[0]

    def fill() -> None:
        for rows in np.split(order, bounds):
            tenant = int(corpus.owners[rows[0]])
            if tenant == largest:
                corpora.store(db, tenant, corpus.space).upsert([])
                for key, _ in SHARES.values():
                    db.tenant(f"t{tenant}").index_key(COLLECTION, key, "number")
            chunks = (_chunk(corpus, int(row)) for row in rows)
            corpora.store(db, tenant, corpus.space).upsert(chunks, commit_every=5_000)

    [seconds] = by_turns({name: lambda _: fill()}, 1)[name]
    built: list[pgrecall.MaintenanceResult] = []
    [building] = by_turns({name: lambda _: built.extend(db.maintain())}, 1)[name]
    analyze(url)
    return [
        Figure("ingest", len(corpus.owners) / seconds, "rows/s", series=name),
        Figure("rows in the graph", built[0].rows, "rows", series=name),
        Figure("building the graph", building, "s", series=name),
    ]


def _chunk(corpus: Corpus, row: int) -> Chunk:
    return Chunk(
        str(row),
        corpus.texts[row % corpora.TEXTS],
        corpus.vectors[row],
        metadata={key: row % every for key, every in SHARES.values()},
    )


def _of_size(corpus: Corpus, count: int) -> list[Question]:
    """Questions of tenants with 250 to 2,500 rows."""
    rng = np.random.default_rng(12)
    tenants = [tenant for tenant, rows in corpus.sizes().items() if 250 < rows <= 2_500]
    return [_question(corpus, int(rng.choice(tenants)), rng) for _ in range(count)]


def _question(corpus: Corpus, tenant: int, rng: np.random.Generator, among: Among | None = None) -> Question:
    own = corpus.rows(tenant)
    near = corpus.vectors[rng.choice(own)] + rng.normal(scale=0.5 / np.sqrt(data.DIM), size=data.DIM)
    vector = (near / np.linalg.norm(near)).astype(np.float32)
    own = own if among is None else own[among(own)]
    nearest = own[np.argsort(-(corpus.vectors[own] @ vector))[:K]]
    return Question(-1, SAME, tenant, vector, frozenset(map(str, nearest)))


def _plain(side: Side, questions: list[Question]) -> Callable[[int], None]:
    def one(turn: int) -> None:
        question = questions[turn % len(questions)]
        side.ask(question.tenant, question.vector, question.nearest)

    return one


def _filtered(side: Side, key: str, every: int) -> Callable[[int], None]:
    rng, largest = np.random.default_rng(every), side.corpus.large()[0]
    questions = [_question(side.corpus, largest, rng, lambda rows: rows % every == 1) for _ in range(50)]

    def one(turn: int) -> None:
        question = questions[turn % len(questions)]
        side.ask(largest, question.vector, question.nearest, F[key] == 1)

    return one


def _compare(sides: list[Side], kind: str, asking: list[Callable[[int], None]]) -> list[Figure]:
    """Ask both sides, in turns of ten questions."""
    for side in sides:
        side.recalls.clear()
    systems = {side.name: one for side, one in zip(sides, asking, strict=True)}
    took = by_turns(systems, 100 if kind.startswith("filter") else 200, warm=20, block=10)
    p50 = [statistics.median(took[side.name]) * 1e3 for side in sides]
    figures = [Figure(f"p50, {kind}", ms, "ms", series=side.name) for side, ms in zip(sides, p50, strict=True)]
    figures += [
        Figure(f"recall@10, {kind}", statistics.mean(side.recalls), "share", at_least=0.98, series=side.name)
        for side in sides
    ]
    figures.append(Figure(f"p50, {kind}: {sides[1].name} / {sides[0].name}", p50[1] / p50[0], at_most=2.0))
    return figures


def _attach(bench: Bench, side: Side) -> None:
    """Add the plans of searches in the million."""
    sizes = side.corpus.sizes()
    trees = {"": None} | {f", filter of {label}": F[key] == 1 for label, (key, _) in SHARES.items()}
    asked = {(kind, ""): side.corpus.of_class(kind)[0] for kind in CLASSES}
    largest = next(q for q in side.corpus.of_class("large") if q.tenant == side.corpus.large()[0])
    asked |= {("large", label): largest for label in trees if label}
    for (kind, label), question in asked.items():
        store = corpora.store(side.db, question.tenant, side.corpus.space)
        how = store.query(question.vector, K, trees[label], explain="plan").explanation
        title = f"EXPLAIN (ANALYZE, BUFFERS) of a {kind} tenant, {sizes[question.tenant]:,} rows{label}: {how.shape}"
        bench.attach(title, how.plan)
