"""Chats: one order for all writers; reading, replacing, trimming, expiring, searching; and hostile content."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pgrecall import InvalidInput, Message, NotFound, SubjectErased, TenantErased, ToolCall, UnknownTenant
from pgrecall.statements import chat as sql
from pgrecall.testing.contract.base import AsyncFace

DAY = timedelta(days=1)


def user(text: str, **fields) -> Message:
    return Message("user", text, **fields)


def texts(messages) -> list[str]:
    return [m.text for m in messages]


@pytest.fixture(params=["sync", "async"])
def chat(request, db, tenant_id):
    """A chat of ana's that does not exist yet, in both modes."""
    made = db.tenant(tenant_id).chat("s", "ana")
    if request.param == "sync":
        yield made
    else:
        with asyncio.Runner() as runner:
            yield AsyncFace(made, runner)
            db.close()  # the async pool's connections, before their loop


RICH = Message(
    "assistant",
    [
        {"type": "text", "text": "Look:", "annotations": [{"type": "citation", "url": "https://example.com"}]},
        {"type": "image", "url": "https://example.com/1.png", "detail": "low"},
        {"type": "reasoning", "text": "hm", "signature": "c2ln"},
        {"type": "tool_result", "tool_call_id": "c0", "content": [{"type": "text", "text": "inner"}]},
        {"type": "raw", "framework": "someone", "body": {"type": "hologram", "n": [1, 2.5, None, True]}},
    ],
    id="rich",
    name="bot",
    tool_calls=[
        ToolCall("look", {"q": "ünïcode 😀", "deep": {"": []}}, "c1"),
        ToolCall("odd", "{not json", None, "bad"),
    ],
    tool_call_id="c0",
    metadata={"tokens": 12, "big": 1e23, "ключ": {"x": None}},
    payload={"type": "ai", "content": "…", "empty": {}},
    framework="someone",
)


def test_a_message_comes_back_as_it_was_put(chat):
    """Every field, blocks and tool calls and payload included; the store adds id, position and times."""
    stored = chat.append(RICH)[0]
    assert (stored.position, stored.status, stored.expires_at) == (0, "active", None)
    assert abs(stored.created_at - datetime.now(UTC)) < timedelta(minutes=5)
    assert replace(stored, position=None, created_at=None) == RICH
    assert chat.list_messages() == [stored] == [chat.get("rich")]
    assert stored.text == "Look:\ninner"
    assert stored.unmapped == (
        {"type": "raw", "framework": "someone", "body": {"type": "hologram", "n": [1, 2.5, None, True]}},
    )
    assert chat.get("nobody") is None


def test_messages_of_one_call_stand_next_to_each_other(chat):
    """One call's messages have consecutive positions, those without an id get one; a generator will do."""
    first = chat.append(user(f"a{n}") for n in range(3))
    second = chat.append([user("b0"), user("b1")])
    assert [m.position for m in first + second] == [0, 1, 2, 3, 4]
    assert len({m.id for m in first + second}) == 5
    assert texts(chat.list_messages()) == ["a0", "a1", "a2", "b0", "b1"]
    assert chat.append([]) == []


def test_an_append_with_ids_can_be_repeated(chat):
    """A message whose id is there takes that one's place: the same call again leaves the same chat."""
    chat.append([user("one", id="1"), user("two", id="2")])
    chat.append([user("one", id="1"), user("two, edited", id="2"), user("three", id="3")])
    assert texts(chat.list_messages()) == ["one", "two, edited", "three"]
    assert texts(chat.append([user("x", id="9"), user("y", id="9")])) == ["y"]


def test_reading_all_last_after_since_and_pages(chat):
    """Each way of reading gives messages in their order."""
    stored = chat.append([user(f"m{n}") for n in range(10)])
    later = chat.append(user("later"))[0]
    assert texts(chat.list_messages(3)) == ["m8", "m9", "later"]
    assert texts(chat.list_messages(after=stored[7].position)) == ["m8", "m9", "later"]
    assert texts(chat.list_messages(after=-1, limit=2)) == ["m0", "m1"]
    assert texts(chat.list_messages(limit=3, offset=4)) == ["m4", "m5", "m6"]
    assert texts(chat.list_messages(since=later.created_at)) == ["later"]
    assert texts(chat.list_messages(since=stored[0].created_at)) == texts(chat.list_messages())
    assert chat.list_messages(0) == chat.list_messages(limit=0) == chat.list_messages(after=10**12) == []
    assert (chat.count(), chat.count("archived"), chat.count(None)) == (11, 0, 11)
    for wrong in ({"last": 1, "limit": 2}, {"last": -1}, {"since": datetime(2026, 1, 1)}, {"status": "gone"}):
        with pytest.raises(InvalidInput):
            chat.list_messages(**wrong)


