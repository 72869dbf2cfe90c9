"""Runs: compare-and-set under concurrency, events in one order, evidence that outlives what it names."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

import pgrecall
from pgrecall import (
    Chunk,
    EmbedSpace,
    F,
    FilterError,
    InvalidInput,
    NotFound,
    RunConflict,
    RunState,
    SubjectErased,
    TenantErased,
    UnknownTenant,
)
from support.data import chunks, vectors

SPACE = EmbedSpace("test", "eight", 8)
DAY = timedelta(days=1)


@pytest.fixture
def runs(db, tenant_id):
    return db.tenant(tenant_id).runs()


def test_of_puts_at_the_same_time_one_wins(runs):
    """Eight workers count a state up to 160 by reading, putting, and reading again where they lost: none is lost."""
    runs.put(RunState("r", {"n": 0}))
    lost = []

    def work(_):
        done = 0
        while done < 20:
            run = runs.get("r")
            try:
                runs.put(replace(run, state={"n": run.state["n"] + 1}))
                done += 1
            except RunConflict as conflict:
                lost.append(conflict)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert (runs.get("r").state, runs.get("r").state_version) == ({"n": 160}, 161)
    assert lost and all(conflict.found > conflict.expected for conflict in lost)


def test_of_those_who_begin_a_run_one_does(runs):
    """Version 0 makes a run, once."""

    def begin(n):
        try:
            return runs.put(RunState("r", {"by": n})).state["by"]
        except RunConflict:
            return None

    with ThreadPoolExecutor(8) as pool:
        winners = [n for n in pool.map(begin, range(8)) if n is not None]
    assert winners == [runs.get("r").state["by"]]


def test_a_state_too_large_is_refused_and_says_so(db, tenant_id):
    """By its bytes as JSON; the cap is the store's."""
    small, large = db.tenant(tenant_id).runs(max_state_bytes=100), db.tenant(tenant_id).runs(max_state_bytes=20_000_000)
    with pytest.raises(InvalidInput, match=r"has 10[0-9] bytes as JSON; expected at most 100"):
        small.put(RunState("r", {"x": "ü" * 47}))
    with pytest.raises(InvalidInput, match="max_state_bytes"):
        small.append_event("r", "k", {"x": "x" * 100})
    with pytest.raises(InvalidInput, match="1,000,000"):
        db.tenant(tenant_id).runs().put(RunState("r", {"x": "x" * 1_000_000}))
    assert large.get("r") is None
    huge = {"x": "y" * 10_000_000}
    large.put(RunState("r", huge))
    assert large.get("r").state == huge


def test_runs_are_listed_and_filtered(runs):
    """By metadata, state, status and subject, the last touched first."""
    for n in range(6):
        run = RunState(
            f"r{n}", {"step": n}, ("running", "failed")[n % 2], 0, ("ana", None)[n % 3 == 0], {"team": n % 2}
        )
        runs.put(run)
    runs.put(replace(runs.get("r1"), metadata={"team": 9}))
    assert [r.run_id for r in runs.list_runs()] == ["r1", "r5", "r4", "r3", "r2", "r0"]
    assert [r.run_id for r in runs.list_runs(limit=2, offset=1)] == ["r5", "r4"]
    assert [r.run_id for r in runs.list_runs(F.team == 1)] == ["r5", "r3"]
    assert [r.run_id for r in runs.list_runs(state=F.step >= 4, status="running")] == ["r4"]
    assert [r.run_id for r in runs.list_runs((F.team == 0) | (F.team == 9), state=F.step < 3)] == ["r1", "r2", "r0"]
    assert (runs.count(), runs.count(status="failed"), runs.count(F.team == 0, state=F.step > 0)) == (6, 3, 2)
    assert {r.run_id for r in runs.list_runs(subject="ana")} == {f"r{n}" for n in range(6) if n % 3}
    with pytest.raises(FilterError):
        runs.list_runs({"team": 1})


