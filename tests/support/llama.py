"""LlamaIndex without a network: an embedding model, and nodes of every class."""

from __future__ import annotations

from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import (
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MediaResource,
    Node,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)

from pgrecall import EmbedSpace
from support.data import hashed_words

SPACE = EmbedSpace("test", "eight", 8)


class HashedWords(BaseEmbedding):
    """The words of a text, hashed into 384 numbers; `broken` makes it fail, `calls` counts texts."""

    broken: bool = False
    calls: int = 0

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        if self.broken:
            raise ConnectionError("the model can't be reached")
        self.calls += len(texts)
        return np.asarray(hashed_words(texts)).tolist()

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._get_text_embeddings(texts)


def vector(seed: int, length: float = 1.0) -> list[float]:
    made = np.random.default_rng(seed).normal(size=8)
    return (made / np.linalg.norm(made) * length).tolist()


def source(doc_id: str, **metadata: Any) -> dict[NodeRelationship, RelatedNodeInfo]:
    info = RelatedNodeInfo(node_id=doc_id, node_type=ObjectType.DOCUMENT, metadata=metadata, hash=f"hash of {doc_id}")
    return {NodeRelationship.SOURCE: info}


def text_node(n: int, doc_id: str | None = None, **metadata: Any) -> TextNode:
    return TextNode(
        id_=f"n{n:04d}",
        text=f"text number {n}",
        embedding=vector(n),
        metadata={"n": n, "lang": ("de", "en", "fr")[n % 3], **metadata},
        relationships={}
        if doc_id is None
        else source(doc_id, file_name=f"{doc_id}.txt", file_path=f"/data/{doc_id}.txt"),
    )


def every_node() -> list[Any]:
    """One node of each class with all that it can carry."""
    related = RelatedNodeInfo(node_id="other", metadata={"z": 1, "a": {"y": 2, "b": 3}})
    full = {
        "metadata": {"zeta": 1, "alpha": {"y": [1, {"b": None, "a": "ü"}], "x": 1.5}, "a.b": True, "": "it's"},
        "excluded_embed_metadata_keys": ["zeta"],
        "excluded_llm_metadata_keys": ["alpha"],
        "metadata_template": "{key} is {value}",
        "metadata_separator": " | ",
        "text_template": "{content} -- {metadata_str}",
        "relationships": {
            **source("doc", file_name="a.txt", file_path="/data/a.txt"),
            NodeRelationship.PREVIOUS: related,
            NodeRelationship.NEXT: RelatedNodeInfo(node_id="next"),
            NodeRelationship.PARENT: RelatedNodeInfo(node_id="parent", node_type=ObjectType.TEXT, hash="h"),
            NodeRelationship.CHILD: [related, RelatedNodeInfo(node_id="child")],
        },
    }
    picture = MediaResource(data=b"\x89PNG\r\n\x1a\n not quite", mimetype="image/png")
    nodes = [
        TextNode(id_="text", text="Hällo ' \" \\ %s", start_char_idx=3, end_char_idx=9, mimetype="text/x", **full),
        TextNode(id_="bare", text=""),
        IndexNode(id_="index", text="summary", index_id="an index", **full),
        IndexNode(id_="index of node", text="s", index_id="i", obj=TextNode(id_="in", metadata={"b": 1, "a": 2})),
        ImageNode(id_="image", text="caption", image="aGVsbG8=", image_path="p.png", image_url="https://e.org/p.png",
                  image_mimetype="image/png", text_embedding=[0.5, 1.0], **full),
        Node(id_="node", text_resource=MediaResource(text="of a node"), image_resource=picture, **full),
        Node(id_="no text", audio_resource=MediaResource(url="https://e.org/a.mp3")),
        Node(id_="empty text", text_resource=MediaResource(text=""), video_resource=MediaResource(path="v.mp4")),
        Document(id_="document", text="whole", **full),
        ImageDocument(id_="image document", text="seen", image_resource=picture),
    ]  # fmt: skip
    for at, node in enumerate(nodes):
        node.embedding = vector(at, length=1.0 + at)
    return nodes
