"""The 10 nearest chunks of one tenant: 50,000 chunks of 384 dimensions, 200 tenants of very different sizes.

A large tenant owns more than 5 % of all rows, a medium one more than 0.5 %. Every system holds the same rows in a
fresh, analyzed database of the same server. The systems answer the same questions in turns of ten, and each peer
measures its time in its own process. `db.maintain()` has promoted pgrecall's large collections.

"By hand" is psycopg with the same transaction as pgrecall: BEGIN, SET LOCAL, the query, COMMIT. *Its own table* is the
best design without pgrecall's schema: tenant, text, metadata and vector in one row, one HNSW index over all rows, and
`relaxed_order`. *Our tables* is the query that an expert would write for pgrecall's tables, role and policies: an exact
scan for small and medium tenants; for large ones the graph with pgrecall's `ef_search`, and a scan of the rows that
wait to enter it.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from typing import Any

import numpy as np
from tests.benchmarks import corpora, handwritten, onetable
from tests.benchmarks.corpora import CLASSES, Corpus
from tests.benchmarks.harness import Bench, Figure, Seconds, by_turns, dsn, say
from tests.benchmarks.peers import Timed

import pgrecall
from pgrecall.operations.search.routes import exact_max

OURS, TABLE, TABLES = "pgrecall", "by hand, its own table", "by hand, our tables"
#: Questions per turn: few enough that a slow second slows all systems.
TURN = 10
#: p50 of pgrecall / by hand.
BY_HAND = {"large": 1.25, "medium": 1.25, "small": 1.5}


OVERHEAD = """pgrecall's search also checks and converts the vector (0.05 ms), sends six statements in one pipeline
(0.15 ms), and makes Hit objects from rows (0.08 ms). On the server it looks up each hit's document and provenance, and
checks that the collection uses the vector's space."""
WHY = {
    f"p50, {kind}: {OURS} / by hand": f"""A table of its own is a single relation to plan and to read. It has no
    row-level security, no documents, and no rows that wait outside a graph; in the large class its recall is lower.
    {OVERHEAD}"""
    for kind in CLASSES
}


def run(bench: Bench) -> list[Figure]:
    """Measure recall and time for each class."""
    corpus, peers = bench.corpus, bench.peers
    url, built = bench.promoted
    with ExitStack() as stack:
        db = stack.enter_context(pgrecall.connect(url))
        say("  filling the table by hand")
        own = stack.enter_context(bench.database(migrated=False))
        onetable.fill(own, corpus)
        table = onetable.Reader(own)
        stack.callback(table.connection.close)
        tables = handwritten.TenantsReader(dsn(url), built.space_id, corpus.space.dim, built.generation)
        stack.callback(tables.connection.close)
        sizes, most = corpus.sizes(), exact_max(corpus.space.dim)
        systems = {
            OURS: lambda q: [h.chunk_id for h in corpora.store(db, q.tenant, corpus.space).query(q.vector, corpora.K)],
            TABLE: lambda q: table.query(q.tenant, q.vector),
            TABLES: lambda q: tables.query(f"t{q.tenant}", q.vector, by_graph=sizes[q.tenant] > most),
            **{name: lambda q, peer=peer: peer.query(q.number) for name, peer in peers.items()},
        }
        figures = compare(corpus, systems, tuple(peers))
        _attach(bench, db, corpus)
        return figures


def _attach(bench: Bench, db: pgrecall.Database, corpus: Corpus) -> None:
    """Add the plan of a question of each class: by the graph's index, or by the scan index."""
    sizes = corpus.sizes()
    for kind in CLASSES:
        asked = corpus.of_class(kind)[0]
        how = corpora.store(db, asked.tenant, corpus.space).query(asked.vector, corpora.K, explain="plan").explanation
        bench.attach(
            f"EXPLAIN (ANALYZE, BUFFERS) of a {kind} tenant, {sizes[asked.tenant]:,} rows: {how.shape}", how.plan
        )


def compare(corpus: Corpus, systems: dict[str, Any], peers: tuple[str, ...]) -> list[Figure]:
    """Ask each class of questions, by turns."""
    recalls, p50s, p95s, by_hand, by_peer = [], [], [], [], []
    for kind in CLASSES:
        say(f"  {kind} tenants")
        questions = corpus.of_class(kind)
        took, recall = ask(questions, systems)
        p50 = {name: statistics.median(seconds) * 1e3 for name, seconds in took.items()}
        for name in systems:
            least = 0.99 if name == OURS else None
            recalls.append(Figure(f"recall@10, {kind}", recall[name], at_least=least, series=name))
            p50s.append(Figure(f"p50, {kind}", p50[name], "ms", series=name))
            p95s.append(Figure(f"p95, {kind}", float(np.quantile(took[name], 0.95)) * 1e3, "ms", series=name))
        goal = BY_HAND[kind]
        by_hand += [Figure(f"p50, {kind}: {OURS} / {n}", p50[OURS] / p50[n], at_most=goal) for n in (TABLE, TABLES)]
        faster = min(peers, key=lambda name: p50[name])
        by_peer.append(Figure(f"p50, {kind}: {OURS} / {faster}, the faster peer", p50[OURS] / p50[faster], at_most=0.8))
    return [*recalls, *p50s, *p95s, *by_hand, *by_peer]


def ask(questions: list[corpora.Question], systems: dict[str, Any]) -> tuple[Seconds, dict[str, float]]:
    """Return the seconds of each call, and the mean recall of each system."""
    found: dict[str, list[float]] = {name: [] for name in systems}

    def asking(name: str, system: Any) -> Any:
        def one(turn: int) -> Any:
            question = questions[turn % len(questions)]
            given = system(question)
            ids = given.ids if isinstance(given, Timed) else given
            found[name].append(len(question.nearest & set(ids)) / len(question.nearest))
            return given

        return one

    # The first questions are asked twice: the warm-up is not counted, so that each counts once.
    took = by_turns(
        {name: asking(name, s) for name, s in systems.items()}, len(questions), warm=len(questions) // 10, block=TURN
    )
    return took, {name: statistics.mean(shares) for name, shares in found.items()}
