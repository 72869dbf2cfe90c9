"""`PGRecallRetriever`: a retriever with its own number of results, filter and kind of search."""

from __future__ import annotations

from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from langchain_pgrecall.vectorstore import PGRecallVectorStore


class PGRecallRetriever(BaseRetriever):
    """Finds documents of a store by a text.

    `invoke` and `ainvoke` accept other values for one call, as keywords: ``retriever.invoke("holidays", k=10)``.
    `PGRecallVectorStore.as_retriever` returns LangChain's own class instead.

    Args:
        vectorstore: The store to search.
        k: The number of documents to return; by default 4.
        search_type: "similarity", the default, or "mmr" for documents that are unlike each other.
        search_kwargs: Further keywords of the search, such as `filter`, `mode` or `fetch_k`. By default none.
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
