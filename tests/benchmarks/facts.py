"""Putting a fact and looking one up, against the same statements by hand in one transaction; and the speed of a sweep.

"By hand" is psycopg on one connection, with role and tenant, one round trip per statement, plain values instead of
arrays, and no checks. Both supersede facts of 200 subjects with 50 facts each. The sweep purges 50,000 expired facts
and writes an event for each.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.types.json import Jsonb
from tests.benchmarks.handwritten import opening
from tests.benchmarks.harness import Bench, Figure, by_turns, dsn, ratio

import pgrecall
from pgrecall import Fact
from pgrecall.operations.memory.packing import lock_numbers, whole_key
from pgrecall.operations.memory.trail import new_ids

OURS, BY_HAND, TENANT = "pgrecall", "by hand", "acme"
VALUE = {"likes": ["tea", "bread"], "since": 2024}
TEXT = "Likes tea and bread, since 2024."

# The same statements with plain values instead of arrays, one after the other in one transaction.
LOCK_TENANT = "SELECT erased_at FROM pgrecall.tenants WHERE tenant_id = %s FOR SHARE"
ERASED = """
SELECT e.erased_at FROM pgrecall.erased_subjects e WHERE e.tenant_id = %(t)s AND e.subject_hash = sha256((
  SELECT s.salt FROM pgrecall.erased_subjects s WHERE s.tenant_id = %(t)s LIMIT 1) || convert_to(%(s)s, 'UTF8'))"""
SETTINGS = "SELECT text_config FROM pgrecall.memory_settings WHERE tenant_id = %s"
HEAD = """
SELECT clock_timestamp(), id, created_at FROM pgrecall.memory_facts
WHERE tenant_id = %s AND subject = %s AND kind = %s AND key = %s AND namespace = %s
  AND valid_to IS NULL AND deleted_at IS NULL"""
CLOSE = "UPDATE pgrecall.memory_facts SET valid_to = %s WHERE tenant_id = %s AND id = %s"
UNEMBED = "DELETE FROM pgrecall.fact_vectors WHERE tenant_id = %s AND fact_id = %s"
INSERT = """
INSERT INTO pgrecall.memory_facts (tenant_id, id, namespace, subject, kind, key, value, text, actor, valid_from,
  supersedes_id, ttl_refresh, text_search, created_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'me', %s, %s, false, to_tsvector('simple', %s), %s)"""
EVENT = """
INSERT INTO pgrecall.memory_events (tenant_id, id, at, action, target_id, subject, actor)
VALUES (%s, %s, %s, %s, %s, %s, 'me')"""
WHY = {
    "put_fact, against": """pgrecall runs the same statements for one fact as for a thousand: the server unnests arrays,
    and looks up each identity by a lateral join. The rest of the difference is spent in the client: checks, packing,
    arrays, and fourteen pipelined statements at 20 to 30 µs each, in two round trips against twelve.""",
}
FIND = """
SELECT id, namespace, subject, kind, key, value, text, source, confidence, actor, valid_from, valid_to, supersedes_id,
  ttl, ttl_refresh, expires_at, created_at
FROM pgrecall.memory_facts
WHERE tenant_id = %s AND subject = %s AND kind = %s AND key = %s AND valid_to IS NULL AND deleted_at IS NULL
  AND (expires_at > statement_timestamp()) IS NOT FALSE ORDER BY valid_from DESC LIMIT 10"""


class ByHand:
    """One connection with the application's role, as an expert would write it."""

    def __init__(self, url: sa.URL) -> None:
        self.connection = psycopg.connect(dsn(url), autocommit=True)
        self._begin = f"BEGIN; {opening(TENANT)}"

    def put(self, subject: str, key: str) -> None:
        """Put one fact, or supersede it."""
        run = self.connection.execute
        run(self._begin)
        run(LOCK_TENANT, [TENANT]).fetchall()
        run(ERASED, {"t": TENANT, "s": subject}).fetchall()
        run(SETTINGS, [TENANT]).fetchall()
        [number] = lock_numbers(TENANT, [whole_key(subject, "trait", key)])
        run("SELECT pg_advisory_xact_lock(%s)", [number])
        head = run(HEAD, [TENANT, subject, "trait", key, []]).fetchone()
        [(at,)] = run("SELECT clock_timestamp()").fetchall() if head is None else [(head[0],)]
        fact_id, event_id = new_ids(at, 2)
        if head is not None:
            run(CLOSE, [at, TENANT, head[1]])
            run(UNEMBED, [TENANT, head[1]])
        old, created = (None, at) if head is None else head[1:]
        values = [TENANT, fact_id, [], subject, "trait", key, Jsonb(VALUE), TEXT, at, old, TEXT, created]
        run(INSERT, values)
        run(EVENT, [TENANT, event_id, at, "put" if old is None else "supersede", fact_id, subject])
        run("COMMIT")

    def find(self, subject: str, key: str) -> list[Any]:
        """Find the live fact of a key."""
        self.connection.execute(self._begin)
        found = self.connection.execute(FIND, [TENANT, subject, "trait", key]).fetchall()
        self.connection.execute("COMMIT")
        return found


def run(bench: Bench) -> list[Figure]:
    """Measure puts, look-ups and the sweep."""
    with bench.database() as url, pgrecall.connect(url) as db:
        memory = db.tenant(TENANT).memory(actor="me")
        subjects = 20 if bench.quick else 200
        for n in range(subjects):
            memory.put_facts([Fact(f"user-{n}", "trait", f"key-{k}", VALUE, TEXT) for k in range(50)])
        hand = ByHand(url)
        rounds = 100 if bench.quick else 1_000

        def at(turn: int) -> tuple[str, str]:
            return f"user-{turn * 7 % subjects}", f"key-{turn * 3 % 50}"

        def ours_put(turn: int) -> None:
            subject, key = at(turn)
            memory.put_fact(Fact(subject, "trait", key, VALUE, TEXT))

        def ours_find(turn: int) -> None:
            subject, key = at(turn)
            assert len(memory.search_facts(subject=subject, kind="trait", key=key)) == 1

        figures: list[Figure] = []
        pairs = {
            "put_fact": (ours_put, lambda turn: hand.put(*at(turn)), 2.0),
            "search_facts by key": (ours_find, lambda turn: hand.find(*at(turn)), 1.6),
        }
        for name, (ours, theirs, most) in pairs.items():
            took = by_turns({OURS: ours, BY_HAND: theirs}, rounds, warm=50)
            for system, seconds in took.items():
                figures.append(Figure(f"{name}, p50", statistics.median(seconds) * 1e3, "ms", series=system))
            figures.append(Figure(f"{name}, against by hand", ratio(took[OURS], took[BY_HAND]), "×", at_most=most))
        hand.connection.close()
        count = 5_000 if bench.quick else 50_000
        for start in range(0, count, 1_000):
            facts = (Fact("user-0", "episode", f"e-{start + n}", VALUE, TEXT, ttl=0.001) for n in range(1_000))
            started = time.perf_counter()
            memory.put_facts(facts)
            took = time.perf_counter() - started
        figures.append(Figure("put_facts, 1,000 at once", 1_000 / took, "facts/s"))
        started = time.perf_counter()
        swept = db.sweep(batch=2_000)["memory_facts"]
        figures.append(Figure("sweep", swept / (time.perf_counter() - started), "facts/s", at_least=10_000))
        assert swept == count
    return figures
