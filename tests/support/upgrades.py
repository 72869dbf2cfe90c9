"""What an upgrade does to a filled database that others write to: every table has rows, and someone writes to each."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

import psycopg
import sqlalchemy as sa

import pgrecall
from pgrecall import Chunk, DocstoreEntry, Document, EmbedSpace, Fact, Message, RunState, schema
from pgrecall.admin import migrate
from pgrecall.evaluation import EvalQuery, EvalSet, Evaluations, evaluate
from support.data import vectors

SPACE = EmbedSpace("test", "eight", 8)
#: Each writer waits this long before it writes again.
PAUSE = 0.002


class Upgraded(NamedTuple):
    """One revision's upgrade: how long it took, and who waited longest for a row's write meanwhile."""

    revision: str
    seconds: float
    table: str
    blocked: float


def fill(url: sa.URL, rows: int) -> None:
    """Put `rows` chunks, facts and messages, and a few of all else, in: each table of a tenant's has rows."""
    made = vectors(1_000)
    with pgrecall.connect(url, admin_url=url) as db:
        tenant = db.tenant("acme")
        store = tenant.vectors("handbook", SPACE, text_config="english", indexed_keys={"lang": "text"})
        store.upsert(
            (
                Chunk(f"c{n:07d}", f"text number {n}", made[n % 1_000], f"d{n // 10}", n % 10, {"n": n, "lang": "en"})
                for n in range(rows)
            ),
            documents=[Document("d0", source="wiki")],
            commit_every=5_000,
        )
        db.maintain()
        memory = tenant.memory(actor="assistant", space=SPACE)
        for start in range(0, rows, 1_000):
            numbers = range(start, start + 1_000)
            memory.put_facts(Fact(f"user {n % 99}", "k", str(n), n, embedding=made[n % 1_000]) for n in numbers)
            session = tenant.chat(f"session {start}", f"user {start % 99}")
            session.append([Message("user", f"message {n}") for n in numbers])
        runs = tenant.runs()
        runs.put(RunState("run", {"step": 1}, subject="ana"))
        runs.append_event("run", "note", {"of": 1})
        store.for_run("run").query(made[0])
        tenant.index_records("handbook").update([f"c{n:07d}" for n in range(1_000)])
        tenant.docstore("handbook").put([DocstoreEntry(f"d{n}", "hash") for n in range(1_000)])
        questions = EvalSet("questions", (EvalQuery("q", "what?", {"c0000000": 1}),))
        evaluate(store, questions, store=Evaluations(tenant), embed=lambda texts: made[: len(texts)], top_k=1)
        Evaluations(tenant).save_records("datasets", "kept", [{"a": 1}])
        tenant.erase_subject("nobody", actor="privacy desk")


def counted(url: sa.URL) -> dict[str, int]:
    """The rows of each table that there is."""
    with psycopg.connect(_dsn(url)) as connection:
        return {
            table.name: connection.execute(f"SELECT count(*) FROM pgrecall.{table.name}".encode()).fetchone()[0]
            for table in schema.TENANT_TABLES
            if connection.execute("SELECT to_regclass(%s)", [f"pgrecall.{table.name}"]).fetchone() != (None,)
        }


def upgraded(url: sa.URL, revision: str) -> Upgraded:
    """Go to `revision`, while to each table that stands before it a writer writes its rows, one after the other.

    A writer that gets an error raises it here.
    """
    stop, longest, failed = threading.Event(), {}, []

    def write(table: str) -> None:
        one = f"UPDATE pgrecall.{table} SET tenant_id = tenant_id WHERE ctid = (SELECT min(ctid) FROM pgrecall.{table})"
        with psycopg.connect(_dsn(url), autocommit=True) as connection:
            while not stop.is_set():
                started = time.perf_counter()
                try:
                    connection.execute(one.encode())
                except psycopg.Error as exc:
                    failed.append(exc)
                    return
                longest[table] = max(longest.get(table, 0.0), time.perf_counter() - started)
                time.sleep(PAUSE)

    writers = [threading.Thread(target=write, args=(name,)) for name, rows in counted(url).items() if rows]
    for writer in writers:
        writer.start()
    try:
        time.sleep(0.2)
        longest.clear()  # connections and first plans
        started = time.perf_counter()
        migrate.upgrade(url, revision)
        took = time.perf_counter() - started
        time.sleep(0.1)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    if failed:
        raise failed[0]
    table = max(longest, key=longest.__getitem__)
    return Upgraded(revision, took, table, longest[table])


def _dsn(url: sa.URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)
