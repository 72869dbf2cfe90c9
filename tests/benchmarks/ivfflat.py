"""IVFFlat against HNSW: the same partial index over the large collections, before and after a fifth of them changed.

200 tenants share 50,000 chunks of 384 dimensions. The index contains the large tenants' rows. Each method has a fresh
database, and both answer the same questions of the large tenants by turns. IVFFlat has one list per 1,000 rows, as
pgvector recommends, and probes the square root of the number of lists, or half of that.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from typing import Any

import numpy as np
import psycopg
from psycopg import sql
from tests.benchmarks import corpora
from tests.benchmarks.harness import Bench, Figure, by_turns, dsn, say

import pgrecall
from pgrecall.types import EF_CONSTRUCTION, M

METHODS = ("hnsw", "ivfflat")
ROWS, TENANTS, QUESTIONS, CHURN = 50_000, 200, 200, 0.2
SEARCH = """
SELECT chunk_id FROM pgrecall.chunk_vectors
WHERE tenant_id = %s AND collection = %s AND space_id = 1::int2 AND graph <= 1::int2
ORDER BY embedding::halfvec(384) <=> %s::halfvec(384) LIMIT 10
"""
PROMOTE = "UPDATE pgrecall.chunk_vectors SET graph = 1 WHERE graph <> 1 AND tenant_id = ANY (%s)"


def run(bench: Bench) -> list[Figure]:
    """Build, ask, change a fifth of the rows, ask again."""
    rows = ROWS // 5 if bench.quick else ROWS
    spare = int(rows * CHURN)
    corpus = corpora.corpus(rows + spare, TENANTS, QUESTIONS // 4 if bench.quick else QUESTIONS)
    asked = corpus.of_class("large")
    first = {t: [int(r) for r in corpus.rows(t) if r < rows] for t in corpus.sizes()}
    figures: list[Figure] = []
    with ExitStack() as stack:
        opened = {}
        for method in METHODS:
            say(f"  {method}")
            url = stack.enter_context(bench.database())
            db = stack.enter_context(pgrecall.connect(url, promote_on_upsert=False))
            for tenant, own in first.items():
                corpora.store(db, tenant, corpus.space).upsert([corpus.chunk(r) for r in own])
            connection = stack.enter_context(psycopg.connect(dsn(url), autocommit=True, prepare_threshold=None))
            connection.execute(PROMOTE, [_named(corpus)])
            lists, seconds = _build(connection, method)
            figures.append(Figure("build", seconds, "s", series=method))
            opened[method] = (db, connection)
        probes = round(lists**0.5)
        ways = {"hnsw, ef_search 100": ("hnsw", {"hnsw.ef_search": 100, "hnsw.iterative_scan": "relaxed_order"})} | {
            f"ivfflat, {n} of {lists} lists": (
                "ivfflat",
                {"ivfflat.probes": n, "ivfflat.iterative_scan": "relaxed_order"},
            )
            for n in (max(1, probes // 2), probes)
        }
        figures += _ask("", ways, opened, corpus, asked, first)
        say("  changing a fifth")
        second = _changed(corpus, first, rows)
        for db, connection in opened.values():
            for tenant in corpus.large():
                store = corpora.store(db, tenant, corpus.space)
                gone, new = (sorted(set(a[tenant]) - set(b[tenant])) for a, b in ((first, second), (second, first)))
                store.delete([str(r) for r in gone])
                store.upsert([corpus.chunk(r) for r in new])
            connection.execute(
                "UPDATE pgrecall.chunk_vectors SET graph = 1 WHERE graph <> 1 AND tenant_id = ANY (%s)",
                [_named(corpus)],
            )
        figures += _ask(", after a fifth changed", ways, opened, corpus, asked, second)
    return figures


def _named(corpus: corpora.Corpus) -> list[str]:
    return [f"t{tenant}" for tenant in corpus.large()]


def _build(connection: psycopg.Connection, method: str) -> tuple[int, float]:
    """Build the partial index of a graph with this method."""
    [count] = connection.execute("SELECT count(*) FROM pgrecall.chunk_vectors WHERE graph <= 1").fetchone() or (0,)
    lists = max(10, count // 1_000)
    connection.execute("SET maintenance_work_mem = '1GB'")
    options = (
        sql.SQL(f"m = {M}, ef_construction = {EF_CONSTRUCTION}")
        if method == "hnsw"
        else sql.SQL("lists = {}").format(lists)
    )
    started_at = time.perf_counter()
    connection.execute(
        sql.SQL(
            "CREATE INDEX CONCURRENTLY chunk_vectors_graph_1_1 ON pgrecall.chunk_vectors "
            "USING {} ((embedding::halfvec(384)) halfvec_cosine_ops) WITH ({}) "
            "WHERE space_id = 1::int2 AND graph <= 1::int2"
        ).format(sql.Identifier(method), options)
    )
    seconds = time.perf_counter() - started_at
    connection.execute("VACUUM ANALYZE pgrecall.chunk_vectors")
    connection.execute("SET enable_sort = off")
    return lists, seconds


def _changed(corpus: corpora.Corpus, first: dict[int, list[int]], rows: int) -> dict[int, list[int]]:
    """The rows of each large tenant without a fifth of them, but with its spare ones."""
    rng = np.random.default_rng(5)
    after = dict(first)
    for tenant in corpus.large():
        own = np.array(first[tenant])
        kept = own[rng.permutation(len(own))[int(len(own) * CHURN) :]]
        after[tenant] = [*map(int, kept), *(int(r) for r in corpus.rows(tenant) if r >= rows)]
    return after


def _ask(
    when: str,
    ways: dict[str, tuple[str, dict[str, Any]]],
    opened: dict[str, tuple[pgrecall.Database, psycopg.Connection]],
    corpus: corpora.Corpus,
    asked: list[corpora.Question],
    present: dict[int, list[int]],
) -> list[Figure]:
    found: dict[str, list[float]] = {name: [] for name in ways}
    truth = [_nearest(corpus, q, present[q.tenant]) for q in asked]

    def ask(name: str, turn: int) -> None:
        method, settings = ways[name]
        question, connection = asked[turn % len(asked)], opened[method][1]
        for setting, value in settings.items():
            connection.execute(sql.SQL("SET {} = {}").format(sql.SQL(setting), value))
        place = (f"t{question.tenant}", corpora.COLLECTION, str(question.vector.tolist()))
        started_at = time.perf_counter()
        rows = connection.execute(SEARCH, place).fetchall()
        took[name].append(time.perf_counter() - started_at)
        found[name].append(len({row[0] for row in rows} & truth[turn % len(asked)]) / 10)

    took: dict[str, list[float]] = {name: [] for name in ways}
    by_turns({name: lambda turn, name=name: ask(name, turn) for name in ways}, len(asked))
    return [
        figure
        for name in ways
        for figure in (
            Figure(f"recall@10{when}", statistics.mean(found[name]), series=name),
            Figure(f"p50{when}", statistics.median(took[name]) * 1e3, "ms", series=name),
        )
    ]


def _nearest(corpus: corpora.Corpus, question: corpora.Question, present: list[int]) -> set[str]:
    own = np.array(present)
    return {str(r) for r in own[np.argsort(-(corpus.vectors[own] @ question.vector))[:10]]}
