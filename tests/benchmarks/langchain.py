"""The LangChain adapter against langchain-postgres' `PGVectorStore` and the core, with the rows of [search](#search).

`add_embeddings` writes up to 1,000 rows per call to a fresh database. The adapter writes tenant by tenant, because a
store is bound to its tenant. `PGVectorStore` writes the rows in their order, without an index; the index is built
afterwards and not counted. Searches are `similarity_search_with_score_by_vector`, by turns with the core and the peer;
the adapter's stores are created before.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from typing import Any

from langchain_core.embeddings import DeterministicFakeEmbedding
from tests.benchmarks import corpora, search
from tests.benchmarks.corpora import CLASSES, Corpus
from tests.benchmarks.harness import Bench, Figure, by_turns, ratio, say

import pgrecall
from langchain_pgrecall import PGRecallVectorStore

BATCH = 1_000
OURS, CORE = "langchain-pgrecall", "pgrecall, the core"
WHY = {
    "add_embeddings: langchain-pgrecall / ": """
    Half of the 200 tenants have fewer than 70 rows, and each needs its own call, collection and transactions. The peer
    writes 1,000 rows per call for any tenants. With 1,000 rows of one tenant per call the core writes 20,000 rows/s and
    more ([ingest](#ingest)); the next figure shows the adapter's overhead.""",
    "p50, large: ": """
    As in [search](#search): the peer keeps 40 candidates of its graph. pgrecall keeps 100, and also scans the rows that
    wait to enter the graph. The recall shows the difference.""",
}


def run(bench: Bench) -> list[Figure]:
    """Write the rows, then ask the questions."""
    corpus, peer = bench.corpus, bench.peers["LangChain"]
    say("  add_embeddings")
    figures = _ingest(bench, corpus, peer.rows_per_second)
    with ExitStack() as stack:
        db = stack.enter_context(pgrecall.connect(bench.promoted[0]))
        ours = {tenant: _store(db, corpus, tenant) for tenant in corpus.sizes()}
        core = {tenant: corpora.store(db, tenant, corpus.space) for tenant in ours}
        for tenant, store in ours.items():  # a store's first use checks its model
            store.similarity_search_with_score_by_vector([1.0] * corpus.space.dim, 1)
            core[tenant].query([1.0] * corpus.space.dim, 1)
        asked = {q.number: q.vector.tolist() for q in corpus.questions}  # floats, as an embedding object gives them
        systems: dict[str, Any] = {
            OURS: lambda q: _ids(ours[q.tenant].similarity_search_with_score_by_vector(asked[q.number], corpora.K)),
            CORE: lambda q: [hit.chunk_id for hit in core[q.tenant].query(asked[q.number], corpora.K)],
            "LangChain": lambda q: peer.query(q.number),
        }
        for kind in CLASSES:
            say(f"  {kind} tenants")
            took, recall = search.ask(corpus.of_class(kind), systems)
            p50 = {name: statistics.median(seconds) * 1e3 for name, seconds in took.items()}
            figures += [Figure(f"p50, {kind}", p50[name], "ms", series=name) for name in systems]
            figures += [
                Figure(f"recall@10, {kind}", recall[OURS], at_least=0.99, series=OURS),
                Figure(f"recall@10, {kind}", recall["LangChain"], series="LangChain"),
                Figure(f"p50, {kind}: {OURS} / LangChain", p50[OURS] / p50["LangChain"], at_most=0.8),
                Figure(f"p50, {kind}: {OURS} / the core", ratio(took[OURS], took[CORE]), at_most=1.15),
            ]
    return figures


def _store(db: pgrecall.Database, corpus: Corpus, tenant: int) -> PGRecallVectorStore:
    fake = DeterministicFakeEmbedding(size=corpus.space.dim)  # called only for the fingerprint's text
    where = {"tenant": f"t{tenant}", "collection": corpora.COLLECTION}
    return PGRecallVectorStore(fake, connection=db, space=corpus.space, **where)


def _ids(found: list[tuple[Any, float]]) -> list[str]:
    return [document.id for document, _ in found]


def _ingest(bench: Bench, corpus: Corpus, theirs: float) -> list[Figure]:
    """Write with the adapter and the core by turns, each into its own database."""
    batches = [
        (tenant, rows[start : start + BATCH])
        for tenant in corpus.sizes()
        for rows in [corpus.rows(tenant)]
        for start in range(0, len(rows), BATCH)
    ]
    given = [[corpus.chunk(int(row)) for row in rows] for _, rows in batches]
    lists = [[chunk.embedding.tolist() for chunk in chunks] for chunks in given]  # as an embedding object gives them
    with ExitStack() as stack:
        first, second = (stack.enter_context(pgrecall.connect(stack.enter_context(bench.database()))) for _ in range(2))
        ours = {tenant: _store(first, corpus, tenant) for tenant in corpus.sizes()}

        def adapter(turn: int) -> None:
            chunks, tenant = given[turn], batches[turn][0]
            texts, ids = [c.text for c in chunks], [c.id for c in chunks]
            ours[tenant].add_embeddings(texts, lists[turn], [dict(c.metadata) for c in chunks], ids)

        def core(turn: int) -> None:
            tenant = batches[turn][0]
            chunks = zip(given[turn], lists[turn], strict=True)
            corpora.store(second, tenant, corpus.space).upsert(
                [pgrecall.Chunk(c.id, c.text, vector, metadata=c.metadata) for c, vector in chunks]
            )

        took = by_turns({OURS: adapter, CORE: core}, len(batches))
    speed = {name: len(corpus.owners) / sum(seconds) for name, seconds in took.items()}
    return [
        *(Figure("add_embeddings", rows, "rows/s", series=name) for name, rows in speed.items()),
        Figure("add_embeddings", theirs, "rows/s", series="LangChain"),
        Figure(f"add_embeddings: {OURS} / LangChain", speed[OURS] / theirs, at_least=15),
        Figure(f"add_embeddings: {OURS}, time / the core's", sum(took[OURS]) / sum(took[CORE]), at_most=1.15),
    ]
