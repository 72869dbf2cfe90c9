"""LangChain's own suites, unmodified: alone, and with a second tenant that has the same ids with other texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from langchain_pgrecall import PGRecallRetriever, PGRecallVectorStore


class TestVectorStore(VectorStoreIntegrationTests):
    """The suite as it is."""

    @pytest.fixture
    def vectorstore(self, db, tenant_id) -> PGRecallVectorStore:
        """An empty store."""
        return PGRecallVectorStore(self.get_embeddings(), connection=db, tenant=tenant_id)


class Interleaved(PGRecallVectorStore):
    """After each write another tenant writes other texts under the same ids."""

    other: PGRecallVectorStore

    @staticmethod
    def others(ids: list[str]) -> list[Document]:
        return [Document(id=i, page_content=f"theirs of {i}", metadata={"theirs": i}) for i in ids]

    def add_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        ids = super().add_documents(documents, **kwargs)
        self.other.add_documents(self.others(ids))
        return ids

    async def aadd_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        ids = await super().aadd_documents(documents, **kwargs)
        await self.other.aadd_documents(self.others(ids))
        return ids


class TestVectorStoreBesideAnotherTenant(VectorStoreIntegrationTests):
    """The suite, while a second tenant writes to a collection of the same name; its documents are all there after."""

    @pytest.fixture
    def vectorstore(self, db, tenant_id) -> Iterator[PGRecallVectorStore]:
        """An empty store of a tenant that is not alone."""
        store = Interleaved(self.get_embeddings(), connection=db, tenant=tenant_id)
        store.other = PGRecallVectorStore(self.get_embeddings(), connection=db, tenant=f"{tenant_id}-other")
        store.other.add_documents(store.others(["1", "2", "3", "foo", "bar"]))
        yield store
        theirs = store.other.core.list_chunks(limit=1000)
        assert len(theirs) >= 5 and all(
            c.text == f"theirs of {c.id}" and c.metadata == {"theirs": c.id} for c in theirs
        )


class TestRetriever(RetrieversIntegrationTests):
    """The suite as it is."""

    @pytest.fixture(autouse=True)
    def documents(self, db, tenant_id) -> None:
        """A store with some documents."""
        self.store = PGRecallVectorStore(DeterministicFakeEmbedding(size=6), connection=db, tenant=tenant_id)
        self.store.add_texts([f"text {n}" for n in range(8)])

    @property
    def retriever_constructor(self) -> type[PGRecallRetriever]:
        """Ours."""
        return PGRecallRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        """The store."""
        return {"vectorstore": self.store}

    @property
    def retriever_query_example(self) -> str:
        """Any text."""
        return "text 3"
