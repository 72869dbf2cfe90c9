"""LangChain on pgrecall: tenant-aware vector store, record manager, chat history and store in Postgres.

from langchain_pgrecall import PGRecallVectorStore

store = PGRecallVectorStore(embedding, connection="postgresql://…", tenant="acme", collection="handbook")
store.add_documents(documents)
retriever = store.as_retriever(search_kwargs={"k": 5, "filter": {"lang": "en"}})
"""

from typing import TYPE_CHECKING

from langchain_pgrecall.chat import PGRecallChatMessageHistory
from langchain_pgrecall.filters import PGRecallTranslator
from langchain_pgrecall.records import PGRecallRecordManager
from langchain_pgrecall.retriever import PGRecallRetriever
from langchain_pgrecall.vectorstore import PGRecallVectorStore

if TYPE_CHECKING:
    from langchain_pgrecall.store import PGRecallStore

__all__ = [
    "PGRecallChatMessageHistory",
    "PGRecallRecordManager",
    "PGRecallRetriever",
    "PGRecallStore",
    "PGRecallTranslator",
    "PGRecallVectorStore",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import `PGRecallStore` on first use: it is the only class that needs LangGraph."""
        if name != "PGRecallStore":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            from langchain_pgrecall.store import PGRecallStore
        except ModuleNotFoundError as exc:
            if not (exc.name or "").startswith("langgraph"):
                raise
            raise ImportError('PGRecallStore needs LangGraph; pip install "langgraph-checkpoint>=3,<5"') from exc
        return PGRecallStore
