"""`PGRecallFactBlock`: facts from a scripted LLM or a function, found by words, by meaning or by age."""

from __future__ import annotations

import pytest
from llama_index.core.base.llms.types import ChatMessage, CompletionResponse, LLMMetadata
from llama_index.core.bridge.pydantic import Field
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.memory import Memory
from llama_index.memory.pgrecall import PGRecallFactBlock
from llama_index.storage.chat_store.pgrecall import PGRecallChatStore

import pgrecall
from pgrecall import EmbedSpace, Fact, InvalidInput


class Scripted(CustomLLM):
    """Answers from a script, and keeps what it was asked."""

    answers: list[str]
    asked: list[str] = Field(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    @llm_completion_callback()
    def complete(self, prompt, formatted=False, **kwargs):
        self.asked.append(prompt)
        return CompletionResponse(text=self.answers.pop(0))

    @llm_completion_callback()
    def stream_complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError


def user(text):
    return ChatMessage(role="user", content=text)


def likes(messages):
    """A function in an LLM's place: what follows "I like"."""
    return [f"likes {m.content.partition('I like ')[2]}" for m in messages if "I like " in (m.content or "")]


@pytest.fixture
def block(db, tenant_id):
    return PGRecallFactBlock(extract=likes, connection=db, tenant=tenant_id)


async def test_an_llm_is_asked_for_facts_and_gets_the_known_ones(db, tenant_id):
    """Its answer's facts are kept, once each; the messages themselves are not."""
    answers = [
        "<facts><fact>Ana lives in Graz</fact>\n<fact>Fish &amp; chips</fact></facts>",
        "<facts><fact> ana lives  in graz </fact></facts>",
        "<facts></facts>",
    ]
    llm = Scripted(answers=answers)
    block = PGRecallFactBlock(extract=llm, connection=db, tenant=tenant_id, subject="ana", order_by="recency")
    await block.aput([user("I live in Graz and like fish & chips")])
    assert set((await block.aget()).splitlines()) == {"<fact>Ana lives in Graz</fact>", "<fact>Fish &amp; chips</fact>"}
    await block.aput([user("In Graz, as I said")])
    await block.aput([user("Nothing new")])
    assert "Ana lives in Graz" in llm.asked[1] and "fish & chips" not in llm.asked[1]
    assert len((await block.aget()).splitlines()) == 2
    [event, *_] = block.client.list_events(subject="ana")
    assert (event.actor, event.reason) == ("llama_index", "extracted from chat")


async def test_sessions_that_share_a_block_never_see_each_other(block):
    """Each session is its own subject where none is given."""
    await block.aput([user("I like tea")], session_id="one")
    await block.aput([user("I like coffee")], session_id="two")
    assert await block.aget([user("what do I like?")], session_id="one") == "<fact>likes tea</fact>"
    assert await block.aget(None, session_id="two") == "<fact>likes coffee</fact>"
    assert await block.aget([user("likes")], session_id="three") == ""
    with pytest.raises(InvalidInput, match="pass subject="):
        await block.aget()
    with pytest.raises(InvalidInput, match="have no subject"):
        await block.aput([user("I like nothing")])


async def test_a_subject_is_bound_or_looked_up_from_the_session(db, tenant_id):
    """Facts of a person are the same in each of their sessions, and go with the person."""
    people = {"s1": "ana", "s2": "ana", "s3": "bob"}
    block = PGRecallFactBlock(extract=likes, connection=db, tenant=tenant_id, subject=people.get)
    await block.aput([user("I like tea")], session_id="s1")
    assert await block.aget(session_id="s2") == "<fact>likes tea</fact>"
    assert await block.aget(session_id="s3") == ""
    bound = PGRecallFactBlock(extract=likes, connection=db, tenant=tenant_id, subject="ana")
    assert await bound.aget(session_id="whatever") == "<fact>likes tea</fact>"
    other = PGRecallFactBlock(extract=likes, connection=db, tenant=f"{tenant_id}-other", subject="ana")
    assert await other.aget() == ""
    db.tenant(tenant_id).erase_subject("ana", actor="test")
    assert await bound.aget() == ""


async def test_facts_are_found_by_words_by_meaning_or_by_age(db, tenant_id, model):
    """Relevant facts come first and are filled up with the newest; by recency only the newest; at most `top_k`."""
    space = EmbedSpace("test", "hashed words", 384)
    made = {
        "extract": lambda messages: [m.content for m in messages],
        "connection": db,
        "tenant": tenant_id,
        "subject": "ana",
    }
    embedded = PGRecallFactBlock(**made, embed_model=model, space=space, top_k=1)
    for text in ("drinks tea in the morning", "has a dog called Rex", "works in Graz"):
        await embedded.aput([user(text)])
    asked = [user("tell me of the dog"), ChatMessage(role="assistant", content="works")]
    assert await embedded.aget(asked) == "<fact>has a dog called Rex</fact>"
    worded = PGRecallFactBlock(**made, top_k=2)
    filled = ["<fact>drinks tea in the morning</fact>", "<fact>works in Graz</fact>"]
    assert (await worded.aget([user("tea at 8?")])).splitlines() == filled
    recent = PGRecallFactBlock(**made, order_by="recency", top_k=2)
    assert (await recent.aget(asked)).splitlines() == [
        "<fact>works in Graz</fact>",
        "<fact>has a dog called Rex</fact>",
    ]


async def test_extract_may_be_asynchronous_and_give_whole_facts(db, tenant_id):
    """Key, confidence and lifetime are the function's; subject and kind are the block's."""

    async def extract(messages):
        return [
            Fact("somebody", "other", "city", {"name": messages[-1].content}, text=messages[-1].content, confidence=0.9)
        ]

    block = PGRecallFactBlock(extract=extract, connection=db, tenant=tenant_id, subject="ana", kind="profile")
    await block.aput([user("Graz")])
    await block.aput([user("Linz")])
    [fact] = block.client.search_facts(subject="ana")
    assert (fact.kind, fact.key, fact.value, fact.confidence) == ("profile", "city", {"name": "Linz"}, 0.9)
    assert len(block.client.history(fact.id)) == 2
    for wrong in ("one text", 5, [b"bytes"]):
        bad = PGRecallFactBlock(extract=lambda _, w=wrong: w, connection=db, tenant=tenant_id, subject="ana")
        with pytest.raises(InvalidInput, match=r"extract returned|a fact is"):
            await bad.aput([user("x")])
    with pytest.raises(InvalidInput, match="expected an LLM"):
        PGRecallFactBlock(extract="gpt", connection=db, tenant=tenant_id)
    for ignored in ({"limitt": 3}, {"tenant_id": "other"}):  # as LlamaIndex's own blocks would
        with pytest.raises(ValueError, match="not permitted"):
            PGRecallFactBlock(extract=likes, connection=db, tenant=tenant_id, **ignored)


async def test_memory_survives_a_restart(app_url, tenant_id):
    """Messages that leave the chat's window become facts, which the next process reads."""
    words = {"token_limit": 30, "chat_history_token_ratio": 0.5, "token_flush_size": 5, "tokenizer_fn": str.split}
    for again in (False, True):
        with pgrecall.connect(app_url) as db:
            block = PGRecallFactBlock(extract=likes, connection=db, tenant=tenant_id, name="Facts")
            memory = Memory.from_defaults(
                session_id="s",
                chat_store=PGRecallChatStore(connection=db, tenant=tenant_id),
                memory_blocks=[block],
                **words,
            )
            if not again:
                await memory.aput(user("I like tea"))
                for n in range(10):
                    await memory.aput(ChatMessage(role="user" if n % 2 else "assistant", content=f"message number {n}"))
            found = await memory.aget("what do I like?")
            assert "likes tea" in str(found[0].content)
            assert "I like tea" not in [m.content for m in found[1:]]


def test_the_old_names_of_fields_warn_with_the_new_ones(db, tenant_id):
    """`recall` and `limit` mean `order_by` and `top_k` for one more minor version."""
    made = {"extract": likes, "connection": db, "tenant": tenant_id}
    with pytest.warns(DeprecationWarning, match=r"recall .* use order_by"):
        assert PGRecallFactBlock(**made, recall="recent").order_by == "recency"
    with pytest.warns(DeprecationWarning, match=r"limit .* use top_k"):
        assert PGRecallFactBlock(**made, limit=3).top_k == 3
