"""Erasing, exporting and sweeping: nothing is left, nobody writes late, and the trail keeps ids and hashes."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

import pgrecall
from pgrecall import Chunk, ConfigurationError, EmbedSpace, Fact, Message, RunState, SubjectErased, schema
from pgrecall.facts import Erasure

SPACE = EmbedSpace("test", "eight", 8)
ONES = [1.0] * 8
SECRET = "xyzzy-4711"
TABLES = [table.name for table in schema.TENANT_TABLES]


def fill(db, tenant_id, subject, text):
    """Something of a subject in every table that can have it; versions, forgotten facts, reasons and actors too."""
    tenant = db.tenant(tenant_id)
    memory = tenant.memory(actor=subject, space=SPACE)
    for value in (text, {"now": text}):
        memory.put_fact(Fact(subject, "k", "key", value, text, text, embedding=ONES), reason=f"because of {text}")
    memory.delete(memory.put_fact(Fact(subject, "k", "forgotten", text, namespace=(text,), embedding=ONES)).id)
    memory.put_fact(Fact(subject, "k", "expired", text, ttl=0.001))
    tenant.chat(f"chat of {text}", subject).append([Message("user", text, metadata={"of": text})])
    runs = tenant.runs()
    runs.put(RunState(f"run of {text}", {"of": text}, subject=subject))
    runs.append_event(f"run of {text}", "note", {"of": text})
    store = tenant.vectors("handbook", SPACE)
    store.upsert([Chunk("1", "of nobody", ONES)])
    runs.record_evidence(f"run of {text}", text, store.query(ONES), collection="handbook")


def holding(outside, text, tenant_id):
    """The tables in which a full-text scan of all of a tenant's rows finds the text."""
    found = set()
    for table in TABLES:
        query = f"SELECT count(*) FROM pgrecall.{table} t WHERE tenant_id = %s AND strpos(t::text, %s) > 0"
        if outside.execute(query, [tenant_id, text]).fetchone()[0]:
            found.add(table)
    return found


def test_an_erased_subject_is_in_no_table(db, tenant_id, admin_connection):
    """A scan of every row for a planted secret finds nothing, events included; others' rows and nobody's stay."""
    fill(db, tenant_id, SECRET, f"text {SECRET}")
    fill(db, tenant_id, "bob", "bob's own")
    tenant = db.tenant(tenant_id)
    by_secret = tenant.memory(actor=SECRET)
    by_secret.put_fact(Fact("bob", "k", "by", 1))
    by_secret.put_fact(Fact(None, "k", "nobody's", 1, namespace=("n",)))
    held = holding(admin_connection, SECRET, tenant_id)
    assert held >= {"memory_facts", "memory_events", "chat_sessions", "chat_messages", "runs", "run_events"}
    bobs = holding(admin_connection, "bob's own", tenant_id)
    report = tenant.erase_subject(SECRET, actor="privacy desk", reason="asked by letter")
    assert holding(admin_connection, SECRET, tenant_id) == set()
    assert holding(admin_connection, "bob's own", tenant_id) == bobs
    assert {n: c for n, c in report.items() if c} == {
        "fact_vectors": 2, "memory_facts": 4, "chat_messages": 1, "chat_sessions": 1,
        "run_evidence": 1, "run_retrievals": 1, "run_events": 1, "runs": 1,
    }  # fmt: skip
    assert set(report.remaining) == {*report, "memory_events"} and not any(report.remaining.values())
    assert report.without_subject == {"memory_facts": 1, "chat_sessions": 0, "runs": 0}
    assert report.events == 7
    trail = tenant.memory(actor="me").list_events(limit=99)
    hashes = {e.subject for e in trail if e.subject not in ("bob", None)}
    assert len(hashes) == 1 and len(next(iter(hashes))) == 64
    assert [(e.actor, e.reason) for e in trail if e.action == "erase_subject"] == [("privacy desk", "asked by letter")]
    again = tenant.erase_subject(SECRET, actor="privacy desk")
    assert not any(again.values()) and again.events == 0