def test_events_have_one_order(runs):
    """Events of all writers have one order; a first event creates the run, and the first put still makes version 1."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda w: [runs.append_event("r", "tick", {"w": w, "n": n}) for n in range(15)], range(8)))
    events = runs.list_events("r")
    assert all(a.seq < b.seq and a.created_at <= b.created_at for a, b in itertools.pairwise(events))
    for worker in range(8):
        assert [e.data["n"] for e in events if e.data["w"] == worker] == list(range(15))
    assert runs.list_events("r", after=events[10].seq, limit=3) == events[11:14]
    assert (runs.get("r").state_version, runs.get("r").state) == (0, {})
    assert runs.put(RunState("r", {"n": 1})).state_version == 1
    assert runs.list_events("nobody's") == []
    assert runs.append_event("r", "plain").data == {}


def test_tail_follows_a_run_to_its_end(runs):
    """What is there, what comes, and no more once the run is final; also the asynchronous one."""
    runs.append_event("r", "first")

    def work():
        for n in range(5):
            time.sleep(0.02)
            runs.append_event("r", "tick", {"n": n})
        runs.put(RunState("r", status="completed"))

    worker = threading.Thread(target=work)
    worker.start()
    seen = list(runs.tail("r", poll=0.01))
    worker.join()
    assert [e.kind for e in seen] == ["first", *["tick"] * 5]
    assert seen == runs.list_events("r")

    async def follow():
        return [e async for e in runs.atail("r", after=seen[2].seq, poll=0.01)]

    assert asyncio.run(follow()) == seen[3:]
    runs._backend.close()


def test_tail_ends_by_time_and_with_the_run(runs):
    """A run that goes on is left after `timeout`; one that is deleted is over; one that never was is NotFound."""
    runs.append_event("r", "first")
    assert len(list(runs.tail("r", poll=0.01, timeout=0.05))) == 1
    following = runs.tail("r", poll=0.01)
    next(following)
    runs.delete("r")
    assert list(following) == []
    with pytest.raises(NotFound):
        next(runs.tail("r"))
    with pytest.raises(InvalidInput, match="poll"):
        next(runs.tail("r", poll=-1))


@pytest.fixture
def store(db, tenant_id):
    store = db.tenant(tenant_id).vectors("handbook", SPACE)
    store.upsert(chunks(20))
    return store


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_evidence_names_the_version_of_each_chunk(runs, store, db, tenant_id):
    """After chunks were changed and deleted, and their collection is gone, it still says what the answer rested on."""
    question = vectors(1)[0]
    hits = store.query(question, 3)
    seq = runs.record_evidence("r", "how long?", hits, collection="handbook")
    [found] = runs.list_evidence("r")
    assert (found.run_id, found.seq, found.collection, found.space, found.space_now) == (
        "r",
        seq,
        "handbook",
        SPACE,
        "same",
    )
    assert (found.query_kind, found.query_hash) == ("text", sha("how long?"))
    assert [(c.rank, c.chunk_id, c.doc_id, c.content_hash, c.score, c.distance, c.now) for c in found.chunks] == [
        (n, h.chunk_id, h.doc_id, sha(h.text), h.score, h.distance, "same") for n, h in enumerate(hits)
    ]
    store.upsert([Chunk(hits[0].chunk_id, "other text", question)])
    store.delete([hits[1].chunk_id])
    store.set_metadata({"x": 1}, ids=[hits[2].chunk_id])
    assert [c.now for c in runs.list_evidence("r")[0].chunks] == ["changed", "gone", "same"]
    store.upsert([Chunk(hits[0].chunk_id, hits[0].text, question)])
    assert [c.now for c in runs.list_evidence("r")[0].chunks] == ["same", "gone", "same"]
    store.drop()
    assert (runs.list_evidence("r")[0].space, runs.list_evidence("r")[0].space_now) == (SPACE, "gone")
    assert [c.content_hash for c in runs.list_evidence("r")[0].chunks] == [sha(h.text) for h in hits]
    db.tenant(tenant_id).vectors("handbook", EmbedSpace("test", "two", 2)).upsert([Chunk("x", "x", [1.0, 0.0])])
    assert runs.list_evidence("r")[0].space_now == "changed"


def test_a_store_for_a_run_records_each_search(runs, store):
    """Sync and async, MMR too, and a search that finds nothing; events are in the same order."""
    recording = store.for_run("r")
    question = vectors(1)[0]
    hits = recording.query(question, 3)
    assert hits == store.query(question, 3)
    runs.append_event("r", "between")
    diverse = recording.query_mmr(question, 2)
    assert recording.query(question, 3, F.n == "nothing") == []
    with asyncio.Runner() as runner:
        runner.run(recording.aquery(question, 1, ids=["c0007"]))
        recording.get(["c0001"])
        evidence, events = runs.list_evidence("r"), runs.list_events("r")
        store._backend.close()  # the async pool's connections, before their loop
    assert [[c.chunk_id for c in e.chunks] for e in evidence] == [
        [h.chunk_id for h in hits], [h.chunk_id for h in diverse], [], ["c0007"],
    ]  # fmt: skip
    assert {e.query_hash for e in evidence} == {hashlib.sha256(np.asarray(question, "<f4").tobytes()).hexdigest()}
    assert all(e.space == SPACE and e.query_kind == "vector" for e in evidence)
    assert evidence[0].seq < events[0].seq < evidence[1].seq
    assert (recording.run_id, recording.collection) == ("r", "handbook")


def test_a_search_whose_evidence_can_t_be_written_raises(db, store, tenant_id):
    """Nobody answers from what is not on record: the error says why, and the search can be called again."""
    recording = store.for_run("r")
    question = vectors(1)[0]
    recording.query(question)
    db.delete_tenant(tenant_id)
    with pytest.raises(TenantErased):
        recording.query(question)


def test_what_is_no_evidence_is_refused(runs, store):
    """A hit that is none, a query that is none, a run without a name."""
    for arguments in (("r", "q", ["hit"]), ("r", [[1.0]], []), ("r", None, []), ("", "q", []), ("r", [], [])):
        with pytest.raises(InvalidInput):
            runs.record_evidence(*arguments)
    with pytest.raises(InvalidInput):
        store.for_run("")
    assert runs.get("r") is None
    assert runs.list_evidence("r") == []


def age(admin_connection, tenant_id, by):
    admin_connection.execute(
        "UPDATE pgrecall.runs SET updated_at = updated_at - %(by)s, expires_at = expires_at - %(by)s "
        "WHERE tenant_id = %(t)s",
        {"by": by, "t": tenant_id},
    )


def test_prune_spares_the_young_and_the_latest(runs, store, tenant_id, admin_connection):
    """By age, by time, by number, by status; what belongs to a run goes with it."""
    for n in range(6):
        runs.append_event(f"r{n}", "k")
        runs.record_evidence(f"r{n}", "q", store.query(vectors(1)[0], 2), collection="handbook")
    age(admin_connection, tenant_id, 10 * DAY)
    runs.put(RunState("new", status="completed"))
    assert runs.prune(30 * DAY) == runs.prune(datetime.now(UTC) - 30 * DAY) == runs.prune(DAY, statuses=["lost"]) == 0
    assert runs.prune(DAY, keep_latest=5) == 2
    assert {r.run_id for r in runs.list_runs()} == {"new", "r5", "r4", "r3", "r2"}
    assert runs.prune(keep_latest=3) == 2
    assert runs.prune(datetime.now(UTC) - DAY) == 2
    assert [r.run_id for r in runs.list_runs()] == ["new"]
    assert runs.prune(keep_latest=0) == 1
    for table in ("run_events", "run_retrievals", "run_evidence"):
        counted = admin_connection.execute(f"SELECT count(*) FROM pgrecall.{table} WHERE tenant_id = %s", [tenant_id])
        assert counted.fetchone() == (0,)
    for wrong in ({}, {"older_than": 5}, {"keep_latest": -1}, {"older_than": datetime(2026, 1, 1)}):
        with pytest.raises(InvalidInput):
            runs.prune(**wrong)


def test_prune_of_many_goes_batch_by_batch(runs, admin_connection, tenant_id):
    """More than one transaction's worth."""
    runs.put(RunState("r"))
    admin_connection.execute(
        "INSERT INTO pgrecall.runs (tenant_id, run_id, status) "
        "SELECT %s, 'x' || n, 'running' FROM generate_series(1, 1200) n",
        [tenant_id],
    )
    assert runs.prune(keep_latest=0) == 1_201


