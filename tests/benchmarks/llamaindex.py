"""The LlamaIndex adapter against LlamaIndex's `PGVectorStore` and the core, with the rows of [search](#search).

`add` writes up to 1,000 nodes per call to a fresh database, the adapter tenant by tenant, because a store is bound to
its tenant. LlamaIndex's own classes write and read nodes as JSON; the adapter's times include that. Searches are
`query`, by turns with the core and the peer; the adapter's stores are created before.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from typing import Any

from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.pgrecall import PGRecallVectorStore
from tests.benchmarks import corpora, search
from tests.benchmarks.corpora import CLASSES, Corpus
from tests.benchmarks.harness import Bench, Figure, by_turns, ratio, say

import pgrecall

BATCH = 1_000
OURS, CORE, PEER = "llama-index-pgrecall", "pgrecall, the core", "LlamaIndex"
WHY = {
    "p50, large: ": """
    As in [search](#search): the peer keeps 40 candidates of its graph. pgrecall keeps 100, and also scans the rows that
    wait to enter the graph. The recall shows the difference. The adapter also makes a node from each hit's JSON.""",
}


def run(bench: Bench) -> list[Figure]:
    """Write the rows, then ask the questions."""
    corpus, peer = bench.corpus, bench.peers[PEER]
    say("  add")
    figures = _ingest(bench, corpus, peer.rows_per_second)
    with ExitStack() as stack:
        db = stack.enter_context(pgrecall.connect(bench.promoted[0]))
        ours = {tenant: _store(db, corpus, tenant) for tenant in corpus.sizes()}
        core = {tenant: corpora.store(db, tenant, corpus.space) for tenant in ours}
        systems: dict[str, Any] = {
            OURS: lambda q: ours[q.tenant].query(VectorStoreQuery(q.vector.tolist(), corpora.K)).ids,
            CORE: lambda q: [hit.chunk_id for hit in core[q.tenant].query(q.vector, corpora.K)],
            PEER: lambda q: peer.query(q.number),
        }
        for kind in CLASSES:
            say(f"  {kind} tenants")
            took, recall = search.ask(corpus.of_class(kind), systems)
            p50 = {name: statistics.median(seconds) * 1e3 for name, seconds in took.items()}
            figures += [Figure(f"p50, {kind}", p50[name], "ms", series=name) for name in systems]
            figures += [
                Figure(f"recall@10, {kind}", recall[OURS], at_least=0.99, series=OURS),
                Figure(f"recall@10, {kind}", recall[PEER], series=PEER),
                Figure(f"p50, {kind}: {OURS} / {PEER}", p50[OURS] / p50[PEER], at_most=0.8),
                Figure(f"p50, {kind}: {OURS} / the core", ratio(took[OURS], took[CORE]), at_most=1.25),
            ]
    return figures


def _store(db: pgrecall.Database, corpus: Corpus, tenant: int) -> PGRecallVectorStore:
    return PGRecallVectorStore(corpus.space, connection=db, tenant=f"t{tenant}", collection=corpora.COLLECTION)


def _ingest(bench: Bench, corpus: Corpus, theirs: float) -> list[Figure]:
    """Write with the adapter and the core by turns, each into its own database."""
    batches = [
        (tenant, rows[start : start + BATCH])
        for tenant in corpus.sizes()
        for rows in [corpus.rows(tenant)]
        for start in range(0, len(rows), BATCH)
    ]
    given = [[corpus.chunk(int(row)) for row in rows] for _, rows in batches]
    nodes = [
        [TextNode(id_=c.id, text=c.text, metadata=dict(c.metadata), embedding=c.embedding.tolist()) for c in chunks]
        for chunks in given
    ]
    with ExitStack() as stack:
        first, second = (stack.enter_context(pgrecall.connect(stack.enter_context(bench.database()))) for _ in range(2))
        ours = {tenant: _store(first, corpus, tenant) for tenant in corpus.sizes()}

        def adapter(turn: int) -> None:
            ours[batches[turn][0]].add(nodes[turn])

        def core(turn: int) -> None:
            made = [pgrecall.Chunk(n.id_, n.text, n.embedding, metadata=n.metadata) for n in nodes[turn]]
            corpora.store(second, batches[turn][0], corpus.space).upsert(made)

        took = by_turns({OURS: adapter, CORE: core}, len(batches))
    speed = {name: len(corpus.owners) / sum(seconds) for name, seconds in took.items()}
    return [
        *(Figure("add", rows, "rows/s", series=name) for name, rows in speed.items()),
        Figure("add", theirs, "rows/s", series=PEER),
        Figure(f"add: {OURS} / {PEER}", speed[OURS] / theirs, at_least=15),
        Figure(f"add: {OURS}, time / the core's", sum(took[OURS]) / sum(took[CORE]), at_most=1.25),
    ]
