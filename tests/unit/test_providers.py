"""Embedding objects of frameworks lead to spaces by their classes' names."""

from __future__ import annotations

import pytest

from pgrecall import ConfigurationError, EmbedModel, EmbedSpace
from pgrecall.providers import KNOWN, space_of


def made(package: str, name: str, **attributes: object) -> object:
    """An object of a class with this name, as a framework would have it."""
    return type(name, (), {"__module__": f"{package}.base", **attributes})()


def test_two_frameworks_classes_for_one_model_are_one_space():
    """LangChain's and LlamaIndex's OpenAI, Azure, Hugging Face and Google classes meet."""
    openai = EmbedModel("openai", "text-embedding-3-small")
    azure = {"model": openai.model, "model_fields_set": {"model"}}
    assert space_of(made("langchain_openai.embeddings", "OpenAIEmbeddings", model=openai.model)) == openai
    assert space_of(made("langchain_openai.embeddings", "AzureOpenAIEmbeddings", **azure)) == openai
    assert space_of(made("llama_index.embeddings.openai", "OpenAIEmbedding", model_name=openai.model)) == openai
    minilm = EmbedModel("sentence-transformers", "all-MiniLM-L6-v2")
    for model in ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"):
        assert space_of(made("langchain_huggingface", "HuggingFaceEmbeddings", model_name=model)) == minilm
        assert space_of(made("llama_index.embeddings.huggingface", "HuggingFaceEmbedding", model_name=model)) == minilm
    gemini = EmbedModel("google", "gemini-embedding-001")
    langchain = made("langchain_google_genai", "GoogleGenerativeAIEmbeddings", model="models/gemini-embedding-001")
    llama = made("llama_index.embeddings.google_genai", "GoogleGenAIEmbedding", model_name="gemini-embedding-001")
    assert space_of(langchain) == space_of(llama) == gemini
    assert space_of(made("langchain_ollama", "OllamaEmbeddings", model="bge-m3:latest")).model == "bge-m3"


def test_dimensions_that_the_object_tells_are_taken():
    """A shortened model is a space of its own; without them the first vector tells."""
    short = made("langchain_openai", "OpenAIEmbeddings", model="text-embedding-3-small", dimensions=256)
    assert space_of(short, distance="ip") == EmbedSpace("openai", "text-embedding-3-small", 256, "ip")
    assert space_of(made("langchain_core", "DeterministicFakeEmbedding", size=6)) == EmbedSpace(
        "fake", "DeterministicFakeEmbedding", 6
    )


def test_a_subclass_is_its_base_and_a_cache_what_it_caches():
    """An application's own class of a known one is known, and so is a wrapped one."""
    base = type(made("langchain_openai", "OpenAIEmbeddings", model="m"))
    own = type("Ours", (base,), {"__module__": "app"})()
    assert space_of(own) == EmbedModel("openai", "m")
    cached = made("langchain_classic.embeddings", "CacheBackedEmbeddings", underlying_embeddings=own)
    assert space_of(cached) == EmbedModel("openai", "m")


def test_what_is_not_known_says_what_to_pass():
    """Unknown classes, same names in other packages, and Azure deployments whose model nobody said."""
    for stranger in (object(), made("my_langchain_openai", "OpenAIEmbeddings", model="m"), made("app", "Embeddings")):
        with pytest.raises(ConfigurationError, match=r"is unknown; pass space=EmbedModel"):
            space_of(stranger)
    for azure in ({"model": None}, {"model": "text-embedding-ada-002", "model_fields_set": {"deployment"}}):
        with pytest.raises(ConfigurationError, match="does not state its model"):
            space_of(made("langchain_openai", "AzureOpenAIEmbeddings", **azure))


def test_the_callers_space_wins_and_must_agree_with_its_distance():
    """A space= is used unchanged, and a distance= in addition to it must be the same."""
    given = EmbedModel("me", "mine", "l2")
    assert space_of(object(), given) is given and space_of(object(), given, "l2") is given
    with pytest.raises(ConfigurationError, match="omit one of them"):
        space_of(object(), given, "cosine")
    with pytest.raises(ConfigurationError, match="space is str"):
        space_of(object(), "me/mine")  # type: ignore[arg-type]


def test_every_row_of_the_table_makes_a_space():
    """No row names an attribute or a provider that can't be read."""
    for (package, name), known in KNOWN.items():
        first = known.model[0]
        attributes = {} if "." in first else {first: "m", "model_fields_set": {first}}
        dims = {a: 8 for a in known.dim if "." not in a}
        found = space_of(made(package, name, **attributes, **dims))
        assert found.provider == known.provider and getattr(found, "dim", 8) == 8
