"""Chat histories: messages come back exactly, each tenant's and subject's apart, and other frameworks read them."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from functools import partial

import pytest
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables.history import RunnableWithMessageHistory

from langchain_pgrecall import PGRecallChatMessageHistory
from pgrecall import InvalidInput, Message, ToolCall

MESSAGES: list[BaseMessage] = [
    SystemMessage("Answer in one sentence.", id="s"),
    SystemMessage("For developers.", additional_kwargs={"__openai_role__": "developer"}),
    HumanMessage("How long is the leave? ключ 😀", name="ana", additional_kwargs={"k": [1, None, {"x": 1.0}]}),
    HumanMessage([
        {"type": "text", "text": "What is on it?"},
        {"type": "image", "url": "https://example.org/a.png", "mime_type": "image/png"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "file", "base64": "JVBERi0=", "mime_type": "application/pdf", "filename": "a.pdf"},
        "a bare text",
    ]),
    AIMessage(
        "",
        id="run-1",
        tool_calls=[{"name": "search", "args": {"q": "leave", "deep": {"n": 1}}, "id": "call-1", "type": "tool_call"}],
        invalid_tool_calls=[
            {"name": "search", "args": "{broken", "id": "call-2", "error": "no JSON", "type": "invalid_tool_call"}
        ],
        usage_metadata={
            "input_tokens": 10, "output_tokens": 5, "total_tokens": 15, "input_token_details": {"cache_read": 3}
        },
        response_metadata={"model_name": "gpt-x", "finish_reason": "tool_calls", "logprobs": None},
    ),
    ToolMessage("14 weeks", tool_call_id="call-1", id="t", artifact={"rows": [1, 2]}, status="error"),
    ToolMessage([{"type": "text", "text": "in parts"}], tool_call_id="call-2"),
    AIMessage([
        {"type": "reasoning", "reasoning": "thinking", "extras": {"signature": "abc"}},
        {
            "type": "text", "text": "Fourteen weeks.",
            "annotations": [{"type": "citation", "url": "https://x.org", "cited_text": "14 weeks", "start_index": 0}],
        },
        {"type": "non_standard", "value": {"anything": [1]}},
    ]),
    FunctionMessage("result", name="f"),
    ChatMessage("from afar", role="oracle"),
    ChatMessage("as a user", role="user"),
]  # fmt: skip


@pytest.fixture
def history(db, tenant_id) -> PGRecallChatMessageHistory:
    """An empty history."""
    return PGRecallChatMessageHistory("session", connection=db, tenant=tenant_id)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.type)
def test_each_kind_of_message_comes_back_exactly(history, message):
    """Content blocks, ids, tool calls, usage, metadata: equal, and of the same class."""
    before = message.model_copy(deep=True)
    history.add_message(message)
    [found] = history.messages
    assert found == message == before and type(found) is type(message)


def test_a_chat_keeps_its_order_sync_and_async(history):
    """Added together and one by one; get, add and clear, in both faces."""
    history.add_messages(MESSAGES[:4])
    asyncio.run(history.aadd_messages(MESSAGES[4:]))
    assert history.messages == asyncio.run(history.aget_messages()) == MESSAGES
    history.add_user_message("and now?")
    history.add_ai_message("now this")
    assert [type(m) for m in history.messages[-2:]] == [HumanMessage, AIMessage]
    asyncio.run(history.aclear())
    assert history.messages == []
    history.add_messages([])
    history.add_user_message("again")
    history.clear()
    assert history.messages == [] and isinstance(history, BaseChatMessageHistory)


def test_what_is_no_message_is_named(history):
    """A text, one message that is no list, a pair as prompts take them; nothing is written."""
    for wrong in ("hello", HumanMessage("x"), [HumanMessage("x"), ("user", "x")]):
        with pytest.raises(InvalidInput, match="expected BaseMessage"):
            history.add_messages(wrong)
    assert history.messages == []


def test_chunks_are_kept_as_whole_messages(history):
    """What was streamed comes back as the message that it adds up to."""
    streamed = AIMessageChunk("Hel", id="run-1") + AIMessageChunk("lo", id="run-1")
    history.add_message(streamed)
    assert history.messages == [AIMessage("Hello", id="run-1")]


def test_a_message_with_a_known_id_takes_its_place_and_removals_remove(history):
    """As LangGraph's add_messages has it."""
    history.add_messages([HumanMessage("one", id="1"), AIMessage("two", id="2")])
    history.add_messages([AIMessage("two, edited", id="2"), HumanMessage("three", id="3")])
    assert [m.content for m in history.messages] == ["one", "two, edited", "three"]
    history.add_messages([RemoveMessage(id="1"), HumanMessage("four", id="4")])
    assert [m.content for m in history.messages] == ["two, edited", "three", "four"]
    history.add_messages([RemoveMessage(id="__remove_all__"), HumanMessage("five")])
    assert [m.content for m in history.messages] == ["five"]


