"""LangChain's embedding objects as the core accepts them."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings

from pgrecall import ConfigurationError, Embedder


def embedder(embedding: Embeddings) -> Embedder:
    """Return the object's functions that embed texts to store, sync and async. Raises ConfigurationError."""
    if not isinstance(embedding, Embeddings):
        raise ConfigurationError(
            f"embedding is {type(embedding).__name__}; expected a langchain_core Embeddings object"
        )
    return Embedder(embedding.embed_documents, embedding.aembed_documents)
