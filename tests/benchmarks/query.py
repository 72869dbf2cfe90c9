"""One search for the top 10 against the same query by hand, for tenants of 380 and 5,000 rows among 200 others.

"By hand" is psycopg with the same transaction: BEGIN, SET LOCAL for role and tenant, the query with the same joins, and
COMMIT, one `execute` each.
"""

from __future__ import annotations

import asyncio
import statistics
from contextlib import ExitStack
from typing import Any

import numpy as np
import psycopg
import sqlalchemy as sa
from pgvector.psycopg import register_vector_async
from tests.benchmarks import data
from tests.benchmarks.handwritten import COLLECTION, AsyncReader, Reader
from tests.benchmarks.harness import Bench, Figure, Seconds, aby_turns, by_turns, dsn, ratio, say
from tests.benchmarks.search import OVERHEAD

import pgrecall

SIZES = {"380 rows": 380, "5,000 rows": 5_000}
#: (sync, async) bounds of pgrecall / by hand.
TARGETS = {"380 rows": (1.6, 2.0), "5,000 rows": (1.25, None)}
OURS, HAND = "pgrecall", "by hand"

WHY = {
    f"{size}, {call}": f"For the same reason as in [search](#search). {OVERHEAD}"
    for size in SIZES
    for call in ("query", "aquery")
}


def run(bench: Bench) -> list[Figure]:
    """Measure both sizes, sync and async."""
    figures: list[Figure] = []
    rounds = 200 if bench.quick else 1_000
    with bench.database() as url, pgrecall.connect(url) as db:
        say("  filling 200 tenants")
        fill(db, others=4_000 if bench.quick else 40_000)
        with psycopg.connect(dsn(url), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
        for tenant, (sync_target, async_target) in TARGETS.items():
            say(f"  {tenant}")
            vectors = questions(tenant, rounds)
            _same_answers(db, url, tenant, vectors[0])
            figures += _figures(f"{tenant}, query", _sync(db, url, tenant, vectors), sync_target)
            seconds = asyncio.run(_async(db, url, tenant, vectors))
            figures += _figures(f"{tenant}, aquery", seconds, async_target)
    return figures


def fill(db: pgrecall.Database, others: int) -> None:
    """Fill two tenants of known size, and 200 that share `others` rows by Zipf's law."""
    weights = 1 / np.arange(1, 201) ** 1.1
    sizes = {f"other-{n}": int(size) + 1 for n, size in enumerate(others * weights / weights.sum())}
    for seed, (tenant, size) in enumerate((sizes | SIZES).items()):
        store(db, tenant).upsert(list(data.chunks(size, seed)))


def store(db: pgrecall.Database, tenant: str) -> pgrecall.PostgresVectorStore:
    """The tenant's store."""
    return db.tenant(tenant).vectors(COLLECTION, data.SPACE)


def questions(tenant: str, count: int) -> data.Matrix:
    """Vectors near the tenant's own."""
    seed = 200 + list(SIZES).index(tenant)
    near = data.vectors(SIZES[tenant], seed)[:1_000]
    rng = np.random.default_rng(1)
    made = near[rng.integers(len(near), size=count)] + rng.normal(scale=0.02, size=(count, data.DIM))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def _same_answers(db: pgrecall.Database, url: sa.URL, tenant: str, vector: Any) -> None:
    """Check that both give the same answer; otherwise a comparison of speed means nothing."""
    reader = Reader(dsn(url), tenant, db.add_space(data.SPACE))
    theirs = [row[0] for row in reader.query(vector)]
    reader.connection.close()
    ours = [hit.chunk_id for hit in store(db, tenant).query(vector, 10)]
    if ours != theirs or len(ours) != 10:
        raise AssertionError(f"pgrecall found {ours}, but the query by hand found {theirs}")


def _sync(db: pgrecall.Database, url: sa.URL, tenant: str, vectors: data.Matrix) -> Seconds:
    ours = store(db, tenant)
    with ExitStack() as stack:
        hand = Reader(dsn(url), tenant, db.add_space(data.SPACE))
        stack.callback(hand.connection.close)
        systems = {
            OURS: lambda turn: ours.query(vectors[turn], 10),
            HAND: lambda turn: hand.query(vectors[turn], 10),
        }
        return by_turns(systems, len(vectors) - 20, warm=20)


async def _async(db: pgrecall.Database, url: sa.URL, tenant: str, vectors: data.Matrix) -> Seconds:
    ours = store(db, tenant)
    connection = await psycopg.AsyncConnection.connect(dsn(url), autocommit=True, prepare_threshold=None)
    async with connection:
        await register_vector_async(connection)
        hand = AsyncReader(connection, tenant, db.add_space(data.SPACE))
        systems = {
            OURS: lambda turn: ours.aquery(vectors[turn], 10),
            HAND: lambda turn: hand.query(vectors[turn], 10),
        }
        return await aby_turns(systems, len(vectors) - 20, warm=20)


def _figures(label: str, took: Seconds, target: float | None) -> list[Figure]:
    return [
        *(Figure(f"p50, {label}", statistics.median(took[name]) * 1e3, "ms", series=name) for name in (OURS, HAND)),
        Figure(f"{label}: pgrecall / by hand", ratio(took[OURS], took[HAND]), "", at_most=target),
    ]