def test_sessions_tenants_and_subjects_are_apart(db, tenant_id):
    """The same free-text session id in two tenants is two chats; another subject's is empty."""
    name = "support / 17 ключ '; --"
    made = {t: PGRecallChatMessageHistory(name, connection=db, tenant=t) for t in (tenant_id, f"{tenant_id}-2")}
    for tenant, history in made.items():
        history.add_user_message(f"of {tenant}")
    assert [h.messages[0].content for h in made.values()] == [f"of {tenant}" for tenant in made]
    ana = partial(PGRecallChatMessageHistory, "private", connection=db, tenant=tenant_id)
    ana(subject="ana").add_user_message("mine")
    assert ana(subject="bob").messages == [] and len(ana(subject="ana").messages) == 1
    with pytest.raises(InvalidInput):
        ana(subject="bob").add_user_message("not mine")
    assert made[tenant_id].session_id == name


def test_a_limit_reads_the_newest_whole_turns(history, db, tenant_id):
    """No tool's result without its call; everything is kept."""
    history.add_message(SystemMessage("Be brief."))
    for turn in range(10):
        history.add_messages([HumanMessage(f"question {turn}"), AIMessage(f"answer {turn}")])
    short = PGRecallChatMessageHistory("session", connection=db, tenant=tenant_id, limit=5)
    assert [m.content for m in short.messages] == ["Be brief.", "question 8", "answer 8", "question 9", "answer 9"]
    assert asyncio.run(short.aget_messages()) == short.messages and len(history.messages) == 21


