"""Stores of LangChain's kind on the suite's servers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import pgrecall
from langchain_pgrecall import PGRecallVectorStore
from pgrecall import EmbedModel
from support.words import Words

MODEL = EmbedModel("test", "words")


@pytest.fixture
def words() -> Words:
    """An embedding object of a class that nobody knows."""
    return Words()


Make = Callable[..., PGRecallVectorStore]


@pytest.fixture
def make(db: pgrecall.Database, tenant_id: str, words: Words) -> Make:
    """Makes a store of the test's own tenant."""

    def made(**given: object) -> PGRecallVectorStore:
        arguments = {"connection": db, "tenant": tenant_id, "space": MODEL, **given}
        return PGRecallVectorStore(words, **arguments)

    return made


@pytest.fixture
def store(make: Make) -> PGRecallVectorStore:
    """A store of the test's own tenant."""
    return make()
