"""LlamaIndex's chat stores on one tenant's chats: every block comes back, both interfaces, Memory and buffers."""

from __future__ import annotations

import asyncio
import copy
import io
import pickle

import pytest
from llama_index.core.base.llms.types import (
    AudioBlock,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.memory import ChatMemoryBuffer, Memory
from llama_index.core.storage.chat_store import SimpleChatStore
from llama_index.core.storage.chat_store.base_db import MessageStatus
from llama_index.storage.chat_store.pgrecall import PGRecallBufferChatStore, PGRecallChatStore
from llama_index.storage.chat_store.pgrecall.messages import from_message, to_message

from pgrecall import InvalidInput, Message, ToolCall

PNG = b"\x89PNG\r\n\x1a\n not quite a picture"
MESSAGES = [
    ChatMessage(role=role, content=f"text of {role.value}", additional_kwargs={"k": {"b": [1, None], "a": 1.5}})
    for role in MessageRole
] + [
    ChatMessage(role="user", content=""),
    ChatMessage(role="user", blocks=[]),
    ChatMessage(role="user", blocks=[TextBlock(text="one"), TextBlock(text="two")]),
    ChatMessage(role="user", blocks=[ImageBlock(image=PNG, detail="low"), ImageBlock(url="https://example.org/a.png")]),
    ChatMessage(
        role="user", blocks=[AudioBlock(audio=b"RIFF", format="wav"), AudioBlock(url="https://example.org/a.mp3")]
    ),
    ChatMessage(role="user", blocks=[VideoBlock(video=b"\0\0\0\x18ftypmp42", video_mimetype="video/mp4", fps=2)]),
    ChatMessage(
        role="user",
        blocks=[DocumentBlock(data=b"%PDF-1.4", title="handbook.pdf"), DocumentBlock(url="https://example.org/b.pdf")],
    ),
    ChatMessage(
        role="assistant",
        blocks=[
            ThinkingBlock(content="hm", num_tokens=3, additional_information={"signature": "s", "x": 1}),
            ThinkingBlock(),
        ],
    ),
    ChatMessage(
        role="assistant",
        blocks=[
            ToolCallBlock(tool_call_id="c1", tool_name="search", tool_kwargs={"q": "a"}),
            ToolCallBlock(tool_name="raw", tool_kwargs="{not json"),
        ],
    ),
    ChatMessage(role="tool", content="found", additional_kwargs={"tool_call_id": "c1", "name": "search"}),
    ChatMessage(
        role="assistant",
        content="",
        additional_kwargs={
            "tool_calls": [{"id": "c2", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}]
        },
    ),
    ChatMessage(
        role="user",
        blocks=[
            CitableBlock(
                title="t", source="s", content=[TextBlock(text="cited"), DocumentBlock(url="https://example.org/c")]
            )
        ],
    ),
    ChatMessage(
        role="assistant",
        blocks=[
            CitationBlock(
                cited_content=TextBlock(text="as cited"), source="s", title="t", additional_location_info={"start": 1}
            )
        ],
    ),
    ChatMessage(role="user", blocks=[TextBlock(text="a"), CachePoint(cache_control={"type": "ephemeral"})]),
]


@pytest.fixture
def store(db, tenant_id):
    return PGRecallChatStore(connection=db, tenant=tenant_id)


@pytest.fixture
def buffer(db, tenant_id):
    return PGRecallBufferChatStore(connection=db, tenant=tenant_id)


def said(*texts):
    return [ChatMessage(role="user" if at % 2 == 0 else "assistant", content=text) for at, text in enumerate(texts)]


def texts(messages):
    return [message.content for message in messages]


@pytest.mark.parametrize("at", range(len(MESSAGES)))
async def test_a_message_comes_back_exactly(store, at):
    """Role, every type of block, bytes and additional_kwargs."""
    await store.add_message("s", MESSAGES[at])
    [back] = await store.get_messages("s")
    assert back == MESSAGES[at] and type(back) is ChatMessage
    assert [type(block) for block in back.blocks] == [type(block) for block in MESSAGES[at].blocks]


@pytest.mark.parametrize("at", range(len(MESSAGES)))
def test_the_neutral_form_says_what_the_message_says(at):
    """Read as another framework's, a message has the same role, texts and calls; nothing is lost without a word."""
    message = to_message(MESSAGES[at])
    back = from_message(
        Message(
            message.role,
            message.content,
            tool_calls=message.tool_calls,
            tool_call_id=message.tool_call_id,
            metadata=message.metadata,
        )
    )
    same_role = {MessageRole.CHATBOT: MessageRole.ASSISTANT, MessageRole.MODEL: MessageRole.ASSISTANT}
    assert back.role == same_role.get(MESSAGES[at].role, MESSAGES[at].role)
    assert (back.content or "") == (MESSAGES[at].content or "")
    kept = len(back.blocks) + len(back.additional_kwargs.get("unmapped", []))
    kept -= len(MESSAGES[at].additional_kwargs.get("tool_calls", []))
    assert kept == len([block for block in MESSAGES[at].blocks if block != TextBlock(text="")])
    assert back.additional_kwargs.get("tool_call_id") == MESSAGES[at].additional_kwargs.get("tool_call_id")


def test_calls_are_the_core_s(store):
    """Both ways in which LlamaIndex has tool calls: blocks, and what providers put into additional_kwargs."""
    calls = [call for message in MESSAGES for call in to_message(message).tool_calls]
    assert calls[0] == ToolCall("search", {"q": "a"}, "c1")
    assert (calls[1].name, calls[1].args, bool(calls[1].error)) == ("raw", "{not json", True)
    assert calls[2] == ToolCall("f", {"x": 1}, "c2")


async def test_streams_and_files_are_kept_with_their_content(store, tmp_path):
    """A stream is stored as bytes and can be read again; a file that is gone afterwards left its content."""
    stream = io.BytesIO(PNG)
    picture = tmp_path / "a.png"
    picture.write_bytes(PNG)
    await store.add_message("s", ChatMessage(role="user", blocks=[ImageBlock(image=stream), ImageBlock(path=picture)]))
    assert stream.read() == PNG
    [back] = await store.get_messages("s")
    assert back.blocks[0].resolve_image().read() == back.blocks[1].resolve_image().read() == PNG
    picture.unlink()
    [back] = await store.get_messages("s")
    assert [block.resolve_image().read() for block in back.blocks] == [PNG, PNG]


async def test_every_verb_of_the_database_interface(store):
    """Order, pages, counts, archive, deletes by index, keys; set_messages replaces all, the archive too."""
    await store.add_messages("s", said("a", "b", "c", "d", "e"))
    await store.add_message("s", said("old")[0], MessageStatus.ARCHIVED)
    await store.add_messages("s", [])
    assert texts(await store.get_messages("s")) == ["a", "b", "c", "d", "e"]
    assert texts(await store.get_messages("s", limit=2, offset=1)) == ["b", "c"]
    assert texts(await store.get_messages("s", None)) == ["a", "b", "c", "d", "e", "old"]
    assert texts(await store.archive_oldest_messages("s", 2)) == ["a", "b"]
    assert texts(await store.get_messages("s", MessageStatus.ARCHIVED)) == ["a", "b", "old"]
    counts = [
        await store.count_messages("s", status) for status in (MessageStatus.ACTIVE, MessageStatus.ARCHIVED, None)
    ]
    assert counts == [3, 3, 6]
    assert (await store.delete_message("s", 1)).content == "d"
    assert (await store.delete_message("s", -1)).content == "e"
    assert await store.delete_message("s", 7) is None
    assert texts(await store.delete_oldest_messages("s", 5)) == ["c"]
    assert await store.delete_oldest_messages("s", 0) == await store.archive_oldest_messages("s", -1) == []
    await store.delete_messages("s", MessageStatus.ARCHIVED)
    assert await store.count_messages("s", None) == 0
    await store.set_messages("s", said("x", "y"))
    await store.archive_oldest_messages("s", 1)
    await store.set_messages("s", said("z"), MessageStatus.ARCHIVED)
    assert await store.get_messages("s") == [] and texts(await store.get_messages("s", None)) == ["z"]
    await store.add_message("t", said("t")[0])
    assert sorted(await store.get_keys()) == ["s", "t"]
    [message] = await store.chat("t").alist_messages()
    await store.chat("t").adelete([message.id])
    await store.delete_messages("never was")
    assert await store.get_messages("t") == await store.get_messages("never was") == []


def test_the_buffer_interface_answers_as_llama_index_s_own(buffer, face):
    """The same calls on both stores give the same."""
    answers = []
    for store, mode in ((buffer, face), (SimpleChatStore(), "sync")):

        def ask(verb, *args, store=store, mode=mode):
            if mode == "sync":  # LlamaIndex's own store goes on changing what it gave
                return copy.deepcopy(getattr(store, verb)(*args))
            name = "async_add_message" if verb == "add_message" else f"a{verb}"
            return asyncio.run(getattr(store, name)(*args))

        answers.append(
            [
                ask("set_messages", "s", said("a", "b", "c")),
                ask("add_message", "s", said("d")[0]),
                ask("add_message", "t", MESSAGES[0]),
                ask("get_messages", "s"),
                ask("get_messages", "nope"),
                ask("delete_message", "s", 1),
                ask("delete_message", "s", 9),
                ask("delete_last_message", "s"),
                ask("get_messages", "s"),
                ask("delete_messages", "s"),
                ask("get_messages", "s"),
                ask("delete_last_message", "nope"),
                ask("get_messages", "t"),
                "t" in ask("get_keys"),
            ]
        )
    assert answers[0] == answers[1]


def test_both_stores_are_the_same_chats(store, buffer):
    """What one writes the other reads, the archive included."""
    buffer.set_messages("s", said("a", "b"))
    asyncio.run(store.archive_oldest_messages("s", 1))
    assert texts(asyncio.run(store.get_messages("s"))) == ["b"]
    assert texts(buffer.get_messages("s")) == ["a", "b"]


def test_keys_of_a_tenant_are_nobody_else_s(store, buffer, db, tenant_id):
    """Another tenant's key of the same name is another chat."""
    buffer.set_messages("s", said("ours"))
    for made in (PGRecallChatStore, PGRecallBufferChatStore):
        other = made(connection=db, tenant=f"{tenant_id}-other")
        keys = other.get_keys() if made is PGRecallBufferChatStore else asyncio.run(other.get_keys())
        assert keys == []
    theirs = PGRecallBufferChatStore(connection=db, tenant=f"{tenant_id}-other")
    theirs.set_messages("s", said("theirs"))
    assert theirs.delete_messages("s") == said("theirs")
    assert texts(buffer.get_messages("s")) == ["ours"]


def test_chats_have_a_subject_whose_erasure_takes_them(db, tenant_id):
    """The subject is bound or derived from the key, and another subject's chat looks like a missing one."""
    store = PGRecallBufferChatStore(connection=db, tenant=tenant_id, subject=lambda key: key.partition("/")[0])
    store.add_message("ana/1", said("hers")[0])
    store.add_message("bob/1", said("his")[0])
    ana = PGRecallBufferChatStore(connection=db, tenant=tenant_id, subject="ana")
    assert ana.get_keys() == ["ana/1"] and ana.get_messages("bob/1") == []
    db.tenant(tenant_id).erase_subject("ana", actor="test")
    assert store.get_keys() == ["bob/1"]


async def test_memory_keeps_its_queue_here(store):
    """Memory.from_defaults(chat_store=…): what no longer fits is archived, a second Memory goes on from the rows."""
    words = {"token_limit": 40, "chat_history_token_ratio": 0.5, "token_flush_size": 5, "tokenizer_fn": str.split}
    memory = Memory.from_defaults(session_id="s", chat_store=store, **words)
    for n in range(12):
        await memory.aput(ChatMessage(role="user" if n % 2 == 0 else "assistant", content=f"message number {n}"))
    again = Memory.from_defaults(session_id="s", chat_store=store, **words)
    window = texts(await again.aget())
    assert window and window[-1] == "message number 11" and len(window) < 12
    assert texts(await again.aget_all(status=None)) == [f"message number {n}" for n in range(12)]
    assert await store.count_messages("s", MessageStatus.ARCHIVED) > 0
    await again.areset()
    assert await memory.aget_all() == []


def test_a_buffer_goes_on_in_another_process(app_url, tenant_id):
    """ChatMemoryBuffer over two databases, as after a restart."""
    import pgrecall

    for turn in ("first", "second"):
        with pgrecall.connect(app_url) as db:
            store = PGRecallBufferChatStore(connection=db, tenant=tenant_id)
            memory = ChatMemoryBuffer.from_defaults(chat_store=store, chat_store_key="s", tokenizer_fn=str.split)
            memory.put(said(turn)[0])
            expected = ["first"] if turn == "first" else ["first", "second"]
            assert texts(memory.get()) == expected


def test_what_can_t_be_stored_is_refused(store, buffer):
    """What is no message, and JSON that is none; nothing of the call is stored, and stores can't be pickled."""
    with pytest.raises(InvalidInput, match="expected a LlamaIndex ChatMessage"):
        buffer.add_message("s", "text")
    with pytest.raises(InvalidInput, match=r"JSON|NUL"):
        buffer.set_messages("s", [*said("a"), ChatMessage(role="user", content="x\0")])
    with pytest.raises(InvalidInput, match="can't be written as JSON"):
        buffer.add_message("s", ChatMessage(role="user", content="a", additional_kwargs={"x": object()}))
    assert buffer.get_messages("s") == []
    for one in (store, buffer):
        with pytest.raises(TypeError, match="can't be pickled"):
            pickle.dumps(one)
        assert "postgresql" not in repr(one) + one.model_dump_json()
