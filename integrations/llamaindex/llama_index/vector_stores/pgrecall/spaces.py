"""A LlamaIndex embedding model as the core takes it: two functions, and a space from `pgrecall.providers`."""

from __future__ import annotations

from llama_index.core.base.embeddings.base import BaseEmbedding

from pgrecall import ConfigurationError, Embedder, EmbedModel, EmbedSpace
from pgrecall.providers import space_of

#: What stores accept as `embed_model`: the model, or the name of its space.
Model = BaseEmbedding | EmbedSpace | EmbedModel | None


def embedder_and_space(
    embed_model: Model, space: EmbedSpace | EmbedModel | None
) -> tuple[Embedder | None, EmbedSpace | EmbedModel | None]:
    """Return the model's functions and its space, without embedding anything. Raises ConfigurationError."""
    if embed_model is None:
        return None, space
    if isinstance(embed_model, EmbedSpace | EmbedModel):
        if space not in (None, embed_model):
            raise ConfigurationError(f"embed_model is {embed_model}, but space is {space}; pass only one of them")
        return None, embed_model
    if not isinstance(embed_model, BaseEmbedding):
        raise ConfigurationError(
            f"embed_model is {type(embed_model).__name__}; expected a LlamaIndex embedding model or pgrecall.EmbedSpace"
        )
    embedder = Embedder(embed_model.get_text_embedding_batch, embed_model.aget_text_embedding_batch)
    return embedder, space_of(embed_model, space)
