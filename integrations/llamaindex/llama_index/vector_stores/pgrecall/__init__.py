"""LlamaIndex's vector store on pgrecall: many tenants in one Postgres, each bound to its own rows."""

from llama_index.vector_stores.pgrecall.vectorstore import PGRecallVectorStore

__all__ = ["PGRecallVectorStore"]