def test_a_run_that_expired_is_gone_and_may_be_created_again(db, tenant_id, admin_connection):
    """Each write renews the store's lifetime; a time that the caller gives is kept."""
    runs = db.tenant(tenant_id).runs(ttl=2 * DAY)
    runs.put(RunState("r", {"n": 1}, subject="ana"))
    age(admin_connection, tenant_id, 1.5 * DAY)
    runs.append_event("r", "k")
    age(admin_connection, tenant_id, 1.5 * DAY)
    assert runs.get("r").state == {"n": 1}
    age(admin_connection, tenant_id, DAY)
    assert (runs.get("r"), runs.list_events("r"), runs.list_runs(), runs.count(), runs.list_evidence("r")) == (
        None,
        [],
        [],
        0,
        [],
    )
    with pytest.raises(NotFound):
        runs.delete("r")
    with pytest.raises(RunConflict):
        runs.put(RunState("r", state_version=1))
    plain = db.tenant(tenant_id).runs()
    until = datetime.now(UTC) + DAY
    again = plain.put(RunState("r", subject="ben", expires_at=until))
    assert (again.state_version, again.subject, again.expires_at) == (1, "ben", until)
    assert plain.list_events("r") == []


def test_a_deleted_tenant_s_runs_take_no_more(db, tenant_id):
    """The tombstone refuses puts, events and evidence; a database that requires known tenants refuses unknown ones."""
    runs = db.tenant(tenant_id).runs()
    run = runs.put(RunState("r"))
    runs.append_event("r", "k")
    deleted = db.delete_tenant(tenant_id).deleted
    assert (deleted["runs"], deleted["run_events"]) == (1, 1)
    writes = [
        lambda: runs.put(replace(run)),
        lambda: runs.put(RunState("other")),
        lambda: runs.append_event("r", "k"),
        lambda: runs.record_evidence("r", "q", []),
    ]
    for write in writes:
        with pytest.raises(TenantErased):
            write()
    db.backend.require_known_tenants = True
    with pytest.raises(UnknownTenant):
        db.tenant(f"{tenant_id}-unknown").runs().put(RunState("r"))


