"""`tenant.atomic()`: several operations, one transaction, in both modes; and what becomes of it when one fails."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest
import sqlalchemy as sa

import pgrecall
from pgrecall import Chunk, ConfigurationError, Document, EmbedSpace, InvalidEmbedding, RolledBack, Unavailable
from support.data import chunks, vectors

ONES = [1.0] * 8


def fails_with(kind, match=None):
    """Run the decorated function at once; it must raise so."""

    def run(body):
        with pytest.raises(kind, match=match):
            body()

    return run


@pytest.fixture
def tight(app_url: sa.URL):
    """A database with one connection for each mode: a lost pool slot would block the next call."""
    with pgrecall.connect(app_url, pool_size=1, max_overflow=0, pool_timeout=5) as db:
        db.add_space(EmbedSpace("test", "eight", 8))
        yield db


@pytest.fixture
def tenant(tight, tenant_id):
    return tight.tenant(tenant_id)


@pytest.fixture
def stores(tenant, space):
    return tenant.vectors("one", space), tenant.vectors("two", space)


def put(*stores):
    for store in stores:
        store.upsert([Chunk("a", "text", ONES)])


def counts(*stores):
    return [store.count() for store in stores]


def test_operations_of_a_block_are_there_together_or_not_at_all(stores, db, tenant, tenant_id):
    """Until the block ends nobody else sees a part of it, the block itself does; an error inside takes all back."""
    others = [db.tenant(tenant_id).vectors(store.collection) for store in stores]
    with tenant.atomic():
        put(*stores)
        assert counts(*stores) == [1, 1] and counts(*others) == [0, 0]
        assert [hit.chunk_id for hit in stores[0].query(ONES)] == ["a"]
    assert counts(*others) == [1, 1]

    @fails_with(ZeroDivisionError)
    def _():
        with tenant.atomic():
            stores[0].delete(["a"])
            stores[1].drop()
            stores[0].replace_document(Document("d"), [Chunk("b", "text", ONES)])
            raise ZeroDivisionError

    assert counts(*stores) == counts(*others) == [1, 1]
    assert stores[0].list_documents() == []


def test_the_same_with_async(stores, db, tenant, tenant_id):
    """`async with` is the same for the a… methods, those of tasks made inside too, which take turns."""
    others = [db.tenant(tenant_id).vectors(store.collection) for store in stores]

    async def go():
        async with tenant.atomic():
            await asyncio.gather(*(store.aupsert(chunks(30, prefix=f"{n}-")) for n in range(4) for store in stores))
            assert [await store.acount() for store in (*stores, *others)] == [120, 120, 0, 0]
        assert [await store.acount() for store in others] == [120, 120]

        async def fails():
            async with tenant.atomic():
                await stores[0].adrop()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fails()

    with db:
        asyncio.run(go())
    assert counts(*stores) == [120, 120]


def test_an_error_that_is_caught_inside_rolls_the_block_back_all_the_same(stores, tenant):
    """What comes after it is refused, and the end of the block says so; the next block works."""

    @fails_with(RolledBack, match=r"failed \(InvalidEmbedding.*was caught inside the block")
    def _():
        with tenant.atomic():
            put(stores[0])
            with pytest.raises(InvalidEmbedding):
                stores[1].upsert([*chunks(3), Chunk("bad", "text", [0.0] * 8)])
            for call in (stores[0].count, lambda: put(stores[0]), lambda: tenant.atomic().__enter__()):
                with pytest.raises(RolledBack, match="run the whole block again"):
                    call()

    assert counts(*stores) == [0, 0]
    with tenant.atomic():
        put(*stores)
    assert counts(*stores) == [1, 1]


def test_a_block_within_a_block_is_a_part_of_it(stores, tenant):
    """Its end commits nothing, and an error that leaves it rolls the outer one back, caught or not."""

    @fails_with(ZeroDivisionError)
    def _():
        with tenant.atomic():
            with tenant.atomic():
                put(stores[0])
            raise ZeroDivisionError

    assert counts(*stores) == [0, 0]

    @fails_with(RolledBack)
    def _():
        with tenant.atomic():
            put(stores[0])
            with pytest.raises(ZeroDivisionError), tenant.atomic():
                raise ZeroDivisionError

    assert counts(*stores) == [0, 0]


def test_other_tenants_and_the_other_mode_are_refused_inside(stores, tight, tenant, tenant_id):
    """Their operations could not be part of the transaction; the block itself goes on."""
    other = tight.tenant(f"{tenant_id}-other")

    async def mixed():
        async with tenant.atomic():
            with pytest.raises(ConfigurationError, match=r"`async with .*only the a… methods"):
                stores[0].count()
            await stores[0].aupsert(chunks(2))

    with tenant.atomic():
        for call in (other.vectors("one").count, other.list_collections, lambda: other.atomic().__enter__()):
            with pytest.raises(ConfigurationError, match="an operation of another tenant"):
                call()
        with pytest.raises(ConfigurationError, match=r"`with .*only the synchronous methods"):
            asyncio.run(stores[0].acount())
        put(stores[0])
    asyncio.run(mixed())
    assert counts(*stores) == [3, 0]


def test_other_threads_are_not_in_the_block_and_copies_of_its_context_are(db, tenant_id, space):
    """A thread sees what is committed; one that runs in a copy of the block's context is a part of it."""
    tenant, seen = db.tenant(tenant_id), []
    store = tenant.vectors("one", space)

    def run(target):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()

    with tenant.atomic():
        put(store)
        run(lambda: seen.append(store.count()))
        inside = contextvars.copy_context()
        run(lambda: inside.run(store.upsert, chunks(2)))
        assert store.count() == 3
    run(lambda: inside.run(store.upsert, chunks(5)))  # the block is over: a transaction of its own
    assert seen == [0] and store.count() == 6