def test_replace_puts_a_whole_list_in_place_of_all(chat):
    """Archived ones go too; positions go on, so that a reader's cursor skips nothing."""
    chat.append([user(f"old{n}") for n in range(3)])
    chat.archive_oldest(1)
    new = chat.replace([user("new0"), user("new1")])
    assert chat.list_messages(status=None) == new
    assert [m.position for m in new] == [3, 4]
    with pytest.raises(InvalidInput):
        chat.replace([user("x"), user("nul \0")])
    assert chat.list_messages() == new
    assert chat.replace([]) == chat.list_messages(status=None) == []


def test_one_message_is_replaced_by_id_or_by_position(chat):
    """Its position and time stay; an unknown one is NotFound, another one's id is refused."""
    first, second = chat.append([user("one"), user("two", id="2")])
    edited = chat.replace_message(first.position, Message("user", "ONE"))
    assert edited == replace(first, content="ONE")
    assert chat.replace_message("2", Message("assistant", "TWO", id="zwei")).position == second.position
    assert [(m.id, m.role, m.text) for m in chat.list_messages()] == [
        (first.id, "user", "ONE"),
        ("zwei", "assistant", "TWO"),
    ]
    for which in ("2", 77):
        with pytest.raises(NotFound):
            chat.replace_message(which, user("x"))
    with pytest.raises(InvalidInput, match="another message"):
        chat.replace_message(first.position, user("x", id="zwei"))
    assert [h.message.id for h in chat.search("one")] == [first.id]


def test_delete_pop_and_clear(chat):
    """By id, by position, by place in the list as Python counts, and all; nothing means nothing."""
    m = chat.append([user(f"m{n}") for n in range(8)])
    assert chat.delete([m[0].id, "nobody"]) == 1
    assert chat.delete(positions=[1, 2, 99]) == 2
    assert chat.delete([m[3].id], positions=[4]) == 0
    assert (chat.pop(), chat.pop(0), chat.pop(-2), chat.pop(5), chat.pop(-9)) == (m[7], m[3], m[5], None, None)
    assert chat.list_messages() == [m[4], m[6]]
    with pytest.raises(InvalidInput, match="clear"):
        chat.delete()
    chat.archive_oldest(1)
    assert (chat.clear("archived"), chat.clear(), chat.clear()) == (1, 1, 0)
    assert chat.info().messages == 0
    assert chat.drop() == 0
    assert chat.info() is None
    with pytest.raises(NotFound):
        chat.drop()


def test_the_oldest_go_to_the_archive_or_for_good(chat):
    """In order, active ones only; the archive is read by its status."""
    chat.append([user(f"m{n}") for n in range(5)])
    assert texts(chat.archive_oldest(2)) == ["m0", "m1"]
    assert texts(chat.delete_oldest(2)) == ["m2", "m3"]
    chat.append(Message("user", "straight there", status="archived"))
    assert texts(chat.list_messages()) == ["m4"]
    assert texts(chat.list_messages(status="archived")) == ["m0", "m1", "straight there"]
    assert texts(chat.list_messages(status=None)) == ["m0", "m1", "m4", "straight there"]
    assert (chat.archive_oldest(9)[0].status, chat.delete_oldest(9)) == ("archived", [])


def test_a_chat_says_whose_it_is_and_what_it_holds(db, tenant_id):
    """Chats are listed by subject, the last written first; metadata is merged or replaced."""
    tenant = db.tenant(tenant_id)
    for name, subject in (("a1", "ana"), ("b1", "ben"), ("a2", "ana"), ("nobody's", None)):
        tenant.chat(name, subject).append([user("x"), user("y")])
    tenant.chat("a1").append(user("again"))
    assert [c.session_id for c in tenant.list_chats("ana")] == ["a1", "a2"]
    assert [c.session_id for c in tenant.list_chats()] == ["a1", "nobody's", "a2", "b1"]
    assert [c.session_id for c in tenant.list_chats(limit=2, offset=1)] == ["nobody's", "a2"]
    assert tenant.list_chats("nobody") == []
    chat = tenant.chat("a1")
    chat.archive_oldest(1)
    chat.set_metadata({"title": "T", "n": 1})
    chat.set_metadata({"n": 2})
    info = chat.info()
    assert (info.subject, info.messages, info.archived, info.metadata) == ("ana", 2, 1, {"title": "T", "n": 2})
    chat.set_metadata({}, replace=True)
    assert chat.info().metadata == {}
    with pytest.raises(NotFound):
        tenant.chat("none").set_metadata({})


