"""What a call costs on the network: round trips, counted by a proxy between client and server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

import pgrecall
from benchmarks.proxy import Proxy
from pgrecall import Chunk, EmbedSpace, F, Fact, Message, RunState, Tenant
from support.data import chunks, vectors

#: In each direction: longer than a busy machine may keep the client from sending the next of its pipelined messages.
DELAY = 0.03


@pytest.fixture
def proxy(app_url: sa.URL) -> Iterator[Proxy]:
    with Proxy(app_url) as running:
        yield running


@pytest.fixture
def store(proxy: Proxy, tenant_id: str, space: EmbedSpace) -> Iterator[pgrecall.PostgresVectorStore]:
    """A store behind the proxy, filled and asked before, so that connection, space and collection are there."""
    with pgrecall.connect(proxy.url) as db:
        store = db.tenant(tenant_id).vectors("handbook", space)
        store.upsert(chunks(40))
        store.query(vectors(1)[0])
        proxy.delay = DELAY
        yield store


def test_a_warm_query_takes_one_round_trip(proxy, store):
    """BEGIN with its settings, the query, and COMMIT."""
    with proxy.counting() as count:
        assert len(store.query(vectors(1)[0], 10)) == 10
    assert count.trips == 1


def test_the_first_query_of_a_small_collection_takes_one_round_trip_too(proxy, store, tenant_id, space):
    """How large it is comes along with its rows, be it empty; only words ask for it first."""
    for name, rows in (("one", 40), ("none", 0)):
        other = Tenant(store._backend, tenant_id).vectors(name, space)
        other.upsert(chunks(rows))
        store._backend.routes.forget()
        with proxy.counting() as count:
            assert len(other.query(vectors(1)[0], 5)) == min(rows, 5)
        assert count.trips == 1


def test_a_filter_costs_no_round_trip(proxy, store):
    """A filtered query takes one as well, be its shape new or known."""
    for lang in ("de", "en"):
        with proxy.counting() as count:
            assert store.query(vectors(1)[0], 5, F.lang == lang)
        assert count.trips == 1


def test_a_warm_aquery_takes_one_round_trip(proxy, store):
    """The asynchronous side sends what the synchronous one sends."""

    async def ask() -> int:
        await store.aquery(vectors(1)[0])
        with proxy.counting() as count:
            assert len(await store.aquery(vectors(1)[0], 10)) == 10
        return count.trips

    assert asyncio.run(ask()) == 1


def new_chunks() -> list[Chunk]:
    return [Chunk(f"new-{n}", f"text {n}", v, f"doc-{n // 10}") for n, v in enumerate(vectors(1_000))]


def test_an_upsert_of_a_thousand_chunks_takes_at_most_four(proxy, store):
    """A batch goes in few, large statements that share a round trip, not one a row."""
    with proxy.counting() as count:
        assert store.upsert(new_chunks()).written == 1_000
    assert 2 <= count.trips <= 4


def test_an_aupsert_of_a_thousand_chunks_takes_at_most_four(proxy, store):
    """The same, asynchronous, on a connection that is there."""

    async def put() -> int:
        await store.acount()
        with proxy.counting() as count:
            assert (await store.aupsert(new_chunks())).written == 1_000
        return count.trips

    assert 2 <= asyncio.run(put()) <= 4


def test_chats_runs_and_facts_take_one_or_two(proxy, tenant_id, store):
    """A read takes one and a write two, because only a COMMIT in its own message shows whether it was lost."""
    tenant = Tenant(store._backend, tenant_id)
    chat, runs, memory = tenant.chat("s", "ana"), tenant.runs(), tenant.memory(actor="me")
    question = vectors(1)[0]
    calls = {
        lambda: chat.append([Message("user", "x"), Message("assistant", "y")]): 2,
        lambda: chat.list_messages(2): 1,
        lambda: chat.window(5): 2,
        lambda: chat.count(): 1,
        lambda: runs.put(RunState("r", {"n": 1}, state_version=None)): 2,
        lambda: runs.get("r"): 1,
        lambda: runs.append_event("r", "k"): 2,
        lambda: store.for_run("r").query(question): 3,
        lambda: runs.list_evidence("r"): 1,
        lambda: memory.put_fact(Fact("ana", "k", "key", 1)): 2,
        lambda: memory.search_facts(subject="ana", kind="k", key="key"): 1,
    }
    proxy.delay = 0
    for call in calls:
        call()
    proxy.delay = DELAY
    for call, trips in calls.items():
        with proxy.counting() as count:
            call()
        assert count.trips == trips


def test_a_declared_key_costs_no_round_trip(proxy, tenant_id, store, space):
    """Neither a warm search by it, nor an upsert, which enters its values."""
    with proxy.counting() as before:
        store.upsert(new_chunks()[:500])
    with pgrecall.connect(proxy.url) as db:
        db.tenant(tenant_id).index_key("handbook", "lang")
        keyed = db.tenant(tenant_id).vectors("handbook", space)
        keyed.query(vectors(1)[0])
        with proxy.counting() as count:
            assert keyed.query(vectors(1)[0], 5, F.lang == "de")
        assert count.trips == 1
        with proxy.counting() as after:
            keyed.upsert(new_chunks()[500:])
        assert after.trips <= before.trips


def test_a_row_at_a_time_would_be_counted(proxy, store):
    """The proxy tells calls apart: five queries, one after the other, are five round trips."""
    with proxy.counting() as count:
        for question in vectors(5):
            store.query(question)
    assert count.trips == 5
