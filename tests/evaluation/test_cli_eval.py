"""`pgrecall eval`, as a person and as a pipeline use it."""

from __future__ import annotations

import json
import os
import re
import sys

import pytest

from support.cli import run, text

WORDS = ["apple", "brick", "cloud", "dream", "eagle", "flame", "grape", "honey"]


@pytest.fixture
def cli(app_url, tmp_path, monkeypatch, tenant_id):
    """The command line in a folder with a model and a BEIR folder, bound to one tenant."""
    for name in [name for name in os.environ if name.startswith("PGRECALL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PGRECALL_URL", text(app_url))
    monkeypatch.setenv("PGRECALL_TENANT", tenant_id)
    model = f"eval_model_{os.getpid()}_{tenant_id.rsplit('-', 1)[-1]}"
    (tmp_path / f"{model}.py").write_text(
        f"WORDS = {WORDS!r}\ndef embed(texts):\n    return [[t.count(w) + 0.01 for w in WORDS] for t in texts]\n"
    )
    monkeypatch.setenv("PGRECALL_EMBED", f"{model}:embed")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "fruit"
    folder.mkdir()
    documents = [{"_id": f"d{i}", "title": w, "text": f"all about {w}"} for i, w in enumerate(WORDS)]
    queries = [{"_id": f"q{i}", "text": f"what is {w}?"} for i, w in enumerate(WORDS)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (folder / "qrels.tsv").write_text("".join(f"q{i}\td{i}\t1\n" for i in range(7)))
    return run


def test_three_commands_lead_from_a_folder_to_a_report(cli, tmp_path):
    """Load with its corpus, run, report; then list, show, compare, sweep and gate."""
    loaded = cli("eval", "load", "fruit", "-c", "fruit", "--text-config", "english", "--licence", "CC0")
    assert loaded.code == 0 and "fruit version 1: 7 queries" in loaded.out and "skipped: 1" in loaded.out
    again = cli("eval", "load", "fruit", "-c", "fruit", "--licence", "CC0", "--json")
    assert again.json["version"] == 1
    ran = cli("eval", "run", "fruit", "-c", "fruit", "--label", "first", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["summary"]["metrics"]["ndcg@10"]["mean"] == 1.0 and ran.json["set"]["version"] == 1
    shown = cli("eval", "run", "fruit", "-c", "fruit", "--filter", '{"nothing": 1}', "--run", "empty")
    assert shown.code == 0 and "7 queries, 0 failed, 7 empty" in shown.out
    reported = cli("eval", "report", "empty", ran.json["run_id"], "-c", "fruit", "-o", "out.html")
    assert (
        reported.code == 0 and "<bdi>first</bdi> compared with <bdi>empty</bdi>" in (tmp_path / "out.html").read_text()
    )

    listed = cli("eval", "list")
    assert "fruit" in listed.out and "first" in listed.out and "CC0" in listed.out
    assert cli("eval", "list", "--json").json["runs"][0]["run_id"] == "empty"
    assert cli("eval", "show", "latest", "--json").json["run_id"] == "empty"

    compared = cli("eval", "compare", "empty", ran.json["run_id"], "-m", "ndcg@10", "--json").json
    assert compared["differences"]["ndcg@10"]["interval"]["mean"] == 1.0
    assert "what is apple?" in cli("eval", "compare", "empty", ran.json["run_id"]).out

    swept = cli("eval", "sweep", "fruit", "-c", "fruit", "-g", "mode=dense", "--json")
    assert swept.code == 0 and swept.json[0]["settings"] == {"mode": "dense"} and swept.json[0]["frontier"]

    arguments = ("eval", "sweep", "fruit", "-c", "fruit", "-g", "ef_search=20,40", "-g", "top_k=1,3", "--exact")
    swept = cli(*arguments, "-m", "ann_recall", "--json").json
    assert [p["settings"] for p in swept][-2:] == [{"ef_search": 40, "top_k": 3}, {"exact": True}]
    assert [p["ann_recall"] for p in swept] == [1.0] * 5
    settings = cli("eval", "run", "fruit", "-c", "fruit", "--ef-search", "40", "--ann-recall", "--json").json
    assert settings["config"]["asked"]["retriever"]["options"] == {"ef_search": 40}
    assert settings["summary"]["metrics"]["ann_recall@10"]["mean"] == 1.0
    assert cli("eval", "run", "fruit", "-c", "fruit", "--ef-search", "40", "--exact").code == 2

    assert cli("eval", "gate", ran.json["run_id"], "--min", "ndcg@10=0.9").code == 0
    failed = cli("eval", "gate", "empty", "--min", "ndcg@10=0.9", "--against", ran.json["run_id"])
    assert failed.code == 1
    assert "ndcg@10 is 0.0000, below 0.9" in failed.out and "recall@1 fell by 1.0000" in failed.out
    assert cli("eval", "delete", "empty", "--yes").code == 0
    assert cli("eval", "show", "empty").code == 1


def test_a_run_that_is_interrupted_says_how_it_goes_on(cli, monkeypatch):
    """A resumed run has the figures of an uninterrupted one, and failures show their reason, in a sweep too."""
    cli("eval", "load", "fruit", "-c", "fruit")
    model = sys.modules[os.environ["PGRECALL_EMBED"].partition(":")[0]]
    embed, asked = model.embed, []

    def impatient(texts):
        asked.extend(texts)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return embed(texts)

    monkeypatch.setattr(model, "embed", impatient)
    stopped = cli("eval", "run", "fruit", "-c", "fruit")
    [run_id] = re.findall(r"the same command with --run (\S+)", " ".join(stopped.err.split()))
    assert stopped.code == 130 and f"--run {run_id}" in cli("eval", "show", run_id).err
    resumed = cli("eval", "run", "fruit", "-c", "fruit", "--run", run_id, "--json").json
    assert asked.count("what is apple?") == asked.count("what is brick?") == 1
    whole = cli("eval", "run", "fruit", "-c", "fruit", "--json").json
    assert resumed["run_id"] == run_id and resumed["summary"]["metrics"] == whole["summary"]["metrics"]
    assert "7 × ConfigurationError: collection 'fruit' has no full-text search" in (
        cli("eval", "run", "fruit", "-c", "fruit", "--mode", "sparse").out
    )
    swept = cli("eval", "sweep", "fruit", "-c", "fruit", "-g", "mode=sparse,dense", "--json").json
    assert [(p["failed"], p["frontier"]) for p in swept] == [(7, False), (0, True)]


def test_each_query_may_be_asked_of_its_own_tenant(cli, db, tenant_id, tmp_path):
    """Rows of other tenants: none."""
    from pgrecall import Chunk, EmbedSpace

    space = EmbedSpace("m", "embed", 8)
    rows = []
    for number, word in enumerate(WORDS[:4]):
        tenant = f"{tenant_id}-{number % 2}"
        vector = [0.01 + (w == word) for w in WORDS]
        db.tenant(tenant).vectors("fruit", space).upsert([Chunk(f"d{number}", word, vector)])
        rows.append({"key": f"q{number}", "question": f"{word}?", "gold": f"d{number}", "who": tenant})
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fields = json.dumps({"id": "key", "text": "question", "judged": "gold", "tenant": "who"})
    assert cli("eval", "load", "mine.jsonl", "--fields", fields).code == 0
    ran = cli("eval", "run", "mine", "-c", "fruit", "--each-tenant", "--by", "chunk", "--json").json
    assert ran["summary"]["foreign_rows"] == 0 and ran["summary"]["metrics"]["hit@1"]["mean"] == 1.0
    assert set(ran["summary"]["tenants"]) == {f"{tenant_id}-0", f"{tenant_id}-1"}
    held = ran["config"]["asked"]["retriever"]
    assert (held["tenants"], held["collection"], held["rows"]["chunks"]) == (2, "fruit", 4)
    assert held["space"]["dim"] == 8 and held["graph"] is None
    db.tenant(tenant).vectors("other", space).upsert([Chunk("d", "apple", vector)])
    again = ("eval", "run", "mine", "--each-tenant", "--by", "chunk", "--run", ran["run_id"], "-c")
    assert cli(*again, "fruit", "--json").json["summary"]["metrics"] == ran["summary"]["metrics"]
    mixed, mistyped = cli(*again, "other"), cli(*again, "friut")
    assert mixed.code == 2 and "began with another configuration" in mixed.err
    assert mistyped.code == 1 and "none of the 2 tenants" in " ".join(mistyped.err.split())


def test_a_known_item_set_is_made_of_a_collection(cli):
    """Labelled as what it is."""
    cli("eval", "load", "fruit", "-c", "fruit")
    made = cli("eval", "load", "--known-item", "3", "-c", "fruit", "--json").json
    assert (made["kind"], made["queries"], made["name"]) == ("known-item", 3, "fruit known items")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("load",), 2, "there is nothing to load"),
        (("load", "nowhere.jsonl"), 2, "can't be read"),
        (("load", "--known-item", "3"), 2, "pass --collection and no PATH"),
        (("run", "nothing"), 1, "eval set 'nothing' does not exist"),
        (("show", "latest"), 1, "has no evaluation runs"),
        (("gate", "latest"), 2, "the gate has no condition"),
        (("gate", "latest", "--min", "ndcg@10=0.8"), 1, "has no evaluation runs"),
        (("gate", "latest", "--min", "ndcg"), 2, "expected METRIC=VALUE"),
        (("gate", "latest", "--min", "ndcg@10=nan"), 2, "expected METRIC=VALUE"),
        (("delete", "latest", "--yes"), 1, "has no evaluation runs"),
        (("run", "nothing", "--run", "latest"), 2, "stands for the newest run"),
        (("load", "fruit/queries.jsonl", "-c", "fruit"), 2, "contains only queries"),
        (("sweep", "nothing", "-g", "mode=dense"), 1, "eval set 'nothing' does not exist"),
        (("sweep", "nothing", "-g", "mode"), 2, "expected KEY=A,B"),
        (("sweep", "nothing", "-g", "mode=dense", "-g", "mode=sparse"), 2, "a setting twice"),
        (("report", "nothing"), 1, "run 'nothing' does not exist"),
    ],
)
def test_what_is_wrong_is_said_with_the_exit_code_for_it(cli, arguments, code, message):
    """2 for wrong input, 1 for what is not there."""
    result = cli("eval", *arguments)
    assert (result.code, message in " ".join(result.err.split())) == (code, True), result.err