def test_a_chat_of_another_subject_is_none(db, tenant_id):
    """With a subject a store sees that subject's chats, and those of nobody, which its first write claims."""
    tenant = db.tenant(tenant_id)
    tenant.chat("s", "ana").append(user("secret", id="1"))
    bens = tenant.chat("s", "ben")
    assert (bens.list_messages(), bens.count(None), bens.get("1"), bens.window(9), bens.info()) == (
        [],
        0,
        None,
        [],
        None,
    )
    assert (bens.clear(), bens.delete(["1"]), bens.pop(), bens.archive_oldest(9), bens.search("secret")) == (
        0, 0, None, [], [],
    )  # fmt: skip
    for write in (lambda: bens.append(user("x")), lambda: bens.replace([])):
        with pytest.raises(InvalidInput, match="another subject"):
            write()
    for change in (bens.drop, lambda: bens.replace_message("1", user("x")), lambda: bens.set_metadata({"x": 1})):
        with pytest.raises(NotFound):
            change()
    assert texts(tenant.chat("s").list_messages()) == ["secret"]
    tenant.chat("free").append(user("x"))
    tenant.chat("free", "ben").append(user("y"))
    assert [c.session_id for c in tenant.list_chats("ben")] == ["free"]


def age(admin_connection, tenant_id, by):
    """Let time go by for a tenant's chats."""
    for table in ("chat_sessions", "chat_messages"):
        admin_connection.execute(
            f"UPDATE pgrecall.{table} SET expires_at = expires_at - %s WHERE tenant_id = %s", [by, tenant_id]
        )


def test_a_chat_that_expired_is_gone_and_a_write_creates_it_again(db, tenant_id, admin_connection):
    """Each write renews the lifetime; after it nothing is read; positions go on."""
    tenant = db.tenant(tenant_id)
    chat = tenant.chat("s", "ana", ttl=2 * DAY)
    chat.append(user("one", id="1"))
    age(admin_connection, tenant_id, 1.5 * DAY)
    tenant.chat("s").append(user("two"))
    age(admin_connection, tenant_id, 1.5 * DAY)
    assert texts(chat.list_messages()) == ["one", "two"]
    age(admin_connection, tenant_id, DAY)
    assert (chat.list_messages(), chat.info(), tenant.list_chats(), tenant.search_chats("one"), chat.clear()) == (
        [],
        None,
        [],
        [],
        0,
    )
    with pytest.raises(NotFound):
        chat.set_ttl(None)
    again = tenant.chat("s", "ben").append(user("three", id="1"))[0]
    assert (again.position, again.expires_at) == (2, None)
    assert [(c.subject, c.messages, c.ttl) for c in tenant.list_chats()] == [("ben", 1, None)]


def test_a_message_that_expired_is_gone(db, tenant_id, admin_connection):
    """Its id may come again, at the end; the chat lives on."""
    assert db.tenant(tenant_id).chat("s", message_ttl=DAY).append(user("one", id="1"))[0].expires_at is not None
    chat = db.tenant(tenant_id).chat("s")
    chat.set_ttl(None)
    chat.append(user("stays", id="2"))
    age(admin_connection, tenant_id, 2 * DAY)
    assert texts(chat.list_messages()) == ["stays"]
    assert (chat.count(None), chat.get("1"), chat.delete(["1"]), chat.search("one")) == (1, None, 0, [])
    with pytest.raises(NotFound):
        chat.replace_message("1", user("x"))
    chat.append(user("one again", id="1"))
    assert texts(chat.list_messages()) == ["stays", "one again"]


def test_lifetimes_are_whole_seconds_or_more(db, tenant_id):
    """Less than a second, NaN, or a text is refused before anything is written; a number is seconds."""
    assert db.tenant(tenant_id).chat("s", ttl=60)._ttl == timedelta(minutes=1)
    for wrong in (0, True, float("nan"), float("inf"), timedelta(0), timedelta(milliseconds=5), -DAY, "1 day"):
        with pytest.raises(InvalidInput, match="timedelta"):
            db.tenant(tenant_id).chat("s", ttl=wrong)


