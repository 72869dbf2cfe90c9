"""What one framework writes the other reads: chunks, filters, provenance, vectors, deletes; chats of all messages."""

from __future__ import annotations

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, ChatMessage, FunctionMessage, HumanMessage, SystemMessage, ToolMessage
from llama_index.core.base.llms.types import ChatMessage as LlamaMessage
from llama_index.core.base.llms.types import ImageBlock, TextBlock, ThinkingBlock, ToolCallBlock
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.storage.chat_store.pgrecall import PGRecallBufferChatStore
from llama_index.vector_stores.pgrecall import PGRecallVectorStore as LlamaStore

from langchain_pgrecall import PGRecallChatMessageHistory
from langchain_pgrecall import PGRecallVectorStore as LangChainStore
from pgrecall import EmbedModel, EmbedSpace
from support.llama import source
from support.words import Words, vector

METADATA = {"year": 2026, "tags": ["a", "b"], "nested": {"z": 1, "a": None}, "a.b": "dot", "ok": True}


class LangChain:
    """LangChain's store by the contract's verbs."""

    def __init__(self, db, tenant):
        self.store = LangChainStore(Words(), connection=db, tenant=tenant, space=EmbedModel("test", "words"))

    def write(self, node_id, text, metadata):
        self.store.add_documents([Document(text, id=node_id, metadata=metadata)])

    def read(self, ids):
        return [(d.id, d.page_content, d.metadata) for d in self.store.get_by_ids(ids)]

    def search(self, text, **equal):
        return [d.id for d in self.store.similarity_search(text, k=10, filter=equal or None)]

    def delete(self, ids):
        self.store.delete(ids)


class LlamaIndex:
    """LlamaIndex's store by the contract's verbs."""

    def __init__(self, db, tenant):
        self.store = LlamaStore(EmbedSpace("test", "words", 16), connection=db, tenant=tenant)

    def write(self, node_id, text, metadata):
        self.store.add([TextNode(id_=node_id, text=text, metadata=metadata, embedding=vector(text))])

    def read(self, ids):
        return [(n.id_, n.text, n.metadata) for n in self.store.get_nodes(ids)]

    def search(self, text, **equal):
        filters = MetadataFilters(filters=[MetadataFilter(key=key, value=value) for key, value in equal.items()])
        query = VectorStoreQuery(query_embedding=vector(text), similarity_top_k=10, filters=filters)
        return self.store.query(query).ids

    def delete(self, ids):
        self.store.delete_nodes(ids)


@pytest.fixture(params=["LangChain to LlamaIndex", "LlamaIndex to LangChain"])
def both(request, db, tenant_id):
    """The writer and the reader."""
    made = [LangChain(db, tenant_id), LlamaIndex(db, tenant_id)]
    return made if request.param.startswith("LangChain") else made[::-1]


def test_a_chunk_that_one_writes_the_other_reads(both):
    """Text and metadata, whatever its values; by id, by a search, by a filter."""
    writer, reader = both
    for n in range(3):
        writer.write(f"c{n}", f"text of word{n}", {**METADATA, "n": n})
    assert reader.read(["c1", "nope"]) == writer.read(["c1"]) == [("c1", "text of word1", {**METADATA, "n": 1})]
    assert reader.search("text of word2") == writer.search("text of word2")
    assert reader.search("text of word2")[0] == "c2"
    assert reader.search("text", n=1) == writer.search("text", n=1) == ["c1"]


def test_a_chunk_can_be_changed_and_deleted_by_the_other(both):
    """The last writer's text, metadata and vector are what both then see; what one deletes is gone for both."""
    writer, reader = both
    writer.write("c", "old words", {"by": "first"})
    writer.write("other", "other", {})
    reader.write("c", "new words", {"by": "second"})
    assert writer.read(["c"]) == reader.read(["c"]) == [("c", "new words", {"by": "second"})]
    assert writer.search("new words")[0] == "c"
    reader.delete(["c"])
    assert writer.read(["c"]) == [] and writer.search("words") == ["other"]


