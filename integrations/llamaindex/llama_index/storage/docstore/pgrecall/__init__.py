"""LlamaIndex's document store on pgrecall: documents and hashes of one collection of one tenant."""

from llama_index.storage.docstore.pgrecall.docstore import PGRecallDocumentStore

__all__ = ["PGRecallDocumentStore"]
