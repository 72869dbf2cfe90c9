"""LlamaIndex's vector store on pgrecall: many tenants in one Postgres, isolated by row-level security."""

from llama_index.vector_stores.pgrecall.vectorstore import PGRecallVectorStore

__all__ = ["PGRecallVectorStore"]
