"""`pgrecall chat`, as a person and as a script use it."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from pgrecall import Message, ToolCall
from support.cli import run, text


@pytest.fixture
def cli(app_url, tenant_id, monkeypatch):
    """The command line, as one tenant."""
    monkeypatch.setenv("PGRECALL_URL", text(app_url))
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments, **options: run(*arguments, "-t", tenant_id, **options)


@pytest.fixture
def chat(db, tenant_id):
    """A chat of three messages, the oldest archived."""
    chat = db.tenant(tenant_id).chat("s", "ana")
    call = Message("assistant", "", tool_calls=[ToolCall("look", {"q": 1}, "c")])
    chat.append([Message("user", "früher"), Message("user", "hello\x1b[31m there"), call])
    chat.archive_oldest(1)
    return chat


def test_chats_are_listed_by_subject(cli, chat):
    """A table for people, JSON for scripts."""
    assert "ana" in cli("chat", "list").out
    assert [c["session_id"] for c in cli("chat", "list", "--subject", "ana", "--json").json] == ["s"]
    assert cli("chat", "list", "-s", "ben", "--json").json == []
    assert "no matching chats" in cli("chat", "list", "-s", "ben").out


def test_a_chat_is_shown(cli, chat):
    """In order, without what would steer the terminal; the archive where asked for."""
    shown = cli("chat", "show", "s").out
    assert "hello [31m there" in shown and "[calls look]" in shown and "\x1b" not in shown and "früher" not in shown
    everything = cli("chat", "show", "s", "--status", "all", "-n", "9", "--json").json["content"]
    assert [m["content"] for m in everything[:2]] == ["früher", "hello\x1b[31m there"]
    assert [m["role"] for m in cli("chat", "show", "s", "-n", "1", "--json").json["content"]] == ["assistant"]
    assert cli("chat", "show", "nobody's").code == 1
    assert cli("chat", "show", "s", "--status", "lost").code == 2


def test_a_chat_is_exported_as_json_lines(cli, chat):
    """Everything that is kept of each message, archived ones too."""
    lines = [json.loads(line) for line in cli("chat", "export", "s").out.splitlines()]
    assert [(m["position"], m["status"]) for m in lines] == [(0, "archived"), (1, "active"), (2, "active")]
    assert lines[2]["tool_calls"] == [{"name": "look", "args": {"q": 1}, "id": "c", "error": None}]
    assert datetime.fromisoformat(lines[0]["created_at"]) == chat.list_messages(status=None)[0].created_at
    assert cli("chat", "export", "nobody's").code == 1


def test_a_chat_is_cleared_and_dropped_when_that_is_confirmed(cli, chat):
    """Nobody at the terminal and no --yes: nothing is done."""
    for verb in ("clear", "drop"):
        assert cli("chat", verb, "s").code == 2
        assert cli("chat", verb, "nobody's", "--yes").code == 1
    assert cli("chat", "clear", "s", "--status", "archived", "--yes", "--json").json["deleted"] == 1
    assert "deleted 2 messages" in cli("chat", "clear", "s", "--yes").out
    assert chat.info().subject == "ana"
    assert cli("chat", "drop", "s", "--yes").code == 0
    assert chat.info() is None
