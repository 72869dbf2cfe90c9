"""Finds the model of a framework's embedding object by a table of class names; no framework is imported.

Frameworks have different classes for the same model and name its attributes differently; this table maps them to
one space. A class, or a base of it, is found by its package and its name, because modules inside packages move.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pgrecall.errors import ConfigurationError
from pgrecall.types import Distance, EmbedModel, EmbedSpace


class Known(NamedTuple):
    """A class of embedding objects: its provider, and the attributes that may hold the model and the dimensions.

    With `chosen`, the attribute counts only if the caller set it: its default is not the model that answers.
    """

    provider: str
    model: tuple[str, ...] = ("model",)
    dim: tuple[str, ...] = ()
    chosen: bool = False


_NAME = ("model_name",)

KNOWN: dict[tuple[str, str], Known] = {
    ("langchain_openai", "OpenAIEmbeddings"): Known("openai", dim=("dimensions",)),
    ("langchain_openai", "AzureOpenAIEmbeddings"): Known("openai", dim=("dimensions",), chosen=True),
    ("langchain_huggingface", "HuggingFaceEmbeddings"): Known("sentence-transformers", _NAME),
    ("langchain_huggingface", "HuggingFaceEndpointEmbeddings"): Known("sentence-transformers", ("repo_id", "model")),
    ("langchain_cohere", "CohereEmbeddings"): Known("cohere"),
    ("langchain_ollama", "OllamaEmbeddings"): Known("ollama", dim=("dimensions",)),
    ("langchain_google_genai", "GoogleGenerativeAIEmbeddings"): Known("google", dim=("output_dimensionality",)),
    ("langchain_google_vertexai", "VertexAIEmbeddings"): Known("google-vertex", _NAME, ("dimensions",)),
    ("langchain_mistralai", "MistralAIEmbeddings"): Known("mistral"),
    ("langchain_voyageai", "VoyageAIEmbeddings"): Known("voyage", dim=("output_dimension",)),
    ("langchain_aws", "BedrockEmbeddings"): Known("bedrock", ("model_id",), ("dimensions",)),
    ("langchain_community", "OpenAIEmbeddings"): Known("openai"),
    ("langchain_community", "AzureOpenAIEmbeddings"): Known("openai", chosen=True),
    ("langchain_community", "HuggingFaceEmbeddings"): Known("sentence-transformers", _NAME),
    ("langchain_community", "HuggingFaceBgeEmbeddings"): Known("sentence-transformers", _NAME),
    ("langchain_community", "HuggingFaceInferenceAPIEmbeddings"): Known("sentence-transformers", _NAME),
    ("langchain_community", "FastEmbedEmbeddings"): Known("fastembed", _NAME),
    ("langchain_community", "CohereEmbeddings"): Known("cohere"),
    ("langchain_community", "OllamaEmbeddings"): Known("ollama"),
    ("langchain_community", "BedrockEmbeddings"): Known("bedrock", ("model_id",)),
    ("langchain_community", "VoyageEmbeddings"): Known("voyage"),
    ("langchain_community", "JinaEmbeddings"): Known("jina", _NAME),
    ("langchain_core", "DeterministicFakeEmbedding"): Known("fake", ("__class__.__name__",), ("size",)),
    ("llama_index.embeddings.openai", "OpenAIEmbedding"): Known("openai", _NAME, ("dimensions",)),
    ("llama_index.embeddings.azure_openai", "AzureOpenAIEmbedding"): Known("openai", _NAME, ("dimensions",)),
    ("llama_index.embeddings.huggingface", "HuggingFaceEmbedding"): Known("sentence-transformers", _NAME),
    ("llama_index.embeddings.huggingface", "HuggingFaceInferenceAPIEmbedding"): Known("sentence-transformers", _NAME),
    ("llama_index.embeddings.fastembed", "FastEmbedEmbedding"): Known("fastembed", _NAME),
    ("llama_index.embeddings.cohere", "CohereEmbedding"): Known("cohere", _NAME),
    ("llama_index.embeddings.ollama", "OllamaEmbedding"): Known("ollama", _NAME),
    ("llama_index.embeddings.google_genai", "GoogleGenAIEmbedding"): Known(
        "google", _NAME, ("embedding_config.output_dimensionality",)
    ),
    ("llama_index.embeddings.vertex", "VertexTextEmbedding"): Known("google-vertex", _NAME),
    ("llama_index.embeddings.mistralai", "MistralAIEmbedding"): Known("mistral", _NAME),
    ("llama_index.embeddings.voyageai", "VoyageEmbedding"): Known("voyage", _NAME, ("output_dimension",)),
    ("llama_index.embeddings.bedrock", "BedrockEmbedding"): Known("bedrock", _NAME),
    ("llama_index.core", "MockEmbedding"): Known("fake", ("__class__.__name__",), ("embed_dim",)),
}

#: Wrapper classes, and the attribute that holds the wrapped embedding object.
WRAPPERS = {("langchain_classic", "CacheBackedEmbeddings"): "underlying_embeddings"}

#: Prefixes and suffixes that do not change which model a provider uses; they are removed from the name.
_PREFIX = {"sentence-transformers": "sentence-transformers/", "google": "models/", "google-vertex": "models/"}
_SUFFIX = {"ollama": ":latest"}


def space_of(
    embedding: object, space: EmbedSpace | EmbedModel | None = None, distance: Distance | None = None
) -> EmbedSpace | EmbedModel:
    """The space of an embedding object's vectors: `space` if it is given, else from the table of known classes.

    Returns an EmbedModel if the object does not state its dimensions; nothing is embedded. `distance` defaults to
    "cosine".

    Raises:
        ConfigurationError: The class or its model is unknown, or `distance` is not that of `space`.
    """
    if space is not None:
        if not isinstance(space, EmbedSpace | EmbedModel):
            raise ConfigurationError(f"space is {type(space).__name__}; expected pgrecall.EmbedSpace or EmbedModel")
        if distance not in (None, space.distance):
            raise ConfigurationError(f"distance is {distance!r}, but the space is {space}; omit one of them")
        return space
    name = type(embedding).__qualname__
    found = _known(embedding)
    if found is None:
        raise ConfigurationError(
            f"the model of the embedding class {type(embedding).__module__}.{name} is unknown; pass "
            f"space=EmbedModel(provider, model) or space=EmbedSpace(provider, model, dim)"
        )
    known, embedding = found
    given = getattr(embedding, "model_fields_set", known.model)
    model = next((str(v) for a in known.model if (v := _attribute(embedding, a))), None)
    if model is None or (known.chosen and not set(known.model) & set(given)):
        raise ConfigurationError(
            f"the {name} does not state its model; set {' or '.join(known.model)}, or pass "
            f"space=EmbedModel({known.provider!r}, model)"
        )
    model = model.removeprefix(_PREFIX.get(known.provider, "")).removesuffix(_SUFFIX.get(known.provider, ""))
    named = EmbedModel(known.provider, model, distance or "cosine")
    dim = next((v for a in known.dim if (v := _attribute(embedding, a)) is not None), None)
    return named if dim is None else named.space(dim)


def _known(embedding: object) -> tuple[Known, object] | None:
    for kind in type(embedding).__mro__:
        for table_row, known in KNOWN.items():
            if _is(kind, table_row):
                return known, embedding
        for wrapper, attribute in WRAPPERS.items():
            if _is(kind, wrapper):
                return _known(getattr(embedding, attribute))
    return None


def _is(kind: type, key: tuple[str, str]) -> bool:
    package, name = key
    return kind.__name__ == name and (kind.__module__ + ".").startswith(package + ".")


def _attribute(embedding: object, path: str) -> Any:
    value: Any = embedding
    for name in path.split("."):
        value = getattr(value, name, None)
    return value
