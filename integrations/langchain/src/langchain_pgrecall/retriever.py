"""`PGRecallRetriever`: a retriever with its own number of results, filter and search."""

from __future__ import annotations

from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from langchain_pgrecall.vectorstore import PGRecallVectorStore


class PGRecallRetriever(BaseRetriever):
    """Finds the documents of a store that answer a text.

    `k`, `search_type` ("similarity" or "mmr") and further keywords of the search (`search_kwargs`) hold for each call
    unless `invoke` is given others. `VectorStore.as_retriever` gives LangChain's own.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    vectorstore: PGRecallVectorStore
    k: int = 4
    search_type: Literal["similarity", "mmr"] = "similarity"
    search_kwargs: dict[str, Any] = Field(default_factory=dict)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return self.vectorstore.search(query, self.search_type, **{"k": self.k, **self.search_kwargs, **kwargs})

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return await self.vectorstore.asearch(query, self.search_type, **{"k": self.k, **self.search_kwargs, **kwargs})
