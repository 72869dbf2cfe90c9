"""Tables with 16 and 64 hash partitions by tenant against unpartitioned tables.

All three databases get the same 10,000 chunks of 384 dimensions for each of three tenants, then single chunks. By turns
they answer the same questions about a small collection (300 rows) and a large one (10,000 rows, in a graph) of one
tenant.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
from tests.benchmarks.harness import Bench, Figure, by_turns, say

import pgrecall
from pgrecall import Chunk, EmbedSpace
from pgrecall.admin import migrate

ROWS, TENANTS, QUESTIONS, DIM = 10_000, 3, 200, 384
SPACE = EmbedSpace("bench", "partitions", DIM)
WAYS = {"one table": None, "16 partitions": 16, "64 partitions": 64}


def run(bench: Bench) -> list[Figure]:
    """Ingest, then search and write."""
    rows, questions = (ROWS // 5, QUESTIONS // 4) if bench.quick else (ROWS, QUESTIONS)
    made = np.random.default_rng(0).normal(size=(rows + questions, DIM)).astype(np.float32)
    with ExitStack() as stack:
        opened = {}
        for name, parts in WAYS.items():
            url = stack.enter_context(bench.database())
            if parts is not None:
                migrate.upgrade(url, parts=parts)
            opened[name] = stack.enter_context(pgrecall.connect(url, admin_url=url, promote_on_upsert=False))
        ingest: dict[str, list[float]] = {name: [] for name in opened}
        for number in range(TENANTS):
            say(f"  tenant {number + 1} of {TENANTS}")
            for name, db in opened.items():
                chunks = [_chunk(n, made) for n in range(rows)]
                started = time.perf_counter()
                db.tenant(f"t{number}").vectors("large", SPACE).upsert(chunks)
                ingest[name].append(rows / (time.perf_counter() - started))
        for db in opened.values():
            db.tenant("t0").vectors("small", SPACE).upsert([_chunk(n, made) for n in range(300)])
            db.maintain()

        def asking(db: pgrecall.Database, collection: str) -> Callable[[int], object]:
            store = db.tenant("t0").vectors(collection, SPACE)
            return lambda n: store.query(made[rows + n], 10)

        def writing(db: pgrecall.Database) -> Callable[[int], object]:
            store = db.tenant("t0").vectors("small", SPACE)
            return lambda n: store.upsert([_chunk(rows + n, made)])

        figures = [Figure("ingest", statistics.median(found), "rows/s", series=name) for name, found in ingest.items()]
        for what, make in (
            ("search, 300 rows", lambda db: asking(db, "small")),
            ("search by the graph", lambda db: asking(db, "large")),
            ("write of one chunk", writing),
        ):
            calls = {name: make(db) for name, db in opened.items()}
            times = by_turns(calls, questions)
            figures += [
                Figure(what, statistics.median(taken) * 1e3, "ms", series=name) for name, taken in times.items()
            ]
        return figures


def _chunk(number: int, made: np.ndarray) -> Chunk:
    return Chunk(f"c{number:06d}", "text " * 100, made[number], f"d{number // 10}", number % 10, {"n": number})
