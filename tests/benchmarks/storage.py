"""Disk space of the rows of [search](#search): vectors with their indexes, and everything.

All systems have the same 50,000 rows, vacuumed. For pgrecall, *vectors and their indexes* is the vectors' table with
its keys and its graph; only large collections are in the graph. The peers store a row's vector and text in one table:
for them it is the bytes of the vectors themselves, without the unused space of their pages, and the HNSW index over all
rows. *Everything* is every table with all of its indexes.
"""

from __future__ import annotations

import psycopg
from tests.benchmarks.harness import Bench, Figure, analyze, dsn

import pgrecall

OURS = "pgrecall"
VECTORS = {
    OURS: "SELECT pg_total_relation_size('pgrecall.chunk_vectors')",
    # The peers' tables differ only in their names: one table with a column `embedding`, and one HNSW index.
    "peers": """
    SELECT (SELECT sum(pg_column_size(embedding)) FROM {table}) + sum(pg_relation_size(i.indexrelid))
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
    WHERE i.indrelid = '{table}'::regclass AND a.amname = 'hnsw'""",
}
EVERYTHING = """
SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname IN ('public', 'pgrecall')
"""
HOLDS = """
SELECT quote_ident(relname) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace AND a.attname = 'embedding'
"""


def run(bench: Bench) -> list[Figure]:
    """Ask each database for its sizes."""
    rows = len(bench.corpus.owners)
    urls = {OURS: bench.promoted[0], **{name: peer.url for name, peer in bench.peers.items()}}
    vectors, everything = {}, {}
    for name, url in urls.items():
        with psycopg.connect(dsn(url)) as connection:
            if name == OURS:
                ask = VECTORS[OURS]
            else:
                [table] = connection.execute(HOLDS).fetchone()
                ask = VECTORS["peers"].format(table=table)
            vectors[name] = float(connection.execute(ask.encode()).fetchone()[0]) / rows
            everything[name] = float(connection.execute(EVERYTHING).fetchone()[0]) / rows
    held = {"vectors and their indexes": vectors, "everything": everything}
    figures = [Figure(w, size, "bytes a row", series=name) for w, by in held.items() for name, size in by.items()]
    for what, by in held.items():
        for name in bench.peers:
            goal = 0.5 if by is vectors else None
            figures.append(Figure(f"{what}: {OURS} / {name}", by[OURS] / by[name], at_most=goal))
    return figures + _in_a_graph(bench, vectors)


def _in_a_graph(bench: Bench, peers: dict[str, float]) -> list[Figure]:
    """Measure the same vectors as one large collection in a graph: the most that pgrecall needs."""
    count = len(bench.corpus.owners)
    with bench.database() as url, pgrecall.connect(url, admin_url=url) as db:
        store = db.tenant("acme").vectors("all", bench.corpus.space)
        store.upsert((bench.corpus.chunk(row) for row in range(count)), commit_every=5_000)
        db.maintain()
        analyze(url)
        with psycopg.connect(dsn(url)) as connection:
            size = float(connection.execute(VECTORS[OURS].encode()).fetchone()[0]) / count
    what = "vectors and their indexes, every row in a graph"
    return [
        Figure(what, size, "bytes a row", series=OURS),
        *(Figure(f"{what}: {OURS} / {name}", size / held) for name, held in peers.items() if name != OURS),
    ]
