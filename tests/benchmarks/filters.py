"""Filters on the largest of 200 tenants: row-level security with declared keys against no row-level security.

The tenants share 50,000 chunks by Zipf's law. In a copy of the database row-level security is disabled, so that filters
use the metadata's GIN index there. No function is marked LEAKPROOF in either database. The databases take turns, and
the login owns no table.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import psycopg
import sqlalchemy as sa
from psycopg import sql
from tests.benchmarks import data
from tests.benchmarks.handwritten import COLLECTION
from tests.benchmarks.harness import Bench, Figure, by_turns, dsn, ratio, say

import pgrecall
from pgrecall import Chunk, F, Filter, schema

TENANTS = 200
KEYED, SCAN, OPEN = "declared key", "no key", "no row-level security"
LOGIN = "bench_app"
LARGEST = "tenant-0"


@dataclass(frozen=True, slots=True)
class Share:
    """A filter that keeps about this share of the chunks, and its key."""

    name: str
    key: str
    tree: Filter


SHARES = (
    Share("25 %", "quarter", F.quarter == "q1"),
    Share("2 %", "fiftieth", F.fiftieth == "f1"),
    Share("0.1 %", "thousandth", F.thousandth == "t1"),
)


def run(bench: Bench) -> list[Figure]:
    """Search and count with each share, and measure what declared keys cost on writes."""
    count = 10_000 if bench.quick else 50_000
    figures: list[Figure] = []
    with bench.database() as url, bench.database() as bare, ExitStack() as stack:
        say("  filling 200 tenants, twice")
        for one in (url, bare):
            _fill(one, count)
        with psycopg.connect(dsn(bare), autocommit=True) as connection:
            for table in schema.TENANT_TABLES:
                off = sql.SQL("ALTER TABLE pgrecall.{} DISABLE ROW LEVEL SECURITY").format(sql.Identifier(table.name))
                connection.execute(off)
        stores = {
            name: stack.enter_context(pgrecall.connect(one.set(username=LOGIN))).tenant(LARGEST).vectors(COLLECTION)
            for name, one in ((SCAN, url), (OPEN, bare))
        }
        for share in SHARES:
            figures += _figures(f"{share.name} of {stores[OPEN].count():,} chunks", stores, share, url, bench)
    return figures + _writes(bench)


def _writes(bench: Bench) -> list[Figure]:
    """Write batches of 1,000 new chunks to two collections, one with three declared keys."""
    chunks = list(data.chunks(3_000 if bench.quick else 15_000))
    batches = [chunks[at : at + 1_000] for at in range(0, len(chunks), 1_000)]
    with bench.database() as url, pgrecall.connect(url) as db:
        tenant = db.tenant("acme")
        plain, keyed = (tenant.vectors(name, data.SPACE) for name in ("plain", "keyed"))
        for store in (plain, keyed):
            store.upsert([])
        for key in ("lang", "section"):
            tenant.index_key("keyed", key)
        tenant.index_key("keyed", "page", "number")
        systems = {"keyed": lambda turn: keyed.upsert(batches[turn]), "plain": lambda turn: plain.upsert(batches[turn])}
        took = by_turns(systems, len(batches))
        again = by_turns(systems, len(batches))
    return [
        Figure("ingest, no key", 1_000 / statistics.median(took["plain"]), "rows/s"),
        Figure("ingest, three keys", 1_000 / statistics.median(took["keyed"]), "rows/s"),
        Figure("ingest, time with three keys / none", ratio(took["keyed"], took["plain"]), ""),
        Figure("unchanged chunks, time with three keys / none", ratio(again["keyed"], again["plain"]), ""),
    ]


def _fill(url: sa.URL, count: int) -> None:
    """Write the chunks, build the graph, create the login."""
    weights = 1 / np.arange(1, TENANTS + 1) ** 1.1
    sizes = np.maximum(1, (count * weights / weights.sum()).astype(int))
    with pgrecall.connect(url, admin_url=url) as db:
        for number, size in enumerate(sizes):
            made = (
                Chunk(
                    chunk.id,
                    chunk.text,
                    chunk.embedding,
                    metadata={"n": n, "quarter": f"q{n % 4}", "fiftieth": f"f{n % 50}", "thousandth": f"t{n % 1000}"},
                )
                for n, chunk in enumerate(data.chunks(int(size), number))
            )
            db.tenant(f"tenant-{number}").vectors(COLLECTION, data.SPACE).upsert(made)
        db.maintain()
    with psycopg.connect(dsn(url), autocommit=True) as connection:
        connection.execute("DO $$ BEGIN CREATE ROLE bench_app LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
        connection.execute("GRANT pgrecall_app TO bench_app WITH INHERIT FALSE, SET TRUE")
        connection.execute("VACUUM ANALYZE")


def _figures(
    label: str, stores: dict[str, pgrecall.PostgresVectorStore], share: Share, url: sa.URL, bench: Bench
) -> list[Figure]:
    """Measure one share before and after its key is declared, each time against no row-level security."""
    rounds = 20 if bench.quick else 100
    questions = data.vectors(rounds + 5, 7)

    def ask(store: pgrecall.PostgresVectorStore, turn: int) -> Any:
        return store.query(questions[turn], 10, share.tree)

    scan = by_turns({name: partial(ask, store) for name, store in stores.items()}, rounds, warm=5)
    say(f"  {label}: declaring {share.key}")
    with pgrecall.connect(url) as db, pgrecall.connect(url.set(username=LOGIN)) as application:
        db.tenant(LARGEST).index_key(COLLECTION, share.key)
        by_key = {
            KEYED: application.tenant(LARGEST).vectors(COLLECTION),
            OPEN: stores[OPEN],
        }
        if by_key[KEYED].count(share.tree) != stores[OPEN].count(share.tree):
            raise AssertionError(f"{label}: the declared key matches a different number of chunks")
        keyed = by_turns({name: partial(ask, store) for name, store in by_key.items()}, rounds, warm=5)
        counted = by_turns({n: lambda _, s=s: s.count(share.tree) for n, s in by_key.items()}, rounds, warm=5)
    return [
        Figure(f"{label}: query, {SCAN}, p50", statistics.median(scan[SCAN]) * 1e3, "ms"),
        Figure(f"{label}: query, {KEYED}, p50", statistics.median(keyed[KEYED]) * 1e3, "ms"),
        Figure(f"{label}: query, {OPEN}, p50", statistics.median(keyed[OPEN]) * 1e3, "ms"),
        Figure(f"{label}: query, {KEYED} / {OPEN}", ratio(keyed[KEYED], keyed[OPEN]), "", at_most=2.0),
        Figure(f"{label}: count, {KEYED} / {OPEN}", ratio(counted[KEYED], counted[OPEN]), ""),
    ]
