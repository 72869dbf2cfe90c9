"""`pgrecall facts`, `subjects` and `sweep`, as a person and as a script use them."""

from __future__ import annotations

import json
import os
import sys

import pytest

import pgrecall
from support.cli import run, text


@pytest.fixture
def cli(app_url, maintenance_url, tenant_id, monkeypatch):
    """The command line with the logins of production, a tenant and an actor in its environment."""
    for name in [name for name in os.environ if name.startswith("PGRECALL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PGRECALL_URL", text(app_url))
    monkeypatch.setenv("PGRECALL_MAINTENANCE_URL", text(maintenance_url))
    monkeypatch.setenv("PGRECALL_TENANT", tenant_id)
    monkeypatch.setenv("PGRECALL_ACTOR", "operator")
    monkeypatch.setenv("COLUMNS", "250")
    return run


def put(cli, value, *more, key="diet", subject="ann"):
    done = cli("facts", "put", value, "--subject", subject, "--kind", "preference", "--key", key, "--json", *more)
    assert done.code == 0, done.err
    return done.json


def test_a_fact_from_put_to_erase(cli):
    """Put, corrected, listed, shown, forgotten, restored, erased; the trail has each with its reason."""
    first = put(cli, "eats no meat", "--confidence", "0.5", "--reason", "said so")
    second = put(cli, '{"eats": ["fish"]}', "--text", "eats fish", "--source", "chat 7")
    assert (first["value"], second["value"], second["supersedes_id"]) == (
        "eats no meat",
        {"eats": ["fish"]},
        first["id"],
    )
    [listed] = cli("facts", "search", "fish", "-s", "ann", "--json").json
    assert (listed["id"], listed["actor"], listed["source"]) == (second["id"], "operator", "chat 7")
    assert cli("facts", "list", "--filter", '{"eats": {"$contains": "fish"}}', "--json").json[0]["id"] == second["id"]
    then = first["valid_from"][:26]
    assert [f["id"] for f in cli("facts", "list", "--as-of", then, "--json").json] == [first["id"]]
    assert [f["id"] for f in cli("facts", "show", first["id"], "--json").json] == [second["id"], first["id"]]
    assert "eats no meat" in cli("facts", "show", "-k", "diet").out
    assert cli("facts", "forget", "-k", "diet", "--reason", "asked").out.strip() == f"{second['id']}: forgotten"
    assert cli("facts", "list").out.strip() == "No matching facts."
    assert cli("facts", "show", "-k", "diet").code == cli("facts", "forget", first["id"]).code == 1
    assert cli("facts", "restore", first["id"]).out.strip() == f"{second['id']}: restored"
    assert cli("facts", "erase", "-k", "diet").code == 2  # nobody is there to confirm it
    assert cli("facts", "erase", "-k", "diet", "--yes").out.strip() == "erased 2 versions"
    assert cli("facts", "erase", "-k", "diet", "--yes").code == cli("facts", "restore", "-k", "diet").code == 1
    events = cli("facts", "events", "--json").json
    entries = [(e["action"], e["reason"]) for e in events]
    assert entries == [
        ("put", "said so"), ("supersede", None), ("forget", "asked"), ("restore", None), ("erase", None),
    ]  # fmt: skip
    assert len(cli("facts", "events", "--action", "forget", "--target", second["id"], "--json").json) == 1
    assert "operator" in cli("facts", "events", "-s", "ann", "--actor", "operator").out


MODEL = "def embed(texts): return [[t.count('fish') + 0.1, t.count('meat') + 0.1, 1.0] for t in texts]"


def test_facts_are_searched_by_words_and_by_meaning(cli, db, tenant_id, tmp_path, monkeypatch):
    """Without --embed words count; with it both do, unless --mode says one; as_of goes with words only."""
    (tmp_path / "fact_models.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "fact_models", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    import fact_models  # written above

    space = pgrecall.EmbedSpace("test", "facts", 3)
    memory = db.tenant(tenant_id).memory(actor="test", space=space, embed=fact_models.embed)
    memory.put_fact(pgrecall.Fact("ann", "preference", "one", "fish, and fish again"))
    memory.put_fact(pgrecall.Fact("ann", "preference", "two", "meat"))
    embed = ("--embed", "fact_models:embed", "--json")
    assert [f["key"] for f in cli("facts", "search", "fish", "--json").json] == ["one"]
    assert [f["key"] for f in cli("facts", "search", "meat", "--mode", "dense", *embed).json] == ["two", "one"]
    assert [f["key"] for f in cli("facts", "search", "meat", "-k", 1, *embed).json] == ["two"]
    assert cli("facts", "search", "meat", "--mode", "dense").code == 2
    assert cli("facts", "search", "meat", "--as-of", "2026-03-03T18:00:00", *embed).code == 2


def test_old_options_still_work_and_name_the_new_ones(cli):
    """On stderr, so that a script's JSON stays whole."""
    put(cli, "eats fish")
    old = cli("facts", "events", "--by=operator", "--json")
    assert old.json and "--by is deprecated; use --actor" in old.err
    listed = cli("facts", "list", "fish", "--json")
    assert len(listed.json) == 1 and "facts search" in listed.err


def test_a_key_of_several_facts_is_refused_with_their_names(cli):
    """Exit 2, and nothing is changed."""
    put(cli, "1")
    put(cli, "2", subject="bob")
    for verb in ("show", "forget"):
        refused = cli("facts", verb, "--key", "diet")
        assert refused.code == 2 and "'ann'" in refused.err and "'bob'" in refused.err
    assert cli("facts", "forget", "-k", "diet", "-s", "bob").code == 0
    assert len(cli("facts", "list", "--json").json) == 1


def test_a_fact_of_nobody_lives_in_a_namespace(cli):
    """Its labels are given one by one."""
    done = cli("facts", "put", "1", "-n", "docs", "-n", "v1", "--kind", "item", "--key", "a", "--json")
    assert (done.json["namespace"], done.json["subject"]) == (["docs", "v1"], None)
    assert cli("facts", "put", "1", "--kind", "item", "--key", "a").code == 2
    assert [f["key"] for f in cli("facts", "list", "-n", "docs", "--json").json] == ["a"]


def test_a_subject_is_exported_and_erased(cli, tmp_path):
    """JSON lines out; then nothing, a report, and exit 4 for who comes late, until it is reopened."""
    put(cli, "1")
    lines = cli("subjects", "export", "ann").out.splitlines()
    assert json.loads(lines[0])["subject"] == "ann" and len(lines) == 3
    file = tmp_path / "ann.jsonl"
    assert cli("subjects", "export", "ann", "-o", file, "--json").json["rows"] == 2
    assert file.read_text().splitlines()[1:] == lines[1:]
    assert cli("subjects", "erase", "ann").code == 2
    report = cli("subjects", "erase", "ann", "--yes", "--json").json
    assert (report["deleted"]["memory_facts"], sum(report["remaining"].values()), report["events"]) == (1, 0, 1)
    assert "memory_facts" in cli("subjects", "erase", "ann", "--yes").out
    late = cli("facts", "put", "1", "-s", "ann", "--kind", "k", "--key", "k")
    assert late.code == 4 and "reopen" in late.err
    assert cli("subjects", "reopen", "ann").out.strip() == "ann: reopened"
    assert cli("subjects", "reopen", "ann").out.strip() == "ann: was not erased"
    put(cli, "1")


def test_a_sweep_counts_and_purges(cli):
    """A dry run first."""
    put(cli, "1", "--ttl", "0.001")
    counted = cli("sweep", "--dry-run", "--json").json
    assert counted["dry_run"] and counted["purged"]["memory_facts"] >= 1
    assert cli("sweep", "--batch", "10", "--json").json["purged"]["memory_facts"] == counted["purged"]["memory_facts"]
    assert "deleted" in cli("sweep").out
