"""Appending to a chat, reading its last messages, and storing a run's state, against the same statements by hand.

"By hand" is psycopg on one connection, with one round trip for each step: BEGIN with role and tenant, lock the tenant's
row, update the chat's row to take a position, insert the message with its full text, COMMIT. It checks nothing and
builds no JSON of pgrecall's. Both append to their own chats, which already have 500 messages.
"""

from __future__ import annotations

import asyncio
import statistics
import uuid
from typing import Any

import psycopg
from tests.benchmarks.handwritten import opening
from tests.benchmarks.harness import Bench, Figure, aby_turns, by_turns, dsn, ratio

import pgrecall
from pgrecall import Message, RunState

OURS, BY_HAND, TENANT = "pgrecall", "by hand", "acme"
TEXT = "How long is the parental leave, and may both parents take it at the same time in the first year? " * 3

HOLD = "SELECT FROM pgrecall.tenants WHERE tenant_id = %s FOR SHARE"
POSITION = """
UPDATE pgrecall.chat_sessions SET next_position = next_position + 1, updated_at = statement_timestamp()
WHERE tenant_id = %s AND session_id = %s RETURNING next_position - 1, updated_at"""
INSERT = """
INSERT INTO pgrecall.chat_messages
  (tenant_id, session_id, position, message_id, role, text, metadata, text_search, created_at)
VALUES (%s, %s, %s, %s, 'user', %s, '{}', to_tsvector('simple', %s), %s)"""
LAST = """
SELECT position, message_id, role, text, content, tool_calls, metadata, payload, created_at FROM pgrecall.chat_messages
WHERE tenant_id = %s AND session_id = %s AND status = 'active' ORDER BY position DESC LIMIT 20"""
WHY = {
    "append, against": """
    The server runs the same two statements. pgrecall adds 0.5 ms. More than half of it is spent in the client, on
    checking and packing the message and on eight pipelined statements at 20 to 30 µs each. On one machine these cost
    more than the round trips that they save; on a network they cost far less: two round trips against five. The rest
    is spent in the server: rows are sent as arrays, and an append with an existing id replaces that message.""",
}
PUT = """
UPDATE pgrecall.runs SET state = %s, state_version = state_version + 1, updated_at = statement_timestamp()
WHERE tenant_id = %s AND run_id = %s AND state_version = %s RETURNING state_version"""


class ByHand:
    """One connection and the same statements."""

    def __init__(self, url: Any) -> None:
        self._connection = psycopg.connect(dsn(url), autocommit=True)
        self._begin = f"BEGIN; {opening(TENANT)}"
        self._version = 1

    def append(self, _: int) -> None:
        """Append one message."""
        run = self._connection.execute
        run(self._begin)
        run(HOLD, [TENANT])
        [(position, now)] = run(POSITION, [TENANT, BY_HAND]).fetchall()
        run(INSERT, [TENANT, BY_HAND, position, uuid.uuid4().hex, TEXT, TEXT, now])
        run("COMMIT")

    def last(self, _: int) -> None:
        """Read the newest 20 messages."""
        self._connection.execute(self._begin)
        self._connection.execute(LAST, [TENANT, BY_HAND]).fetchall()
        self._connection.execute("COMMIT")

    def put(self, _: int) -> None:
        """Store a run's next state."""
        run = self._connection.execute
        run(self._begin)
        run(HOLD, [TENANT])
        run(PUT, [psycopg.types.json.Jsonb(state(self._version)), TENANT, BY_HAND, self._version])
        self._version += 1
        run("COMMIT")


def state(n: int) -> dict[str, Any]:
    """A state of about 2 kB."""
    return {"step": n, "messages": [{"role": "user", "content": TEXT}] * 6, "done": False}


def run(bench: Bench) -> list[Figure]:
    """Measure sync, then async."""
    rounds = 100 if bench.quick else 1_000
    figures: list[Figure] = []
    with bench.database() as url, pgrecall.connect(url) as db:
        tenant = db.tenant(TENANT)
        chat, runs = tenant.chat(OURS), tenant.runs()
        for name in (OURS, BY_HAND):
            tenant.chat(name).append([Message("user", f"{TEXT} {n}") for n in range(500)])
            runs.put(RunState(name, state(0)))
        hand = ByHand(url)
        held = [runs.get(OURS)]

        def put(turn: int) -> None:
            held[0] = runs.put(RunState(OURS, state(turn), state_version=held[0].state_version))

        pairs = {
            "append": (lambda _: chat.append(Message("user", TEXT)), hand.append, 2.0),
            "last 20": (lambda _: chat.list_messages(20), hand.last, None),
            "put of a run": (put, hand.put, None),
        }
        for name, (ours, theirs, most) in pairs.items():
            took = by_turns({OURS: ours, BY_HAND: theirs}, rounds, warm=50)
            for system, seconds in took.items():
                figures.append(Figure(f"{name}, p50", statistics.median(seconds) * 1e3, "ms", series=system))
            figures.append(Figure(f"{name}, against by hand", ratio(took[OURS], took[BY_HAND]), "×", at_most=most))

        async def append() -> list[float]:
            async def ours(_: int) -> None:
                await chat.aappend(Message("user", TEXT))

            took = await aby_turns({OURS: ours}, rounds, warm=50)
            db.close()
            return took[OURS]

        figures.append(Figure("aappend, p50", statistics.median(asyncio.run(append())) * 1e3, "ms", series=OURS))
    return figures
