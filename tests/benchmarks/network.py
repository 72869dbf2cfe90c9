"""Network round trips of warm calls, counted by a proxy between client and server, and times with 5 ms per round trip.

A round trip is everything that the client sends before it waits for an answer. The counts are for tables that were
never analyzed; tests assert them too (`tests/integration/test_round_trips.py`). The times are for the questions and
systems of [search](#search), each through its own proxy.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psycopg
import sqlalchemy as sa
from tests.benchmarks import corpora, data
from tests.benchmarks.handwritten import COLLECTION
from tests.benchmarks.harness import Bench, Figure, by_turns, dsn, say
from tests.benchmarks.proxy import Proxy, apart

import pgrecall
from pgrecall import F

OURS, TENANT = "pgrecall", "acme"
ROUND_TRIP = 0.005
#: In each direction while counting: longer than the longest pause of a busy client between two pipelined messages.
COUNTING_DELAY = 0.025


WHY = {
    f"p50, {kind}, 5 ms": """pgrecall waits for one round trip, the peer for four. On a busy machine a round trip takes
    longer than 5 ms (its measured duration is above). The rest is the time of [search](#search), with the same
    reasons."""
    for kind in corpora.CLASSES
}


def run(bench: Bench) -> list[Figure]:
    """Count round trips, then measure times."""
    return _counts(bench) + _graph_counts(bench) + _times(bench)


def _counts(bench: Bench) -> list[Figure]:
    chunks = list(data.chunks(1_400))
    question = chunks[7].embedding
    fresh, changed = chunks[:400], chunks[400:]
    figures: list[Figure] = []
    with bench.database() as url, Proxy(url) as proxy, pgrecall.connect(proxy.url) as db:
        store = db.tenant(TENANT).vectors(COLLECTION, data.SPACE)
        store.upsert(fresh)

        def aquery(_: object = None) -> Any:
            return store.aquery(question, 10)

        calls: dict[str, Callable[[], Any]] = {
            "query": lambda: store.query(question, 10),
            "query with a filter": lambda: store.query(question, 10, F.lang == "de"),
        }
        with asyncio.Runner() as runner:
            calls["aquery"] = lambda: runner.run(aquery())
            for call in calls.values():
                call()  # warm
            proxy.delay = COUNTING_DELAY
            for name, call in calls.items():
                with proxy.counting() as count:
                    call()
                figures.append(Figure(f"round trips, {name}", count.trips, at_most=2))
            with proxy.counting() as count:
                store.upsert(changed)
            figures.append(Figure("round trips, upsert of 1,000 chunks", count.trips, at_most=8))
    return figures


def _graph_counts(bench: Bench) -> list[Figure]:
    corpus, (url, _) = bench.corpus, bench.promoted
    [tenant, *_] = corpus.large()
    vector = next(q.vector for q in corpus.questions if q.tenant == tenant)
    with Proxy(url) as proxy, pgrecall.connect(proxy.url) as db:
        store = corpora.store(db, tenant, corpus.space)
        store.query(vector)  # caches the collection's size and graph
        proxy.delay = COUNTING_DELAY
        with proxy.counting() as count:
            store.query(vector)
    return [Figure("round trips, query of a collection with a graph", count.trips, at_most=2)]


def _times(bench: Bench) -> list[Figure]:
    figures: list[Figure] = []
    ratios: list[Figure] = []
    corpus, (url, _) = bench.corpus, bench.promoted
    with ExitStack() as stack:

        def through(url: sa.URL) -> sa.URL:
            return stack.enter_context(apart(url, ROUND_TRIP / 2))

        away = through(url)
        with psycopg.connect(dsn(away), autocommit=True) as connection:
            asked = by_turns({"one": lambda _: connection.execute("SELECT 1").fetchall()}, 100, warm=5)
        figures.append(
            Figure("a round trip of 5 ms, as a SELECT 1 measures it", statistics.median(asked["one"]) * 1e3, "ms")
        )
        db = stack.enter_context(pgrecall.connect(away))
        systems = {OURS: lambda q: corpora.store(db, q.tenant, corpus.space).query(q.vector, corpora.K)}
        for name, peer in bench.peers.items():
            away = stack.enter_context(peer.through(through(peer.url)))
            systems[name] = lambda q, away=away: away.query(q.number)
        for kind in corpora.CLASSES:
            say(f"  {kind} tenants, 5 ms a round trip")
            questions = corpus.of_class(kind)[:60]
            turns = {
                name: lambda turn, system=system, questions=questions: system(questions[turn])
                for name, system in systems.items()
            }
            took = by_turns(turns, len(questions) - 6, warm=6)
            p50 = {name: statistics.median(seconds) * 1e3 for name, seconds in took.items()}
            label = f"p50, {kind}, 5 ms a round trip"
            figures += [Figure(label, value, "ms", series=name) for name, value in p50.items()]
            faster = min(bench.peers, key=lambda name: p50[name])
            ratios.append(Figure(f"{label}: {OURS} / {faster}, the faster peer", p50[OURS] / p50[faster], at_most=0.6))
    return figures + ratios