def test_words_are_found_in_each_chat_s_own_language(db, tenant_id):
    """Alternatives, phrases and exclusions; by subject, role and status; the best first."""
    tenant = db.tenant(tenant_id)
    tenant.chat("en", "ana", text_config="english").append(
        [user("The cats were running"), Message("assistant", "Running cats, running shoes"), user("nothing of it")]
    )
    tenant.chat("plain", "ben").append([user("a cat runs"), user("running is a word here")])
    tenant.chat("plain", "ben").archive_oldest(1)
    found = tenant.search_chats("running")
    assert {(h.session_id, h.message.text) for h in found} == {
        ("en", "The cats were running"), ("en", "Running cats, running shoes"), ("plain", "running is a word here"),
    }  # fmt: skip
    assert found[0].message.text == "Running cats, running shoes"
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    assert texts(h.message for h in tenant.search_chats("run", subject="ana", roles=["user"])) == [
        "The cats were running"
    ]
    assert texts(h.message for h in tenant.search_chats('"running shoes"')) == ["Running cats, running shoes"]
    assert len(tenant.search_chats("cat -shoes")) == 2
    assert texts(h.message for h in tenant.search_chats("cat", status="active", subject="ben")) == []
    assert len(tenant.search_chats("running", 1)) == 1
    assert texts(h.message for h in tenant.chat("plain").search("running")) == ["running is a word here"]
    assert tenant.search_chats("the -x ''") == tenant.search_chats("") == []
    with pytest.raises(InvalidInput, match="roles"):
        tenant.search_chats("x", roles="user")
    with pytest.raises(InvalidInput, match="text_config"):
        tenant.chat("k", text_config="klingon").append(user("x"))


def test_the_window_holds_whole_turns_after_the_instructions(chat):
    """By messages and by tokens; a tool's result never stands without its call."""
    chat.append(
        [
            Message("system", "rules"),
            user("q1"), Message("assistant", "a1"),
            user("q2"), Message("assistant", "", tool_calls=[ToolCall("t", {}, "c")]),
            Message("tool", "r1", tool_call_id="c"), Message("tool", "r2", tool_call_id="c"),
            Message("assistant", "a2"),
            user("q3"), Message("assistant", "a3"),
        ]
    )  # fmt: skip
    assert texts(chat.window(99)) == texts(chat.list_messages())
    assert texts(chat.window(8)) == ["rules", "q2", "", "r1", "r2", "a2", "q3", "a3"]
    assert texts(chat.window(7)) == texts(chat.window(3)) == ["rules", "q3", "a3"]
    assert texts(chat.window(2)) == ["rules", "a3"]
    assert texts(chat.window(1)) == ["rules"]
    assert texts(chat.window(2, keep_system=False)) == ["q3", "a3"]
    assert texts(chat.window(max_tokens=9, count_tokens=lambda m: len(m.text))) == ["rules", "q3", "a3"]
    assert texts(chat.window(max_tokens=18, count_tokens=lambda m: len(m.text)))[1:3] == ["q2", ""]
    chat.pop(), chat.pop()
    assert texts(chat.window(5)) == ["rules", "", "r1", "r2", "a2"]
    assert texts(chat.window(4)) == ["rules", "a2"]
    for wrong in ({}, {"max_tokens": 5}, {"max_messages": 0}, {"max_tokens": 5, "count_tokens": lambda m: "x"}):
        with pytest.raises(InvalidInput):
            chat.window(**wrong)


def test_a_window_reads_no_more_than_it_needs(db, tenant_id):
    """Of a long chat the counter sees the newest messages, and the instructions at its head."""
    chat = db.tenant(tenant_id).chat("s")
    chat.append([*(Message("developer", f"d{n}") for n in range(7)), *(user(f"m{n}") for n in range(1_500))])
    seen = []
    found = chat.window(max_tokens=10, count_tokens=lambda m: seen.append(m.text) or 1)
    assert texts(found) == [*(f"d{n}" for n in range(7)), "m1497", "m1498", "m1499"]
    assert len(seen) == 11
    assert len(chat.window(1_200)) == 1_200


HUGE = "x y " * 2_500_000


def test_ten_megabytes_of_text_are_stored_exactly(db, tenant_id):
    """As a text and in a block; both are searched by their beginning."""
    chat = db.tenant(tenant_id).chat("s")
    chat.append([user(HUGE), Message("user", [{"type": "text", "text": HUGE}, {"type": "raw", "body": [HUGE]}])])
    assert [m.text == HUGE for m in chat.list_messages()] == [True, True]


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"d": value}
    return value