def test_late_writers_of_an_erased_subject_are_refused(db, tenant_id):
    """Facts, chats and runs; until it is reopened on purpose. Others write on."""
    tenant = db.tenant(tenant_id)
    memory = tenant.memory(actor="me")
    tenant.erase_subject("ann", actor="desk")  # nothing was ever held: the tenant is not there, nor a tombstone
    memory.put_fact(Fact("ann", "k", "key", 1))
    tenant.erase_subject("ann", actor="desk")
    for late in (
        lambda: memory.put_fact(Fact("ann", "k", "key", 2)),
        lambda: memory.put_facts([Fact("bob", "k", "key", 2), Fact("ann", "k", "key", 2)]),
        lambda: tenant.chat("chat", "ann").append([Message("user", "late")]),
        lambda: tenant.runs().put(RunState("run", {}, subject="ann")),
    ):
        with pytest.raises(SubjectErased, match="reopen_subject"):
            late()
    assert memory.search_facts() == [] and tenant.list_chats() == [] and tenant.runs().list_runs() == []
    memory.put_fact(Fact("bob", "k", "key", 1))
    tenant.runs().put(RunState("run", {}, subject="bob"))
    assert (tenant.reopen_subject("ann", actor="desk"), tenant.reopen_subject("ann", actor="desk")) == (True, False)
    assert memory.put_fact(Fact("ann", "k", "key", 3)).supersedes_id is None


def test_an_erasure_during_busy_writes_leaves_nothing(db, tenant_id, admin_connection):
    """Each writer ends with SubjectErased, whatever it had under way."""
    started = threading.Barrier(7)

    def write(n):
        tenant, done = db.tenant(tenant_id), 0
        memory, chat = tenant.memory(actor=str(n)), tenant.chat(f"chat-{n}", "ann")
        memory.put_fact(Fact("ann", "k", f"key-{n}", 0))
        started.wait()
        try:
            for done in range(1_000):
                memory.put_fact(Fact("ann", "k", f"key-{n}", done))
                if n % 2:
                    chat.append([Message("user", "text")])
        except SubjectErased:
            return done
        raise AssertionError("nobody refused it")

    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write, n) for n in range(6)]
        started.wait()
        report = db.tenant(tenant_id).erase_subject("ann", actor="desk")
        assert all(writer.result() < 999 for writer in writers)
    assert report["memory_facts"] >= 6
    for table, column in schema.SUBJECTS.items():
        left = f"SELECT count(*) FROM pgrecall.{table} WHERE tenant_id = %s AND {column} = 'ann'"
        assert admin_connection.execute(left, [tenant_id]).fetchone() == (0,)
    named = "SELECT count(*) FROM pgrecall.memory_events WHERE tenant_id = %s AND subject = 'ann'"
    assert admin_connection.execute(named, [tenant_id]).fetchone() == (0,)


def test_a_deleted_tenant_keeps_ids_and_hashes(db, tenant_id, admin_connection):
    """Its trail names nobody; all else is gone, tombstones of subjects too."""
    fill(db, tenant_id, SECRET, f"text {SECRET}")
    db.tenant(tenant_id).erase_subject("nobody", actor="desk")
    report = db.delete_tenant(tenant_id)
    assert holding(admin_connection, SECRET, tenant_id) == set()
    assert set(report) == set(TABLES) - {"tenants", "memory_events"} and report["memory_facts"] == 4
    assert not any(report.remaining.values()) and report.events == 6
    rows = {t: f"SELECT count(*) FROM pgrecall.{t} WHERE tenant_id = %s" for t in TABLES}
    left = {t for t, query in rows.items() if admin_connection.execute(query, [tenant_id]).fetchone()[0]}
    assert left == {"tenants", "memory_events"}


