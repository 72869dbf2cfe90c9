"""The examples run, and print or answer what they say."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from types import ModuleType

import httpx
import pytest

import pgrecall
from conftest import as_dsn

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def load(topic: str) -> ModuleType:
    """An example's main.py as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{topic}", EXAMPLES / topic / "main.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def url(app_url, monkeypatch) -> str:
    """The suite's database, as the examples find it."""
    text = app_url.render_as_string(hide_password=False)
    monkeypatch.setenv("PGRECALL_URL", text)
    return text


def test_an_app_serves_a_hundred_tenants_at_once_on_one_pool(url, tenant_id, monkeypatch):
    """Each of 100 tenants writes and searches at the same moment, and finds its own notes and no other's."""
    app = load("langchain-fastapi")
    tokens = {f"token-{n}": f"{tenant_id}-{n}" for n in range(100)}
    monkeypatch.setattr(app, "TENANTS", tokens)
    connected: list[pgrecall.Database] = []
    opened = pgrecall.as_database

    def as_database(connection: str) -> pgrecall.Database:
        connected.append(opened(connection))
        return connected[-1]

    monkeypatch.setattr(pgrecall, "as_database", as_database)

    async def visit(client: httpx.AsyncClient, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        for word in ("holidays", "expenses"):
            note = {"text": f"{word} of {token}", "tags": [word]}
            assert (await client.post("/notes", json=note, headers=headers)).status_code == 201
        found = (await client.get("/search", params={"q": f"holidays of {token}"}, headers=headers)).json()
        assert {note["text"] for note in found} == {f"holidays of {token}", f"expenses of {token}"}
        assert found[0]["text"] == f"holidays of {token}" and abs(found[0]["distance"]) < 1e-3
        query = {"q": "any", "tag": "expenses", "tenant": "someone-else", "tenant_id": "someone-else"}
        [tagged] = (await client.get("/search", params=query, headers=headers)).json()
        assert (await client.delete(f"/notes/{tagged['id']}", headers=headers)).status_code == 204
        left = (await client.get("/search", params={"q": "any"}, headers=headers)).json()
        assert [note["text"] for note in left] == [f"holidays of {token}"]

    async def serve() -> None:
        async with app.lifespan(app.app):
            transport = httpx.ASGITransport(app.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://app", timeout=60) as client:
                await asyncio.gather(*(visit(client, token) for token in tokens))
                assert (await client.get("/search", params={"q": "x"})).status_code in (401, 403)
                stranger = {"Authorization": "Bearer stranger"}
                assert (await client.get("/search", params={"q": "x"}, headers=stranger)).status_code == 401

    asyncio.run(serve())
    assert len(connected) == 1


def test_an_answer_leaves_what_it_rested_on(url, capsys):
    """The chunks that were retrieved, with scores, and that one of them has changed since."""
    load("langchain-rag").main()
    answer, first, second = capsys.readouterr().out.splitlines()
    assert answer == "Expenses are paid back in two weeks."
    assert first.startswith("expenses 0.") and first.endswith("changed") and second.endswith("same")


def test_a_collection_follows_a_folder(url, capsys, tenant_id):
    """The counts of each run, and what is left."""
    load("langchain-index").main()
    added = "{{'num_added': {}, 'num_updated': 0, 'num_skipped': {}, 'num_deleted': {}}}"
    assert capsys.readouterr().out.splitlines() == [
        *(added.format(*counts) for counts in ((3, 0, 0), (0, 3, 0), (1, 1, 2), (1, 1, 0))),
        "['Everyone has 31 days.', 'They can be moved to the next year.']",
    ]


def test_an_agent_remembers_a_person_until_she_is_erased(url, maintenance_url, monkeypatch, capsys):
    """The second run knows what the user said in the first one, and nothing after the erasure."""
    monkeypatch.setenv("PGRECALL_MAINTENANCE_URL", maintenance_url.render_as_string(hide_password=False))
    load("langchain-agent").main()
    assert capsys.readouterr().out.splitlines()[-3:] == ["tool: tea: without sugar", "ai: Done.", "nothing yet"]


def test_langgraphs_own_threads_go_with_the_person(admin_url, monkeypatch, capsys):
    """PostgresSaver's tables in the same database; only the erased person's thread is gone."""
    monkeypatch.setenv("PGRECALL_URL", as_dsn(admin_url))
    load("langgraph-checkpoints").main()
    assert capsys.readouterr().out.splitlines() == ["failed hooks: {}", "ana: no thread", "bob: a thread"]


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*/main.py")), ids=lambda file: file.parent.name)
def test_examples_are_short(file):
    """At most 80 lines, and a sentence that says what it is for."""
    text = file.read_text()
    assert text.startswith('"""') and len(text.splitlines()) <= 80