def test_vectors_and_provenance_are_the_same_in_both(db, tenant_id):
    """To 1e-3; a node's source is the document that both know."""
    chain, llama = LangChain(db, tenant_id), LlamaIndex(db, tenant_id)
    chain.write("a", "some words", {"source": "handbook.md"})
    [node] = llama.store.get_nodes(["a"])
    assert np.allclose(node.embedding, vector("some words"), atol=1e-3)
    made = TextNode(
        id_="b",
        text="more",
        embedding=vector("more"),
        relationships=source("d", file_name="d.md", url="https://example.org/d"),
    )
    llama.store.add([made])
    [hit] = [h for h in chain.store.core.query(vector("more"), 10) if h.chunk_id == "b"]
    assert (hit.doc_id, hit.source, hit.uri) == ("d", "d.md", "https://example.org/d")
    assert [d.id for d in llama.store.client.list_documents()] == [d.id for d in chain.store.core.list_documents()]


LANGCHAIN = [
    SystemMessage("Be brief."),
    HumanMessage("plain"),
    HumanMessage([{"type": "text", "text": "look"}, {"type": "image", "url": "https://example.org/a.png"}]),
    AIMessage("", tool_calls=[{"name": "search", "args": {"q": "x"}, "id": "c1", "type": "tool_call"}]),
    ToolMessage("found", tool_call_id="c1"),
    FunctionMessage(name="f", content="1"),
    ChatMessage(role="critic", content="hm"),
    AIMessage("done"),
]
LLAMA = [
    LlamaMessage(role="system", content="Be brief."),
    LlamaMessage(role="user", blocks=[TextBlock(text="look"), ImageBlock(url="https://example.org/a.png")]),
    LlamaMessage(
        role="assistant",
        blocks=[
            ThinkingBlock(content="hm"),
            ToolCallBlock(tool_call_id="c1", tool_name="search", tool_kwargs={"q": "x"}),
        ],
    ),
    LlamaMessage(role="tool", content="found", additional_kwargs={"tool_call_id": "c1"}),
    LlamaMessage(role="function", content="1", additional_kwargs={"name": "f"}),
    LlamaMessage(role="chatbot", content="done"),
    LlamaMessage(role="developer", content="in JSON"),
]


def histories(db, tenant_id):
    return (
        PGRecallChatMessageHistory("s", connection=db, tenant=tenant_id),
        PGRecallBufferChatStore(connection=db, tenant=tenant_id),
    )


def test_a_chat_of_langchain_goes_on_in_llama_index(db, tenant_id):
    """Roles, texts, pictures, calls and their answers are there; LangChain still reads its own exactly."""
    history, store = histories(db, tenant_id)
    history.add_messages(LANGCHAIN)
    found = store.get_messages("s")
    roles = ["system", "user", "user", "assistant", "tool", "function", "user", "assistant"]
    assert [m.role.value for m in found] == roles
    assert [m.content for m in found] == ["Be brief.", "plain", "look", None, "found", "1", "hm", "done"]
    assert str(found[2].blocks[1].url) == "https://example.org/a.png"
    assert found[3].blocks == [ToolCallBlock(tool_call_id="c1", tool_name="search", tool_kwargs={"q": "x"})]
    assert found[4].additional_kwargs["tool_call_id"] == "c1" and found[6].additional_kwargs["role"] == "critic"
    store.add_message("s", LlamaMessage(role="user", content="and now?"))
    *before, last = history.messages
    assert [m.content for m in before] == [m.content for m in LANGCHAIN] and (last.type, last.content) == (
        "human",
        "and now?",
    )
    assert before[3].tool_calls == LANGCHAIN[3].tool_calls


def test_a_chat_of_llama_index_goes_on_in_langchain(db, tenant_id):
    """The reverse."""
    history, store = histories(db, tenant_id)
    store.set_messages("s", LLAMA)
    found = history.messages
    assert [m.type for m in found] == ["system", "human", "ai", "tool", "function", "ai", "system"]
    assert [m.text for m in found] == ["Be brief.", "look", "", "found", "1", "done", "in JSON"]
    assert found[1].content[1]["url"] == "https://example.org/a.png"
    assert [(c["name"], c["args"], c["id"]) for c in found[2].tool_calls] == [("search", {"q": "x"}, "c1")]
    assert found[3].tool_call_id == "c1"
    history.add_messages([HumanMessage("and now?")])
    *before, last = store.get_messages("s")
    assert before == LLAMA and (last.role.value, last.content) == ("user", "and now?")
