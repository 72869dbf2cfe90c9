"""Cancelled tasks, killed connections, restarted servers: a typed error, nothing left behind, the next call works."""

from __future__ import annotations

import asyncio
import contextlib
import os

import psycopg
import pytest
import sqlalchemy as sa

import pgrecall
from conftest import as_dsn
from pgrecall import PgRecallError, Unavailable, embedded
from pgrecall.postgres.pipelines import PipelinedTransaction
from support.data import chunks


@pytest.fixture
def tight(app_url: sa.URL):
    """A database with one connection only: a lost pool slot would block the next call."""
    with pgrecall.connect(app_url, pool_size=1, max_overflow=0, pool_timeout=5) as db:
        yield db


@pytest.fixture
def store(tight, tenant_id, space):
    made = tight.tenant(tenant_id).vectors("handbook", space)
    made.upsert(chunks(20))
    return made


def left_open(admin: psycopg.Connection) -> int:
    """Transactions that nobody is working on."""
    found = admin.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'test_app' AND state LIKE 'idle in transaction%%'", ()
    ).fetchone()
    assert found is not None
    return found[0]


class Killer:
    """Ends the transaction's own backend just before its message number `step`."""

    def __init__(self, admin: psycopg.Connection, step: int) -> None:
        self.admin, self.step, self.seen, self.killed = admin, step, 0, False

    def __call__(self, raw) -> None:
        if self.seen == self.step:
            self.admin.execute("SELECT pg_terminate_backend(%s, 5000)", (raw.info.backend_pid,))
            self.killed = True
        self.seen += 1

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        send = PipelinedTransaction._send

        def wrapped(tx, work):
            self(tx._connection.raw)
            return send(tx, work)

        monkeypatch.setattr(PipelinedTransaction, "_send", wrapped)


CALLS = {
    "query": lambda s: s.query(chunks(20)[0].embedding, 3),
    "upsert": lambda s: s.upsert(chunks(20, seed=5)),
    "replace": lambda s: s.replace_document(pgrecall.Document("c-doc-0"), chunks(5, seed=6)),
    "delete": lambda s: s.delete(["c0001"]),
    "delete_by_doc_id": lambda s: s.delete_by_doc_id("c-doc-1"),
    "list": lambda s: s.list_chunks(),
    "set_metadata": lambda s: s.set_metadata({"a": 1}, ids=["c0001"]),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_backend_killed_at_any_step_is_a_typed_error_and_nothing_is_half_done(
    call, store, admin_connection, monkeypatch
):
    """Whichever message the connection dies before, Unavailable and no change; before the first one, no error either.

    Of a transaction's first message nothing can have been kept, so that it is sent again.
    """
    before = store.list_chunks(with_embeddings=True, limit=100)
    for step in range(1, 12):
        killer = Killer(admin_connection, step)
        with monkeypatch.context() as patched:
            killer.install(patched)
            try:
                CALLS[call](store)
            except Unavailable:
                assert killer.killed
            else:
                assert not killer.killed
                break
        assert store.list_chunks(with_embeddings=True, limit=100) == before
    else:
        pytest.fail("the call never ran through")
    killer = Killer(admin_connection, 0)
    killer.install(monkeypatch)
    assert CALLS[call](store) is not None and killer.killed
    assert left_open(admin_connection) == 0


@pytest.mark.parametrize("call", CALLS)
def test_the_same_on_the_asynchronous_side(call, store, admin_connection, monkeypatch):
    """A killed backend under an asynchronous call: Unavailable, and the next call on the same loop works."""
    names = {"replace": "areplace_document"}

    async def go() -> None:
        made = chunks(20)
        calls = {
            "query": lambda: store.aquery(made[0].embedding, 3),
            "upsert": lambda: store.aupsert(chunks(20, seed=5)),
            "replace": lambda: store.areplace_document(pgrecall.Document("c-doc-0"), chunks(5, seed=6)),
            "delete": lambda: store.adelete(["c0001"]),
            "delete_by_doc_id": lambda: store.adelete_by_doc_id("c-doc-1"),
            "list": lambda: store.alist_chunks(),
            "set_metadata": lambda: store.aset_metadata({"a": 1}, ids=["c0001"]),
        }
        for step in range(1, 12):
            killer = Killer(admin_connection, step)
            with monkeypatch.context() as patched:
                killer.install(patched)
                try:
                    await calls[call]()
                except Unavailable:
                    assert killer.killed
                else:
                    assert not killer.killed
                    break
            assert await store.acount() == 20
        else:
            pytest.fail(f"{names.get(call, call)} never ran through")
        killer = Killer(admin_connection, 0)
        killer.install(monkeypatch)
        assert await calls[call]() is not None and killer.killed

    asyncio.run(go())
    assert left_open(admin_connection) == 0


def test_idle_connections_that_died_are_replaced_without_an_error(app_url, admin_connection, tenant_id, space):
    """Every pooled connection is killed while idle; each following call succeeds, sync and async."""

    async def go() -> None:
        with pgrecall.connect(app_url, pool_size=4) as db:
            store = db.tenant(tenant_id).vectors("handbook", space)
            store.upsert(chunks(5))
            await asyncio.gather(*(store.acount() for _ in range(20)))
            admin_connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'test_app'"
            )
            assert [await store.acount() for _ in range(5)] == [5] * 5
            assert [store.count() for _ in range(5)] == [5] * 5

    asyncio.run(go())