@pytest.mark.parametrize(
    "message",
    [
        user("nul \0"), user("\ud800"), user("x", name="\0"), user("x", metadata={"n": float("nan")}),
        user("x", metadata={"\ud800": 1}), user("x", payload={"k": "\0"}), user("x", payload=nested(300)),
        user("x", metadata={1: 2}), user("x", payload=[1]), user("x", id=""), user("x", id="i" * 1_001),
        user("x", id=7),
        user("x", tool_calls=[ToolCall("t", {"x": object()})]), user("x", tool_calls=[ToolCall(None)]),
        user("x", tool_calls=[{"name": "t"}]), user("x", tool_calls=[ToolCall("t", [1])]),
        Message("robot", "x"), Message("user", [{"type": "hologram"}]), Message("user", ["x"]),
        Message("user", [{"type": "text", "text": 7}]), Message("user", [{"type": "image"}]),
        Message("user", [{"type": "tool_result", "content": [{"type": "?"}]}]), Message("user", "x", status="lost"),
        Message("user", [{"type": "image", "base64": b"raw bytes"}]), "x", None, {"role": "user"},
    ],
)  # fmt: skip
def test_what_can_t_be_stored_is_refused_and_nothing_of_the_call_is_kept(db, tenant_id, message):
    """A clear error, whatever is wrong with one of the messages."""
    chat = db.tenant(tenant_id).chat("s")
    with pytest.raises(InvalidInput) as refused:
        chat.append([user("before"), message, user("after")])
    assert len(str(refused.value)) < 500
    assert chat.list_messages() == []


def test_content_is_a_text_or_a_list(db, tenant_id):
    """What is neither is refused where the message is made."""
    for wrong in (7, None, b"x", {"type": "text"}):
        with pytest.raises(InvalidInput, match="content"):
            Message("user", wrong)
    with pytest.raises(InvalidInput, match="session_id"):
        db.tenant(tenant_id).chat("")


def test_a_deleted_tenant_s_chat_takes_no_more(db, tenant_id):
    """The tombstone refuses it; a database that requires known tenants refuses unknown ones."""
    chat = db.tenant(tenant_id).chat("s")
    chat.append(user("x"))
    deleted = db.delete_tenant(tenant_id).deleted
    assert (deleted["chat_messages"], deleted["chat_sessions"]) == (1, 1)
    with pytest.raises(TenantErased):
        chat.append(user("late"))
    db.backend.require_known_tenants = True
    with pytest.raises(UnknownTenant):
        db.tenant(f"{tenant_id}-unknown").chat("s").append(user("x"))


def test_an_erased_subject_s_chats_take_no_more(db, tenant_id):
    """What was held goes; its late writers are refused in new chats, old ones and nobody's; others go on."""
    tenant = db.tenant(tenant_id)
    chat = tenant.chat("s", "ana")
    chat.append(user("x"))
    tenant.chat("shared").append(user("y"))
    report = tenant.erase_subject("ana", actor="officer")
    assert (report.deleted["chat_messages"], report.deleted["chat_sessions"]) == (1, 1)
    for late in (chat, tenant.chat("new", "ana"), tenant.chat("shared", "ana")):
        for write in (late.append, late.replace):
            with pytest.raises(SubjectErased):
                write([user("late")])
    assert (tenant.list_chats("ana"), texts(tenant.chat("shared").list_messages())) == ([], ["y"])
    tenant.chat("s", "ben").append(user("z"))
    tenant.reopen_subject("ana", actor="officer")
    assert tenant.chat("new", "ana").append(user("back"))


def test_a_sweep_deletes_what_expired(db, tenant_id, admin_connection):
    """Messages by themselves, and whole chats with theirs."""
    tenant = db.tenant(tenant_id)
    tenant.chat("goes", ttl=DAY).append([user("x"), user("y")])
    tenant.chat("stays").append(user("z"))
    tenant.chat("stays", message_ttl=DAY).append(user("goes"))
    age(admin_connection, tenant_id, 2 * DAY)
    db.sweep()
    left = admin_connection.execute("SELECT text FROM pgrecall.chat_messages WHERE tenant_id = %s", [tenant_id])
    assert left.fetchall() == [("z",)]
    assert [c.session_id for c in tenant.list_chats()] == ["stays"]


def test_reading_the_end_of_a_long_chat_follows_the_primary_key(db, tenant_id, admin_connection):
    """On tables that were never analyzed too: no sort, whatever the chat's length."""
    chat = db.tenant(tenant_id).chat("s")
    chat.append([user(f"m{n}") for n in range(3_000)])
    gate = db.backend.engines.sync_gate()
    page = {"after": None, "before": None, "since": None, "status": "active", "limit": 5, "offset": 0}
    params = {"tenant": tenant_id, "session": "s", "subject": None, **page}
    with gate.transaction(db.backend.scope(gate, tenant_id)) as tx:
        plan = "\n".join(row[0] for row in tx.rows("EXPLAIN (COSTS OFF) " + sql.LAST, params))
    assert "Index Scan Backward using chat_messages_pkey" in plan
    assert "Sort" not in plan