def test_a_new_space_is_registered_outside_the_block(db, tenant_id):
    """Nobody else waits for the registry until the block ends, and its number stays when the block is rolled back."""
    space = EmbedSpace("test", f"of-{tenant_id}", 4)

    @fails_with(ZeroDivisionError)
    def _():
        with db.tenant(tenant_id).atomic():
            db.tenant(tenant_id).vectors("one", space).upsert([Chunk("a", "text", [1.0, 0, 0, 0])])
            raise ZeroDivisionError

    assert space in [info.space for info in db.list_spaces()]
    assert db.tenant(tenant_id).list_collections() == []


def test_settings_of_a_search_do_not_outlive_it(db, tenant_id, space):
    """A search by the graph changes settings for its own statement; in a block they are put back."""
    tenant = db.tenant(tenant_id)
    scope = db.backend.scope(db.backend.engines.sync_gate(), tenant_id).setting(
        {"enable_sort": "off", "hnsw.ef_search": "77"}
    )
    ask = "SELECT current_setting('enable_sort'), current_setting('hnsw.ef_search', true)"
    with tenant.atomic():
        put(tenant.vectors("one", space))  # which loads pgvector, whose setting it is

        def look(gate):
            with gate.transaction(scope, "inner") as tx:
                inner = tx.rows(ask, {})
            with gate.transaction(db.backend.scope(gate, tenant_id)) as tx:
                return inner, tx.last(ask, {})

        inner, after = db.backend.run(look)
    assert inner == [("off", "77")] and after == [("on", "40")]


def kill(admin, store):
    """End the backend that has the block's transaction open."""
    [pids] = admin.execute(
        "SELECT array_agg(pid) FROM pg_stat_activity WHERE usename = 'test_app' AND state = 'idle in transaction'", ()
    ).fetchall()
    for pid in pids[0]:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))


def test_a_connection_cut_inside_is_a_typed_error_and_gives_its_slot_back(stores, tenant, admin_connection):
    """Before an operation and before the commit: Unavailable, nothing kept, and the one connection is free again."""

    @fails_with(Unavailable)
    def _():
        with tenant.atomic():
            put(stores[0])
            kill(admin_connection, stores[0])
            put(stores[1])

    assert counts(*stores) == [0, 0]

    @fails_with(Unavailable)
    def _():
        with tenant.atomic():
            put(stores[0])
            kill(admin_connection, stores[0])

    assert counts(*stores) == [0, 0]


@pytest.mark.parametrize("where", ["in an operation", "between operations", "while a task runs"])
def test_a_task_cancelled_inside_leaves_nothing_behind(stores, tenant, where):
    """Wherever the cancellation arrives, nothing is kept and the pool's one connection can be used again."""

    async def body(reached):
        async with tenant.atomic():
            await stores[0].aupsert(chunks(3))
            if where == "between operations":
                reached.set()
                await asyncio.sleep(30)
            elif where == "in an operation":
                await stores[1].aupsert(slowly(reached))
            else:
                task = asyncio.create_task(stores[1].aupsert(slowly(reached)))
                await reached.wait()
        await task

    async def slowly(reached):
        yield Chunk("x", "text", ONES)
        reached.set()
        await asyncio.sleep(1)
        yield Chunk("y", "text", ONES)

    async def go():
        reached = asyncio.Event()
        task = asyncio.create_task(body(reached))
        await reached.wait()
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for store in stores:
            assert await store.acount() == 0
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for left in others:
            left.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        assert [await store.acount() for store in stores] == [0, 0]

    asyncio.run(go())
    assert counts(*stores) == [0, 0]


def test_a_generator_may_read_within_its_own_upsert(stores, tenant):
    """What an operation calls meanwhile in its own task or thread does not wait for its turn."""

    def copied():
        for chunk in stores[0].list_chunks(with_embeddings=True):
            yield Chunk(chunk.id, f"{chunk.text} of {stores[0].count()}", chunk.embedding)

    async def acopied():
        for chunk in await stores[0].alist_chunks(with_embeddings=True):
            yield Chunk(chunk.id, f"{chunk.text} of {await stores[0].acount()}", chunk.embedding)

    async def go():
        async with tenant.atomic():
            await stores[1].aupsert(acopied())

    put(stores[0])
    with tenant.atomic():
        stores[1].upsert(copied())
    asyncio.run(go())
    assert [chunk.text for chunk in stores[1].list_chunks()] == ["text of 1"]


def test_a_collision_inside_is_not_retried(db, tenant_id, space, monkeypatch):
    """Nothing of the block is left to repeat, so that a Conflict reaches the caller at once."""
    tenant = db.tenant(tenant_id)
    store, tries = tenant.vectors("one", space), []

    def collide():
        tries.append(1)
        raise pgrecall.Conflict("crossed")

    @fails_with(pgrecall.Conflict)
    def _():
        with tenant.atomic():
            db.backend.run(lambda gate: gate.retrying(collide))

    assert len(tries) == 1
    assert store.count() == 0


def test_a_block_of_one_operation_costs_a_commit_more(stores, tenant):
    """An empty block, and one that reads only, are fine."""
    with tenant.atomic():
        pass
    with tenant.atomic():
        assert stores[0].query(vectors(1)[0]) == []
    assert counts(*stores) == [0, 0]
