"""What docs/evaluation.md shows runs as it stands there."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pgrecall import Chunk, EmbedSpace
from pgrecall.evaluation import Evaluations
from support.cli import run, text
from support.readme import run_python, snippets

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"
pytestmark = pytest.mark.filterwarnings("ignore")  # what ragas deprecated, and a file that it leaves open

WORDS = ["holidays", "expenses", "days", "weeks"]


def embed(texts):
    return [[text.count(word) + 0.01 for word in WORDS] for text in texts]


class ChatModel:
    """Stands for the reader's own model, which says yes to everything."""

    def with_structured_output(self, schema):
        self.schema = schema
        return self

    def invoke(self, _prompt):
        return self.schema(reason="it is so", verdict=1)

    async def ainvoke(self, prompt):
        return self.invoke(prompt)


async def my_app(_question):
    return "30 days"


def test_every_python_snippet_of_the_page_runs_and_prints_what_it_says(db):
    """In order, in one namespace, over a small collection."""
    pytest.importorskip("ragas", reason="the eval extra is not installed")
    store = db.tenant("acme").vectors("handbook-of-the-page", EmbedSpace("test", "four words", 4), embed=embed)
    store.upsert([Chunk("holidays-0", "30 days of holidays"), Chunk("expenses-0", "expenses in two weeks")])
    names = {"db": db, "store": store, "embed": embed, "chat_model": ChatModel(), "my_app": my_app}
    try:
        assert run_python(PAGE, names) > 4
    finally:
        db.delete_tenant("acme")
        db.create_tenant("acme", reopen=True)


def test_every_command_of_the_page_runs(db, app_url, tmp_path, monkeypatch):
    """In order, on a small folder under the page's name; a RUN is the newest one."""
    for name in [name for name in os.environ if name.startswith("PGRECALL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PGRECALL_URL", text(app_url))
    monkeypatch.setitem(sys.modules, "my_models", SimpleNamespace(embed=embed))
    monkeypatch.chdir(tmp_path)
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    folder = tmp_path / "scifact"
    (folder / "qrels").mkdir(parents=True)
    for name, form in (("corpus", "all about {}"), ("queries", "what about {}?")):
        lines = [json.dumps({"_id": word, "text": form.format(word)}) for word in WORDS]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    (folder / "qrels" / "test.tsv").write_text("".join(f"{word}\t{word}\t1\n" for word in WORDS))
    ran = []
    try:
        for command in [line for _, code in snippets(PAGE, "bash") for line in code.splitlines()]:
            first, *arguments = shlex.split(command, comments=True)
            if first == "export":
                for pair in arguments:
                    monkeypatch.setenv(*pair.split("="))
            elif first == "pgrecall":
                newest = [info.run_id for info in Evaluations(db.tenant("acme")).runs(limit=1)]
                result = run(*(newest[0] if argument == "RUN" else argument for argument in arguments))
                assert result.code == 0, (command, result.out, result.err)
                ran.append(arguments[1])
        assert ran[:3] == ["load", "run", "report"] and {"compare", "gate", "sweep"} <= set(ran)
        assert opened == [(tmp_path / "report.html").as_uri()]
    finally:
        db.delete_tenant("acme")
        db.create_tenant("acme", reopen=True)
