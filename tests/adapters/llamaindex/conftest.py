"""Stores of a tenant that nobody else uses, and an embedding model without a network."""

from __future__ import annotations

import pytest
from llama_index.vector_stores.pgrecall import PGRecallVectorStore

from pgrecall import EmbedSpace
from support.llama import SPACE, HashedWords


@pytest.fixture
def store(db, tenant_id) -> PGRecallVectorStore:
    """A vector store that keeps full text, given vectors of eight dimensions."""
    return PGRecallVectorStore(SPACE, connection=db, tenant=tenant_id, collection="handbook")


@pytest.fixture
def model() -> HashedWords:
    return HashedWords()


@pytest.fixture
def wordy(db, tenant_id, model) -> PGRecallVectorStore:
    """A vector store with the model that embeds for it."""
    return PGRecallVectorStore(
        model, connection=db, tenant=tenant_id, collection="wordy", space=EmbedSpace("test", "hashed words", 384)
    )


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> str:
    return request.param