def test_a_corpus_that_can_not_answer_is_refused(cli, tmp_path):
    """An id twice, and judgements none of which a document has; one that is missing is said. Nothing is ingested."""
    folder = tmp_path / "fruit"
    whole = (folder / "corpus.jsonl").read_text()
    (folder / "corpus.jsonl").write_text(f"{whole}\n{whole.splitlines()[0]}")
    twice = cli("eval", "load", "fruit", "-c", "refused")
    assert twice.code == 2 and "expected distinct ids" in " ".join(twice.err.split())
    (folder / "corpus.jsonl").write_text('{"_id": "elsewhere", "text": "apple"}')
    nowhere = cli("eval", "load", "fruit", "-c", "refused")
    assert nowhere.code == 2 and "7 of 7 judged documents are not in corpus.jsonl" in " ".join(nowhere.err.split())
    assert cli("eval", "run", "fruit", "-c", "refused").code == 1
    (folder / "corpus.jsonl").write_text("\n".join(whole.splitlines()[1:]))
    some = cli("eval", "load", "fruit", "-c", "some")
    assert some.code == 0 and "1 of 7 judged documents" in " ".join(some.err.split())


def test_a_run_of_nothing_but_failures_exits_1(cli):
    """It is kept, and shown with the reason, but a script must not go on with it."""
    assert cli("eval", "load", "fruit", "-c", "fruit").code == 0
    ran = cli("eval", "run", "fruit", "-c", "fruit", "--mode", "sparse", "--json")
    assert ran.code == 1 and ran.json["summary"]["failed"] == ran.json["summary"]["queries"] > 0


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [
        ("json:dumps", 2, "--embed json:dumps returned"),
        ("json:loads", 2, "--embed json:loads failed: TypeError"),
        ("builtins:list", 2, "the embedding function's fingerprint is str"),
        ("other", 4, "The model has changed under the same name"),
    ],
)
def test_a_model_that_can_not_answer_is_refused_before_the_first_query(cli, tmp_path, model, code, message):
    """By run and sweep alike: one that gives no vectors, or did not make the collection's. Nothing is kept."""
    assert cli("eval", "load", "fruit", "-c", "fruit").code == 0
    if model == "other":
        model = os.environ["PGRECALL_EMBED"].replace(":", "_other:")
        (tmp_path / f"{model.partition(':')[0]}.py").write_text(
            "def embed(texts):\n    return [[1.0] + [0.0] * 7] * len(texts)\n"
        )
    for command in (("run", "fruit"), ("sweep", "fruit", "-g", "mode=dense,hybrid")):
        refused = cli("eval", *command, "-c", "fruit", "--embed", model)
        assert (refused.code, message in " ".join(refused.err.split())) == (code, True), refused.err
    assert cli("eval", "list", "--json").json["runs"] == []