def test_a_runnable_with_history_remembers(db, tenant_id):
    """Two runs of one session, one sync and one async: the second prompt holds the first's messages."""
    seen: list[int] = []

    class Model(FakeListChatModel):
        def _call(self, messages: list[BaseMessage], *args: object, **kwargs: object) -> str:
            seen.append(len(messages))
            return super()._call(messages, *args, **kwargs)

    prompt = ChatPromptTemplate.from_messages([("system", "Hi"), MessagesPlaceholder("past"), ("human", "{question}")])
    sessions: Callable[[str], BaseChatMessageHistory] = partial(
        PGRecallChatMessageHistory, connection=db, tenant=tenant_id
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # langchain_core's, of the class itself
        chain = RunnableWithMessageHistory(
            prompt | Model(responses=["first answer", "second answer"]),
            sessions,
            input_messages_key="question",
            history_messages_key="past",
        )
    config = {"configurable": {"session_id": "a b c"}}
    assert chain.invoke({"question": "first?"}, config).content == "first answer"
    assert asyncio.run(chain.ainvoke({"question": "second?"}, config)).content == "second answer"
    assert seen == [2, 4]
    assert [m.content for m in sessions("a b c").messages] == ["first?", "first answer", "second?", "second answer"]


def test_another_frameworks_messages_are_read(history):
    """By the neutral form: roles, blocks, tool calls; its payload is left alone."""
    theirs = {"framework": "llama_index", "payload": {"role": "x", "blocks": []}}
    call = ToolCall("search", {"q": 1}, "call-1")
    history.core.append([
        Message("system", "rules", **theirs),
        Message("developer", "more rules"),
        Message("user", [
            {"type": "text", "text": "look"},
            {"type": "image", "base64": "AA==", "mime_type": "image/png"},
            {"type": "file", "text": "plain", "name": "a.txt"},
            {"type": "raw", "framework": "llama_index", "body": {"kind": "cache_point"}},
        ], **theirs),
        Message("assistant", [
            {"type": "reasoning", "text": "hm", "signature": "s"},
            {"type": "citation", "text": "quoted", "title": "A book"},
            {"type": "tool_call", "name": "search", "id": "call-1", "args": {"q": 1}},
        ], tool_calls=[call, ToolCall("bad", "{", "call-2", error="no JSON")], id="m", **theirs),
        Message("tool", "found", tool_call_id="call-1", metadata={"status": "error"}),
        Message("function", "3", name="f"),
        Message("other", "?", metadata={"role": "oracle"}),
    ])  # fmt: skip
    rules, more, user, assistant, tool, function, other = history.messages
    assert (rules.content, more.additional_kwargs) == ("rules", {"__openai_role__": "developer"})
    assert [b["type"] for b in user.content_blocks] == ["text", "image", "text-plain", "non_standard"]
    assert user.content[3]["value"] == {"kind": "cache_point"}
    assert assistant.tool_calls == [{"name": "search", "args": {"q": 1}, "id": "call-1", "type": "tool_call"}]
    assert [c["id"] for c in assistant.invalid_tool_calls] == ["call-2"] and assistant.id == "m"
    assert assistant.content[0] == {"type": "reasoning", "reasoning": "hm", "extras": {"signature": "s"}}
    assert assistant.content[1]["annotations"][0]["title"] == "A book"
    assert (tool.tool_call_id, tool.status, function.name, other.role) == ("call-1", "error", "f", "oracle")


def test_another_framework_reads_what_was_written_here(history):
    """Roles, texts, calls and blocks in the neutral form; nothing that was said is lost without a word."""
    history.add_messages(MESSAGES)
    stored = history.core.list_messages()
    assert [m.role for m in stored] == [
        "system", "developer", "user", "user", "assistant", "tool", "tool", "assistant", "function", "other", "user"
    ]  # fmt: skip
    assert [b["type"] for b in stored[3].blocks] == ["text", "image", "image", "file", "text"]
    assert stored[4].tool_calls == (
        ToolCall("search", {"q": "leave", "deep": {"n": 1}}, "call-1"),
        ToolCall("search", "{broken", "call-2", "no JSON"),
    )
    assert stored[5].tool_call_id == "call-1"
    assert dict(stored[5].metadata) == {"status": "error", "artifact": {"rows": [1, 2]}}
    assert [b["type"] for b in stored[7].blocks] == ["reasoning", "text", "raw"]
    assert stored[7].blocks[1]["annotations"][0]["text"] == "14 weeks"
    assert dict(stored[9].metadata) == {"role": "oracle"} and {m.framework for m in stored} == {"langchain"}
    assert [hit.message.id for hit in history.core.search("fourteen")] == [stored[7].id]


def test_what_is_stored_is_never_loaded(history):
    """A serialised constructor inside a message stays the data that it is."""
    made = ["langchain_core", "messages", "HumanMessage"]
    trap = {"lc": 1, "type": "constructor", "id": made, "kwargs": {"content": "x"}}
    message = AIMessage("text", additional_kwargs={"trap": trap}, response_metadata={"trap": trap})
    history.add_message(message)
    [found] = history.messages
    assert found == message and found.additional_kwargs["trap"] == trap
    with pytest.raises(InvalidInput, match="expected a JSON value"):
        history.add_message(ToolMessage("x", tool_call_id="1", artifact=object()))
    assert len(history.messages) == 1