def test_hooks_erase_elsewhere_and_a_failing_one_is_reported(db, tenant_id):
    """Each is called with what was erased; the erasure stands, and a second call calls them again."""
    calls = []

    def elsewhere(erased):
        calls.append(erased)

    def broken(erased):
        raise OSError("no route to archive")

    async def slowly(erased):
        calls.append("awaited")

    for hook in (elsewhere, broken, slowly):
        db.on_erase(hook)
    memory = db.tenant(tenant_id).memory(actor="me")
    memory.put_fact(Fact("ann", "k", "key", 1))
    report = db.tenant(tenant_id).erase_subject("ann", actor="desk")
    assert report["memory_facts"] == 1 and memory.search_facts() == []
    errors = {name.rpartition(".")[2]: error for name, error in report.failed_hooks.items()}
    assert errors["broken"] == "OSError: no route to archive" and errors["slowly"].startswith(
        "InvalidInput: the hook is async"
    )
    assert [(c.tenant_id, c.subject) for c in calls] == [(tenant_id, "ann")] and isinstance(calls[0], Erasure)
    again = asyncio.run(db.tenant(tenant_id).aerase_subject("ann", actor="desk"))
    assert [name.rpartition(".")[2] for name in again.failed_hooks] == ["broken"] and calls[-1] == "awaited"
    assert asyncio.run(db.adelete_tenant(tenant_id))["memory_settings"] == 1
    assert (calls[-2].tenant_id, calls[-2].subject) == (tenant_id, None)
    with pytest.raises(pgrecall.InvalidInput, match="function"):
        db.on_erase("hook")


def test_without_the_login_for_maintenance_nothing_is_erased(app_url, tenant_id):
    """The trail could not be stripped, so the erasure does not begin; where there is no trail it needs none."""
    with pgrecall.connect(app_url) as db:
        tenant = db.tenant(tenant_id)
        tenant.vectors("handbook", SPACE).upsert([Chunk("1", "text", ONES)])
        tenant.memory(actor="me").put_fact(Fact("ann", "k", "key", 1))
        for erase in (lambda: tenant.erase_subject("ann", actor="desk"), lambda: db.delete_tenant(tenant_id)):
            with pytest.raises(ConfigurationError, match="PGRECALL_MAINTENANCE_URL"):
                erase()
        assert len(tenant.memory(actor="me").search_facts()) == 1
        assert not any(tenant.erase_subject("bob", actor="desk").values())
        other = db.tenant(f"{tenant_id}-chunks")
        other.vectors("handbook", SPACE).upsert([Chunk("1", "text", ONES)])
        assert db.delete_tenant(f"{tenant_id}-chunks")["chunks"] == 1


def test_an_erasure_is_no_part_of_an_atomic_block(db, tenant_id):
    """It can't be taken back."""
    tenant = db.tenant(tenant_id)
    tenant.memory(actor="me").put_fact(Fact("ann", "k", "key", 1))
    with pytest.raises(ConfigurationError, match="atomic"), tenant.atomic():
        tenant.erase_subject("ann", actor="desk")
    assert len(tenant.memory(actor="me").search_facts()) == 1