def test_a_restarted_server_costs_no_error_between_calls(reachable, space):
    """The server goes away and comes back between two calls; the second one just works."""
    home = reachable / f"restart-{os.getpid()}"
    with embedded.start(home) as server, pgrecall.connect(home=home) as owner:
        with pgrecall.connect(server.url) as db:
            store = db.tenant("acme").vectors("handbook", space)
            store.upsert(chunks(10))
            assert embedded.stop(home)
            with pytest.raises(Unavailable, match="call again"):
                store.count()
            with embedded.start(home):
                assert [store.count(), store.count()] == [10, 10]
                assert store.upsert(chunks(10)).unchanged == 10
        owner.close()


def test_a_cancelled_task_leaves_no_slot_and_no_setting(store, admin_connection):
    """Calls cancelled after every delay from nothing to their whole length; the single pool slot stays usable."""

    async def go() -> None:
        many = chunks(400, seed=3)
        cancelled = 0
        for step in range(60):
            call = store.aupsert(many) if step % 2 else store.aquery(many[0].embedding, 20)
            task = asyncio.ensure_future(call)
            await asyncio.sleep(step * 0.0005)
            if task.cancel():
                cancelled += 1
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert await asyncio.wait_for(store.acount(), 10) in (20, 400)
        assert cancelled > 5

    asyncio.run(go())
    assert left_open(admin_connection) == 0
    assert store.count() in (20, 400)


def test_a_statement_that_times_out_is_typed_and_the_connection_lives(app_url, tenant_id, space, admin_connection):
    """statement_timeout on the login: DatabaseError, then the same connection goes on."""
    with pgrecall.connect(app_url, pool_size=1, max_overflow=0, pool_timeout=5) as db:
        store = db.tenant(tenant_id).vectors("handbook", space)
        store.upsert(chunks(5))
        with psycopg.connect(as_dsn(app_url.set(username="postgres"))) as blocker:
            blocker.execute("LOCK TABLE pgrecall.chunks IN ACCESS EXCLUSIVE MODE")
            admin_connection.execute("ALTER ROLE test_app SET statement_timeout = '1s'")
            try:
                with pgrecall.connect(app_url, pool_size=1, max_overflow=0) as limited:
                    with pytest.raises(PgRecallError, match="statement timeout"):
                        limited.tenant(tenant_id).vectors("handbook", space).count()
                    blocker.rollback()
                    assert limited.tenant(tenant_id).vectors("handbook", space).count() == 5
            finally:
                admin_connection.execute("ALTER ROLE test_app RESET statement_timeout")
