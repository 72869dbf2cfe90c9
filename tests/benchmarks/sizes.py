"""Disk space of a million chunks (tables, indexes, graph), and the time to build the graph, by vector dimensions.

Measured with 20,000 chunks of 500 characters in one collection, and extrapolated. "Vectors" is the size of the table
before its rows enter a graph, and right after. Marking the rows as part of the graph rewrites each of them, and later
writes reuse the space.
"""

from __future__ import annotations

import time

import numpy as np
import psycopg
from tests.benchmarks.harness import Bench, Figure, dsn, say

import pgrecall
from pgrecall import Chunk, EmbedSpace
from pgrecall.maintenance.indexes import graph_bytes
from pgrecall.types import M

ROWS, DIMS = 20_000, (384, 768, 1_536, 3_072)
SIZES = {
    "text, metadata and their indexes": "pg_total_relation_size('pgrecall.chunks')",
    "vectors": "pg_table_size('pgrecall.chunk_vectors')",
    "keys of the vectors": "pg_relation_size('pgrecall.chunk_vectors_pkey')"
    " + pg_relation_size('pgrecall.chunk_vectors_scan_idx')",
}
MARKED = {
    "vectors, after a graph was built": "pg_table_size('pgrecall.chunk_vectors')",
    "graph": "pg_relation_size('pgrecall.chunk_vectors_graph_1_1')",
}


def run(bench: Bench) -> list[Figure]:
    """Fill, measure, build, measure."""
    rows = ROWS // 5 if bench.quick else ROWS
    figures = []
    for dim in DIMS:
        say(f"  {dim} dims")
        made = np.random.default_rng(dim).normal(size=(rows, dim)).astype(np.float32)
        series = f"{dim:,} dims"
        with (
            bench.database() as url,
            pgrecall.connect(url, admin_url=url) as db,
            psycopg.connect(dsn(url), autocommit=True) as connection,
        ):
            store = db.tenant("acme").vectors("large", EmbedSpace("bench", "sizes", dim))
            chunks = (
                Chunk(f"chunk-{n:08d}", "x" * 500, made[n], f"document-{n // 10}", n % 10, {"lang": "de", "n": n})
                for n in range(rows)
            )
            store.upsert(chunks, commit_every=2_000)
            figures += _sizes(connection, SIZES, rows, series)
            started = time.perf_counter()
            db.maintain()
            minutes = (time.perf_counter() - started) / 60 / rows * 1e6
            figures += _sizes(connection, MARKED, rows, series)
            figures.append(Figure("memory of a build (by its formula)", graph_bytes(dim, M) / 1e3, "GB", series=series))
            figures.append(Figure("building the graph", minutes, "minutes", series=series))
    return figures


def _sizes(connection: psycopg.Connection, what: dict[str, str], rows: int, series: str) -> list[Figure]:
    found = [connection.execute(f"SELECT {size}".encode()).fetchone()[0] for size in what.values()]
    return [Figure(name, size / rows / 1e3, "GB", series=series) for name, size in zip(what, found, strict=True)]
