"""`pgrecall runs`, as a person and as a script use it."""

from __future__ import annotations

import pytest

from pgrecall import EmbedSpace, RunState
from support.cli import run, text
from support.data import chunks, vectors


@pytest.fixture
def cli(app_url, tenant_id, monkeypatch):
    """The command line, as one tenant."""
    monkeypatch.setenv("PGRECALL_URL", text(app_url))
    monkeypatch.setenv("COLUMNS", "250")
    return lambda *arguments, **options: run(*arguments, "-t", tenant_id, **options)


@pytest.fixture
def runs(db, tenant_id):
    """A run with an event and evidence, one chunk of which is gone, and one that failed."""
    store = db.tenant(tenant_id).vectors("handbook", EmbedSpace("test", "eight", 8))
    store.upsert(chunks(10))
    runs = db.tenant(tenant_id).runs()
    runs.put(RunState("good", {"step": "ünï"}, subject="ana", metadata={"team": 1}))
    runs.append_event("good", "thought", {"x": 1})
    hits = store.for_run("good").query(vectors(1)[0], 2)
    store.delete([hits[1].chunk_id])
    runs.put(RunState("bad", status="failed"))
    return runs


def test_runs_are_listed_and_filtered(cli, runs):
    """A table for people, JSON for scripts."""
    assert "good" in cli("runs", "list").out
    assert [r["run_id"] for r in cli("runs", "list", "--json").json] == ["bad", "good"]
    assert [r["run_id"] for r in cli("runs", "list", "--status", "failed", "--json").json] == ["bad"]
    assert [r["run_id"] for r in cli("runs", "list", "-s", "ana", "-f", '{"team": 1}', "--json").json] == ["good"]
    assert "no matching runs" in cli("runs", "list", "-s", "ben").out
    assert cli("runs", "list", "-f", "nonsense").code == 2


def test_a_run_is_shown_with_its_events(cli, runs):
    """State and events; exit 1 where there is none."""
    shown = cli("runs", "show", "good").out
    assert "ünï" in shown and "thought" in shown and "version 1" in shown
    assert cli("runs", "show", "good", "--json").json["events"][0]["data"] == {"x": 1}
    assert cli("runs", "show", "nobody's").code == 1


def test_a_runs_evidence_says_what_became_of_it(cli, runs):
    """Chunk by chunk."""
    [found] = cli("runs", "evidence", "good", "--json").json
    assert [c["now"] for c in found["chunks"]] == ["same", "gone"]
    shown = cli("runs", "evidence", "good").out
    assert "gone" in shown and "test/eight" in shown and found["chunks"][0]["content_hash"][:12] in shown
    assert "no evidence" in cli("runs", "evidence", "bad").out
    assert cli("runs", "evidence", "nobody's").code == 1


def test_runs_are_pruned_when_that_is_confirmed(cli, runs):
    """By age, by number; saying neither, or nonsense, is an error."""
    assert [cli("runs", "prune", *more).code for more in ((), ("--older-than", "soon"), ("--keep-latest", "1"))] == [
        2
    ] * 3
    assert cli("runs", "prune", "--older-than", "1d", "--yes", "--json").json["deleted"] == 0
    assert "deleted 1 runs" in cli("runs", "prune", "--keep-latest", "1", "--yes").out
    assert [r.run_id for r in runs.list_runs()] == ["bad"]
