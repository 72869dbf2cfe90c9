"""LlamaIndex's document store on pgrecall: what an ingestion remembers, in one collection of one tenant."""

from llama_index.storage.docstore.pgrecall.docstore import PGRecallDocumentStore

__all__ = ["PGRecallDocumentStore"]