def test_an_erased_subject_s_runs_take_no_more(db, tenant_id, store):
    """State, events and evidence go; a late put is refused, of a new run and of nobody's; others go on."""
    tenant = db.tenant(tenant_id)
    runs = tenant.runs()
    run = runs.put(RunState("r", {"n": 1}, subject="ana"))
    runs.append_event("r", "k")
    store.for_run("r").query(vectors(1)[0], 2)
    nobodys = runs.put(RunState("free"))
    deleted = tenant.erase_subject("ana", actor="officer").deleted
    assert [deleted[t] for t in ("runs", "run_events", "run_retrievals", "run_evidence")] == [1, 1, 1, 2]
    for late in (RunState("r", subject="ana"), replace(run, state_version=None), replace(nobodys, subject="ana")):
        with pytest.raises(SubjectErased):
            runs.put(late)
    assert (runs.get("r"), runs.get("free")) == (None, nobodys)
    runs.put(RunState("r", subject="ben"))
    tenant.reopen_subject("ana", actor="officer")
    assert runs.put(RunState("back", subject="ana")).state_version == 1


def test_a_run_in_an_atomic_block_is_kept_or_not_with_the_rest(db, tenant_id):
    """State, event, message and chunk in one transaction."""
    tenant = db.tenant(tenant_id)
    runs, chat = tenant.runs(), tenant.chat("s")

    def fail():
        runs.put(RunState("r", {"n": 1}))
        runs.append_event("r", "k")
        chat.append(pgrecall.Message("user", "x"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), tenant.atomic():
        fail()
    assert (runs.get("r"), chat.list_messages()) == (None, [])
    with tenant.atomic():
        run = runs.put(RunState("r", {"n": 1}))
        chat.append(pgrecall.Message("user", "x"))
        runs.put(replace(run, status="completed"))
    assert (runs.get("r").state_version, chat.count()) == (2, 1)
