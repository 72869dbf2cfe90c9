"""Ingest of chunks with 384 dimensions, about 500 characters of text, and metadata, in transactions of 1,000 chunks.

A document has ten chunks. pgrecall and the hand-written variants take turns batch by batch. Each writes into its own
database that was never analyzed, with autovacuum off. "By hand" is plain INSERT without any checks, with psycopg's and
pgvector's binary adapters, into the same tables with the same indexes, role and policies. COPY writes to temporary
tables first, because Postgres refuses COPY under row-level security.

The peers write the 50,000 chunks of [search](#search), 1,000 per call, without full text. LangChain's index is built
afterwards and not counted; LlamaIndex creates its index before the first row.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
from tests.benchmarks import data
from tests.benchmarks.handwritten import COLLECTION, Writer
from tests.benchmarks.harness import Bench, Figure, by_turns, dsn, ratio, say

import pgrecall

BATCH = 1_000
TENANT = "acme"
HAND = ("unnest", "executemany", "copy")
OURS = ("pgrecall", "pgrecall, float lists")
WHY = {
    "no full text: pgrecall / ": """
    The target assumes a peer that writes 620 rows/s. On this machine the peer writes twice as many, and the limit of
    pgrecall is what Postgres itself can write, as the ratios to unnest and COPY show.""",
    "full text: pgrecall / ": """
    For the same reason. Also, the peer keeps no full text, and Postgres spends half of pgrecall's time on it.""",
}


def run(bench: Bench) -> list[Figure]:
    """Measure without and with full text."""
    chunks = list(data.chunks(5_000 if bench.quick else 20_000))
    batches = [chunks[i : i + BATCH] for i in range(0, len(chunks), BATCH)]
    figures: list[Figure] = []
    for text_config in (None, "english"):
        figures += _compare(bench, batches, text_config)
    return figures


def _compare(bench: Bench, batches: list[list[pgrecall.Chunk]], text_config: str | None) -> list[Figure]:
    label = "no full text" if text_config is None else "full text"
    as_lists = [
        [dataclasses.replace(c, embedding=np.asarray(c.embedding).tolist()) for c in batch] for batch in batches
    ]
    rounds = len(batches)
    took: dict[str, list[float]] = {name: [] for name in (*OURS, *HAND)}
    for repeat in range(1 if bench.quick else 3):
        say(f"  {label}, repeat {repeat + 1}")
        with ExitStack() as stack:
            systems: dict[str, Callable[[int], object]] = {}
            for name, given in ((OURS[0], batches), (OURS[1], as_lists)):
                store = empty_store(bench, stack, text_config)[0]
                systems[name] = lambda turn, store=store, given=given: store.upsert(given[turn])
            for way in HAND:
                _, address, space_id = empty_store(bench, stack, text_config)
                writer = Writer(address, TENANT, space_id, way, text_config)
                stack.callback(writer.connection.close)
                systems[way] = lambda turn, writer=writer: writer.write(batches[turn])
            for name, seconds in by_turns(systems, rounds).items():
                took[name] += seconds
    speed = {name: BATCH / statistics.median(seconds) for name, seconds in took.items()}
    best = max(("unnest", "executemany"), key=lambda way: speed[way])
    faster, rows_s = max(((name, peer.rows_per_second) for name, peer in bench.peers.items()), key=lambda p: p[1])
    return [
        *(Figure(label, speed[name], "rows/s", series=name) for name in took),
        *(Figure(label, p.rows_per_second, "rows/s", series=n) for n, p in bench.peers.items() if not text_config),
        Figure(f"{label}: pgrecall / best by hand ({best})", ratio(took[best], took[OURS[0]]), "", at_least=0.7),
        Figure(f"{label}: float lists / best by hand ({best})", ratio(took[best], took[OURS[1]]), ""),
        Figure(f"{label}: pgrecall / COPY", ratio(took["copy"], took[OURS[0]]), ""),
        Figure(
            f"{label}: pgrecall / {faster} without full text, the faster peer",
            speed[OURS[0]] / rows_s,
            at_least=20 if text_config is None else 10,
        ),
    ]


def empty_store(
    bench: Bench, stack: ExitStack, text_config: str | None
) -> tuple[pgrecall.PostgresVectorStore, str, int]:
    """A store in a fresh database that already has its tenant, space and collection."""
    url = stack.enter_context(bench.database())
    db = stack.enter_context(pgrecall.connect(url))
    store = db.tenant(TENANT).vectors(COLLECTION, data.SPACE, text_config=text_config)
    store.upsert([])
    return store, dsn(url), db.add_space(data.SPACE)
