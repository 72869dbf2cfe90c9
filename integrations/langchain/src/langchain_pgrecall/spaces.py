"""LangChain's embedding objects as the core takes them."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings

from pgrecall import ConfigurationError, Embedder


def embedder(embedding: Embeddings) -> Embedder:
    """The object's functions for texts that are stored, in both modes. Raises ConfigurationError."""
    if not isinstance(embedding, Embeddings):
        raise ConfigurationError(f"embedding is {type(embedding).__name__}; expected a langchain_core Embeddings")
    return Embedder(embedding.embed_documents, embedding.aembed_documents)
