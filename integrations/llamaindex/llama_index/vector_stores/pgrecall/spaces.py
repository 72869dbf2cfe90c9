"""A LlamaIndex embedding model to the core's: its two functions, and its space by `pgrecall.providers`."""

from __future__ import annotations

from llama_index.core.base.embeddings.base import BaseEmbedding

from pgrecall import ConfigurationError, Embedder, EmbedModel, EmbedSpace
from pgrecall.providers import space_of

#: What a store may be told to embed with: the model, or what it is called.
Model = BaseEmbedding | EmbedSpace | EmbedModel | None


def embedder_and_space(
    embed_model: Model, space: EmbedSpace | EmbedModel | None
) -> tuple[Embedder | None, EmbedSpace | EmbedModel | None]:
    """What the core needs of the model; nothing is embedded. Raises ConfigurationError where its space is unknown."""
    if embed_model is None:
        return None, space
    if isinstance(embed_model, EmbedSpace | EmbedModel):
        if space not in (None, embed_model):
            raise ConfigurationError(f"embed_model is {embed_model} and space is {space}; leave one of them out")
        return None, embed_model
    if not isinstance(embed_model, BaseEmbedding):
        raise ConfigurationError(
            f"embed_model is {type(embed_model).__name__}; expected a LlamaIndex embedding model or pgrecall.EmbedSpace"
        )
    embedder = Embedder(embed_model.get_text_embedding_batch, embed_model.aget_text_embedding_batch)
    return embedder, space_of(embed_model, space)
