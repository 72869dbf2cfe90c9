"""A node comes back as it was: class, text, metadata with its order, relationships, templates, media, embedding."""

from __future__ import annotations

import asyncio
import datetime

import numpy as np
import pytest
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.pgrecall.nodes import FORM

from pgrecall import Chunk, Document, InvalidInput
from support.llama import every_node, source, text_node, vector


def without_embedding(node):
    copied = node.model_copy()
    copied.embedding = None
    return copied


@pytest.mark.parametrize("at", range(len(every_node())), ids=lambda at: every_node()[at].id_)
def test_a_node_of_each_class_comes_back_exactly(store, face, at):
    """Equal to what was added by every field, the hash and the text that a model would embed; embeddings to 1e-3."""
    node = every_node()[at]
    if face == "async":
        asyncio.run(store.async_add([node]))
        [back] = asyncio.run(store.aget_nodes([node.id_]))
        found = asyncio.run(store.aquery(VectorStoreQuery(query_embedding=node.embedding))).nodes[0]
    else:
        store.add([node])
        [back] = store.get_nodes([node.id_])
        found = store.query(VectorStoreQuery(query_embedding=node.embedding)).nodes[0]
    assert type(back) is type(found) is type(node)
    assert np.allclose(back.embedding, node.embedding, rtol=1e-3, atol=1e-3 * np.linalg.norm(node.embedding))
    assert without_embedding(back) == without_embedding(node) == found
    assert back.hash == node.hash
    for mode in MetadataMode:
        assert back.get_content(metadata_mode=mode) == node.get_content(metadata_mode=mode)
    for name in ("image_resource", "audio_resource", "video_resource", "text_resource"):
        assert getattr(back, name, None) == getattr(node, name, None)


def test_nothing_of_a_node_is_stored_twice(store, db, tenant_id):
    """Text, metadata and embedding are the chunk's own columns; the payload has the rest."""
    node = every_node()[0]
    store.add([node])
    [chunk] = store.client.get([node.id_])
    assert (chunk.text, chunk.metadata, chunk.doc_id) == (node.text, node.metadata, "doc")
    assert not {"text", "metadata", "embedding", "id_"} & chunk.payload[FORM].keys()


def test_what_is_changed_in_the_columns_is_changed_in_the_node(store):
    """Metadata that any framework sets later is the node's, after its own keys in their order."""
    store.add([every_node()[0]])
    store.client.set_metadata({"reviewed": True, "zeta": 2}, ids=["text"])
    [node] = store.get_nodes(["text"])
    assert list(node.metadata) == ["zeta", "alpha", "a.b", "", "reviewed"]
    assert (node.metadata["zeta"], node.metadata["reviewed"]) == (2, True)
    store.client.set_metadata({"only": 1}, ids=["text"], replace=True)
    assert store.get_nodes(["text"])[0].metadata == {"only": 1}


def test_a_chunk_of_another_framework_is_a_text_node(store):
    """Text, metadata, the document and its provenance are there; a payload that is not ours is not read."""
    store.client.upsert(
        [Chunk("a", "theirs", vector(1), "d", metadata={"k": 1}, payload={"other": {"class_name": "IndexNode"}})],
        documents=[Document("d", "handbook.pdf", "https://example.org/h")],
    )
    [node] = store.query(VectorStoreQuery(query_embedding=vector(1))).nodes
    assert (type(node), node.text, node.metadata, node.ref_doc_id) == (TextNode, "theirs", {"k": 1}, "d")
    assert node.source_node.metadata == {"source": "handbook.pdf", "uri": "https://example.org/h"}


def test_documents_are_described_by_what_nodes_say_of_their_source(store):
    """Source, URI and content hash come from the source's metadata; a bare reference changes nothing of it."""
    store.add(
        [
            text_node(1, "d1"),
            text_node(2, "d1"),
            TextNode(id_="x", text="t", embedding=vector(3), relationships=source("d2")),
        ]
    )
    described = {d.id: d for d in store.client.list_documents()}
    assert described["d1"] == Document(
        "d1", "d1.txt", "/data/d1.txt", "hash of d1", {"file_name": "d1.txt", "file_path": "/data/d1.txt"}
    )
    assert (described["d2"].source, described["d2"].content_hash) == (None, "hash of d2")
    bare = text_node(4, "d1")
    bare.source_node.metadata, bare.source_node.hash = {}, None
    store.add([bare])
    assert store.client.list_documents(["d1"]) == [described["d1"]]


def test_metadata_becomes_json_as_pydantic_writes_it(store):
    """Dates and tuples are stored as JSON has them, as with LlamaIndex's other stores."""
    day = datetime.date(2026, 1, 2)
    node = TextNode(
        id_="a",
        text="t",
        embedding=vector(1),
        metadata={"day": day, "pair": (1, 2)},
        relationships=source("d", day=day),
    )
    store.add([node])
    assert store.get_nodes(["a"])[0].metadata == {"day": "2026-01-02", "pair": [1, 2]}
    assert store.client.list_documents(["d"])[0].metadata == {"day": "2026-01-02"}


@pytest.mark.parametrize("metadata", [{"x": float("nan")}, {"x": object()}, {"x": "\ud800"}, {"x": "\0"}])
def test_what_json_can_t_hold_is_an_error_that_names_the_node(store, metadata):
    """Nothing of the call is stored."""
    with pytest.raises(InvalidInput, match="bad"):
        store.add([text_node(1), TextNode(id_="bad", text="t", embedding=vector(1), metadata=metadata)])
    assert store.client.count() == 0
