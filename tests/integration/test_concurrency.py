"""Many writers at once: one row where one belongs, no deadlock, no half."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

import pgrecall
from conftest import as_dsn
from pgrecall import Chunk, Document, EmbedSpace, TenantErased
from support.data import chunks, vectors


def _first_write(url: str, tenant: str, number: int, barrier, queue) -> None:
    try:
        with pgrecall.connect(url) as db:
            store = db.tenant(tenant).vectors("fresh", EmbedSpace("test", f"model of {tenant}", 8))
            barrier.wait(60)
            store.upsert(chunks(5, prefix=f"w{number}-"))
        queue.put(None)
    except Exception as exc:  # noqa: BLE001 - whatever it is, the parent reports it
        queue.put(repr(exc))


def test_sixteen_processes_use_a_new_tenant_collection_and_space_at_once(app_url, db, tenant_id, admin_connection):
    """One row each, no error, every chunk there."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pgrecall"])
    barrier, queue = context.Barrier(16), context.Queue()
    url = app_url.render_as_string(hide_password=False)
    workers = [context.Process(target=_first_write, args=(url, tenant_id, n, barrier, queue)) for n in range(16)]
    for worker in workers:
        worker.start()
    assert [queue.get(timeout=120) for _ in workers] == [None] * 16
    for worker in workers:
        worker.join()
    assert db.tenant(tenant_id).vectors("fresh").count() == 80
    model = f"model of {tenant_id}"
    assert admin_connection.execute(
        "SELECT count(*) FROM pgrecall.embed_spaces WHERE model = %s", (model,)
    ).fetchone() == (1,)


def test_a_writer_that_comes_second_to_a_new_collection_holds_no_registry(db, app_url, tenant_id, space):
    """The lock on the registry of spaces, which is common to all tenants, is not held while a long upsert runs."""
    db.create_tenant(tenant_id)
    db.add_space(space)
    held = []

    def drawn_while_it_writes():
        with psycopg.connect(as_dsn(app_url)) as look:
            [(count,)] = look.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = "
                "(SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        held.append(count)
        yield from chunks(3)

    with psycopg.connect(as_dsn(app_url)) as first, ThreadPoolExecutor(1) as pool:
        first.execute("SET LOCAL ROLE pgrecall_app")
        first.execute(psycopg.sql.SQL("SET LOCAL pgrecall.tenant_id = {}").format(tenant_id))
        first.execute(
            "INSERT INTO pgrecall.collections (tenant_id, name, space_id) SELECT %s, 'new', min(id) "
            "FROM pgrecall.embed_spaces WHERE model = %s",
            (tenant_id, space.model),
        )
        second = pool.submit(db.tenant(tenant_id).vectors("new", space).upsert, drawn_while_it_writes())
        time.sleep(0.5)
        first.commit()
        assert second.result(30).written == 3
    assert held == [0]


def test_writers_of_the_same_ids_in_opposite_orders_never_deadlock(db, tenant_id, space, admin_connection):
    """Eight writers, each with its own order of the same 300 ids and new vectors; Postgres counts no deadlock."""
    store = db.tenant(tenant_id).vectors("handbook", space)
    store.upsert(chunks(300))

    def deadlocks() -> int:
        admin_connection.execute("SELECT pg_stat_force_next_flush()")
        found = admin_connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
        assert found is not None
        return found[0]

    before = deadlocks()

    def write(number: int) -> None:
        order = random.Random(number)
        for turn in range(6):
            made = chunks(300, seed=number * 100 + turn)
            if number % 2:
                made.reverse()
            else:
                order.shuffle(made)
            store.upsert(made)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert store.count() == 300
    assert deadlocks() == before


def test_upserts_deletes_and_replacements_of_the_same_rows_go_on_together(db, tenant_id, space):
    """Writers and deleters of one document's chunks at once: no error reaches a caller, the rows stay consistent."""
    store = db.tenant(tenant_id).vectors("handbook", space)
    made = chunks(40, per_document=40)

    def work(number: int) -> None:
        for turn in range(15):
            fresh = chunks(40, seed=number * 50 + turn, per_document=40)
            if number % 4 == 0:
                store.upsert(fresh)
            elif number % 4 == 1:
                store.delete([c.id for c in fresh[::3]])
            elif number % 4 == 2:
                store.replace_document(Document("c-doc-0", source=f"turn {turn}"), fresh[:30])
            else:
                store.delete_by_doc_id("c-doc-0")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    store.replace_document(Document("c-doc-0"), made)
    assert store.count() == 40 and len(store.query(made[0].embedding, 100)) == 40


def test_two_replacements_of_one_document_leave_one_version_whole(db, tenant_id, space):
    """Whatever the timing, the chunks are those of one of the two versions, all of them."""
    store = db.tenant(tenant_id).vectors("handbook", space)
    made = vectors(60)

    def version(name: str, count: int) -> list[Chunk]:
        return [Chunk(f"{name}-{n}" if n % 2 else f"shared-{n}", f"{name} {n}", made[n]) for n in range(count)]

    for turn in range(25):
        gate = threading.Barrier(2)

        def replace(name: str, count: int, gate: threading.Barrier = gate) -> None:
            gate.wait()
            store.replace_document(Document("doc", source=name), version(name, count))

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(replace, ("a", "b"), (20 + turn, 45 - turn)))
        [document] = store.list_documents(["doc"])
        texts = {c.text for c in store.list_chunks(limit=1000)}
        count = 20 + turn if document.source == "a" else 45 - turn
        assert texts == {f"{document.source} {n}" for n in range(count)}


def test_a_deleted_tenant_refuses_writers_that_were_under_way(db, tenant_id, space, admin_connection):
    """If delete_tenant runs during eight busy writers, each writer ends with TenantErased and nothing is left."""
    store = db.tenant(tenant_id).vectors("handbook", space)
    store.upsert(chunks(5))
    refused, started = [], threading.Barrier(9)

    def write(number: int) -> None:
        started.wait()
        for turn in range(10_000):
            store.upsert(chunks(20, seed=turn, prefix=f"w{number}-"))

    def write_until_refused(number: int) -> None:
        with pytest.raises(TenantErased, match="was deleted"):
            write(number)
        refused.append(number)

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(write_until_refused, n) for n in range(8)]
        started.wait()
        db.delete_tenant(tenant_id)
        for one in running:
            one.result(timeout=120)
    assert sorted(refused) == list(range(8))
    for table in ("collections", "documents", "chunks", "chunk_vectors"):
        rows = admin_connection.execute(f"SELECT count(*) FROM pgrecall.{table} WHERE tenant_id = %s", (tenant_id,))
        assert rows.fetchone() == (0,)
    assert db.tenant_info(tenant_id).erased_at is not None
    assert db.create_tenant(tenant_id, reopen=True) and store.upsert(chunks(5)).written == 5
