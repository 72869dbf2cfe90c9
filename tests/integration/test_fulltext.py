"""Full text is added, removed and changed for a collection with rows, during reads and writes."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pgrecall import Chunk, ConfigurationError, InvalidInput, NotFound
from pgrecall.operations.chunks import fulltext
from pgrecall.statements import fulltext as statements
from support.cli import run as cli
from support.cli import text as as_text

ONES = [1.0] * 8


def made(count, start=0):
    return [Chunk(f"c{n:04d}", f"running wings, number {n}", ONES) for n in range(start, start + count)]


@pytest.fixture
def tenant(db, tenant_id):
    return db.tenant(tenant_id)


@pytest.fixture
def store(tenant, space):
    store = tenant.vectors("handbook", space)
    store.upsert(made(25))
    return store


def found(store, words):
    return len(store.query(text=words, top_k=100))


def test_a_collection_with_rows_gets_its_full_text(tenant, store):
    """Rows are indexed in batches with progress; afterwards searches find all of them, and writers keep it."""
    progress_calls = []
    assert tenant.set_text_config("handbook", "english", batch=10, progress=lambda *at: progress_calls.append(at)) == 25
    assert progress_calls == [(10, 25), (20, 25), (25, 25)]
    assert (found(store, "wing"), found(store, "run")) == (25, 25)
    store.upsert(made(3, start=25))
    assert found(store, "wing") == 28
    info = tenant.collection_info("handbook")
    assert (info.text_config, info.text_complete) == ("english", True)
    assert tenant.set_text_config("handbook", "english") == 0


def test_the_language_can_change_and_full_text_go(tenant, store):
    """Another language makes other words of the same texts; None takes them away, and search by words is refused."""
    tenant.set_text_config("handbook", "english")
    assert tenant.set_text_config("handbook", "simple", batch=7) == 25
    assert (found(store, "wings"), found(store, "wing")) == (25, 0)
    assert asyncio.run(tenant.aset_text_config("handbook", None)) == 25
    with pytest.raises(ConfigurationError, match="has no full-text search"):
        store.query(text="wings")
    assert tenant.collection_info("handbook").text_config is None


def test_an_interrupted_one_goes_on_and_meanwhile_nothing_is_missed(tenant, store, admin_connection):
    """What stopped half-way is refused to searches, whose answer would lack chunks, until the next call is done."""

    def stop(done, _):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tenant.set_text_config("handbook", "english", batch=10, progress=stop)
    assert tenant.collection_info("handbook").text_complete is False
    for asked in ({"text": "wing"}, {"vector": ONES, "text": "wing"}):
        with pytest.raises(ConfigurationError, match=r"does not cover all chunks.*set_text_config"):
            store.query(**asked)
    assert len(store.query(ONES)) == 10
    store.upsert(made(30)[24:])  # one that is there, unchanged, and new ones
    progress_calls = []
    assert tenant.set_text_config("handbook", "english", batch=10, progress=lambda *at: progress_calls.append(at)) == 5
    assert progress_calls[-1][0] == progress_calls[-1][1] == 10  # the ids after the last that was done
    assert found(store, "wing") == 30


def test_a_process_that_remembers_otherwise_is_right_all_the_same(tenant, store, db, app_url, space, tenant_id):
    """What another process changed is seen by the next search, in both directions."""
    import pgrecall

    with pgrecall.connect(app_url) as other:
        elsewhere = other.tenant(tenant_id).vectors("handbook", space)
        with pytest.raises(ConfigurationError):
            elsewhere.query(text="wing")
        tenant.set_text_config("handbook", "english")
        assert found(elsewhere, "wing") == 25
        tenant.set_text_config("handbook", "simple")
        assert (found(elsewhere, "wings"), found(elsewhere, "wing")) == (25, 0)
        tenant.set_text_config("handbook", None)
        with pytest.raises(ConfigurationError):
            elsewhere.query(ONES, text="wing")


def test_writers_and_several_calls_at_once(tenant, store, monkeypatch):
    """While rows are written, changed and deleted, two calls make the same full text: every row that is left has it."""
    monkeypatch.setattr(fulltext, "BATCH", 5)
    failures = []

    def guarded(work):
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 -- asserted below
            failures.append(exc)

    def write():
        for n in range(20):
            store.upsert([Chunk(f"c{n:04d}", f"wings changed {n}", ONES), Chunk(f"n{n:04d}", "new wings", ONES)])
            if n % 5 == 0:
                store.delete([f"c{n + 20:04d}"])

    works = [write, write, *(lambda: tenant.set_text_config("handbook", "english", batch=3) for _ in range(2))]
    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert tenant.collection_info("handbook").text_complete
    assert found(store, "wing") == store.count()


def test_another_language_meanwhile_stops_the_first(tenant, store):
    """Who is overtaken says so, and the later call's language stands."""

    def overtake(done, _):
        if done == 10:
            tenant.set_text_config("handbook", "simple")

    with pytest.raises(ConfigurationError, match="another call"):
        tenant.set_text_config("handbook", "english", batch=10, progress=overtake)
    assert (found(store, "wings"), found(store, "wing")) == (25, 0)


def test_bad_names_change_nothing(tenant, store):
    """An unknown language or collection, and a batch that is none, are refused."""
    with pytest.raises(InvalidInput, match="expected a text search configuration of this server"):
        tenant.set_text_config("handbook", "klingon")
    with pytest.raises(NotFound, match="does not exist"):
        tenant.set_text_config("nothing", "english")
    with pytest.raises(InvalidInput, match="batch is 0"):
        tenant.set_text_config("handbook", "english", batch=0)
    assert tenant.collection_info("handbook").text_config is None


def test_the_command_line_switches_it(tenant, store, app_url):
    """`collections text` with a language, and with --off; one of the two must be said."""
    at = ("-t", tenant.tenant_id, "-u", as_text(app_url))
    done = cli("collections", "text", "handbook", "--config", "english", *at, "--json")
    assert done.json == {"tenant": tenant.tenant_id, "collection": "handbook", "text_config": "english", "changed": 25}
    assert found(store, "wing") == 25
    assert "no full-text search" in cli("collections", "text", "handbook", "--off", *at).out
    assert cli("collections", "text", "handbook", *at).code == 2
    assert cli("collections", "text", "nothing", "--off", *at).code == 1


def test_a_batch_reads_what_it_changes(tenant, store, db):
    """EXPLAIN, on tables without statistics: the batch goes along the primary key, and looks its rows up by it."""
    values = {"tenant": tenant.tenant_id, "collection": "handbook", "text_config": "english", "after": "", "batch": 5}
    with db.backend.engines.sync_gate().transaction(
        db.backend.scope(db.backend.engines.sync_gate(), tenant.tenant_id)
    ) as tx:
        plan = "\n".join(row[0] for row in tx.rows("EXPLAIN " + statements.BATCH, values))
    assert plan.count("chunks_pkey") >= 2 and "Seq Scan on chunks" not in plan
