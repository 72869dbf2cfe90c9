"""Network round trips of warm calls, counted by the proxy, and their p50 where each takes 5 ms."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

from tests.benchmarks import data
from tests.benchmarks.handwritten import COLLECTION
from tests.benchmarks.harness import Bench, Figure
from tests.benchmarks.proxy import Proxy

import pgrecall
from pgrecall import F

TENANT = "acme"
ROUND_TRIP = 0.005
#: In each direction while counting: longer than a starved client may pause between two messages that it pipelines.
COUNTING_DELAY = 0.025


def run(bench: Bench) -> list[Figure]:
    """Counts first, then times."""
    repeats = 20 if bench.quick else 100
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
                figures.append(Figure(f"{name}: round trips", count.trips, "", at_most=3))
            with proxy.counting() as count:
                store.upsert(changed)
            figures.append(Figure("upsert of 1,000 chunks: round trips", count.trips, "", at_most=8))
            proxy.delay = ROUND_TRIP / 2
            for name, call in calls.items():
                took = [_seconds(call) for _ in range(repeats)]
                figures.append(Figure(f"{name}: p50 at 5 ms a round trip", statistics.median(took) * 1e3, "ms"))
    return figures


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