def test_facts_take_part_in_atomic_blocks(db, tenant_id):
    """With chunks in one transaction: all of it, or none."""
    tenant = db.tenant(tenant_id)
    memory = tenant.memory(actor="me")

    def fails():
        with tenant.atomic():
            memory.put_fact(Fact("ann", "k", "key", 1))
            tenant.vectors("handbook", SPACE).upsert([Chunk("1", "text", ONES)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert memory.search_facts() == [] == memory.list_events()
    with tenant.atomic():
        first = memory.put_fact(Fact("ann", "k", "key", 1))
        assert memory.put_fact(Fact("ann", "k", "key", 2)).supersedes_id == first.id
    assert [f.value for f in memory.search_facts()] == [2] and len(memory.list_events()) == 2


# Export


def test_an_export_has_every_row_of_the_subject_and_no_other(db, tenant_id, monkeypatch):
    """Facts with versions and forgotten ones, vectors, chats, runs and the trail; by pages, in both modes."""
    monkeypatch.setattr("pgrecall.operations.erasure.PAGE", 2)
    fill(db, tenant_id, "ann", "ann's own")
    fill(db, tenant_id, "bob", "bob's own")
    tenant = db.tenant(tenant_id)

    async def everything():
        return [line async for line in tenant.aexport_subject("ann")]

    lines = list(tenant.export_subject("ann"))
    head, *rows = map(json.loads, lines)
    assert (head["format"], head["tenant"], head["subject"]) == ("pgrecall-subject", tenant_id, "ann")
    counts = {}
    for row in rows:
        counts[row["table"]] = counts.get(row["table"], 0) + 1
    assert counts == {
        "memory_facts": 4, "fact_vectors": 2, "runs": 1, "run_events": 1, "run_retrievals": 1, "run_evidence": 1,
        "chat_sessions": 1, "chat_messages": 1, "memory_events": 5,
    }  # fmt: skip
    assert {json.dumps(r["row"]["value"]) for r in rows if r["table"] == "memory_facts"} >= {'"ann\'s own"'}
    assert "bob" not in "".join(lines) and "tenant_id" not in "".join(lines[1:])
    assert asyncio.run(everything())[1:] == lines[1:]
    assert len(list(tenant.export_subject("nobody"))) == 1


# Sweeps


def test_a_sweep_purges_what_is_due_with_its_vectors_and_events(db, tenant_id, admin_connection):
    """Expired facts and forgotten ones past their grace; chats and runs too. A dry run only counts."""
    tenant = db.tenant(tenant_id)
    memory = tenant.memory(actor="me", space=SPACE, grace=timedelta(0))
    for n in range(5):
        memory.put_fact(Fact("ann", "k", f"expired-{n}", n, ttl=0.001, embedding=ONES))
    memory.put_fact(Fact("ann", "k", "stays", 1, ttl=1_000, embedding=ONES))
    memory.delete(memory.put_fact(Fact("ann", "k", "forgotten", 1, embedding=ONES)).id)
    kept = tenant.memory(actor="me")
    kept.delete(kept.put_fact(Fact("ann", "k", "restorable", 1)).id)
    tenant.chat("short", "ann", ttl=timedelta(seconds=1)).append([Message("user", "gone")])
    tenant.runs(ttl=timedelta(seconds=1)).put(RunState("short", {}))
    for table in ("chat_sessions", "runs"):
        over = f"UPDATE pgrecall.{table} SET expires_at = now() - interval '1 day' WHERE tenant_id = %s"
        admin_connection.execute(over, [tenant_id])
    counted = db.sweep(dry_run=True)
    assert counted.dry_run and counted["memory_facts"] >= 6
    assert (
        len(
            admin_connection.execute("SELECT 1 FROM pgrecall.memory_facts WHERE tenant_id = %s", [tenant_id]).fetchall()
        )
        == 8
    )
    swept = asyncio.run(db.asweep(batch=2))
    assert swept["memory_facts"] == counted["memory_facts"] and swept["fact_vectors"] >= 6
    assert swept["chat_sessions"] >= 1 and swept["chat_messages"] >= 1 and swept["runs"] >= 1
    left = "SELECT key FROM pgrecall.memory_facts WHERE tenant_id = %s ORDER BY key"
    assert admin_connection.execute(left, [tenant_id]).fetchall() == [("restorable",), ("stays",)]
    actions = [(e.action, e.actor, e.subject) for e in memory.list_events(action=["expire", "purge"])]
    assert sorted(actions) == [("expire", "sweep", "ann")] * 5 + [("purge", "sweep", "ann")]
    assert kept.restore(key="restorable").value == 1
    assert not any(db.sweep().values())


def test_sweeps_at_once_purge_each_row_once(app_url, maintenance_url, db, tenant_id):
    """Four processes' worth of them pass over what another holds; every row has one event."""
    memory = db.tenant(tenant_id).memory(actor="me")
    memory.put_facts([Fact("ann", "k", f"key-{n}", n, ttl=0.001) for n in range(2_000)])
    databases = [pgrecall.connect(app_url, maintenance_url=maintenance_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda database: database.sweep(batch=50), databases))
    for database in databases:
        database.close()
    assert sum(report["memory_facts"] for report in reports) >= 2_000
    events = memory.list_events(action="expire", limit=5_000)
    assert len(events) == len({e.target_id for e in events}) == 2_000


def test_a_sweep_needs_the_login_for_maintenance(app_url):
    """The application's sees one tenant at a time."""
    with pgrecall.connect(app_url) as db, pytest.raises(ConfigurationError):
        db.sweep()
