"""An embedding model whose vectors mean something, and which notes how it was called."""

from __future__ import annotations

import hashlib
import re

import numpy as np
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings


class Words(Embeddings):
    """Embeds the words of a text, hashed into 16 dimensions; notes what was asked, and in which mode."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.calls: list[str] = []

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append("sync")
        self.seen += texts
        return [vector(text) for text in texts]

    async def aembed_query(self, text: str) -> list[float]:
        return (await self.aembed_documents([text]))[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append("async")
        self.seen += texts
        return [vector(text) for text in texts]


class Known(DeterministicFakeEmbedding):
    """Stands for the reader's own model: of a class that is known, with vectors that mean something."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [vector(text, self.size) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return vector(text, self.size)


def vector(text: str, dim: int = 16) -> list[float]:
    """A text's words, hashed into a vector of length 1."""
    made = np.full(dim, 0.01)
    for word in re.findall(r"\w+", text.lower()):
        made[int.from_bytes(hashlib.sha256(word.encode()).digest()[16:20], "big") % dim] += 1
    return [float(x) for x in made / np.linalg.norm(made)]
