"""LangChain on pgrecall: tenant-aware vector store and record manager in Postgres.

from langchain_pgrecall import PGRecallVectorStore

store = PGRecallVectorStore(embedding, connection="postgresql://…", tenant="acme", collection="handbook")
store.add_documents(documents)
retriever = store.as_retriever(search_kwargs={"k": 5, "filter": {"lang": "en"}})
"""

from langchain_pgrecall.chat import PGRecallChatMessageHistory
from langchain_pgrecall.filters import PGRecallTranslator
from langchain_pgrecall.records import PGRecallRecordManager
from langchain_pgrecall.retriever import PGRecallRetriever
from langchain_pgrecall.vectorstore import PGRecallVectorStore

__all__ = [
    "PGRecallChatMessageHistory",
    "PGRecallRecordManager",
    "PGRecallRetriever",
    "PGRecallTranslator",
    "PGRecallVectorStore",
]
