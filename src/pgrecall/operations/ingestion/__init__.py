"""What an ingestion remembers: documents (LlamaIndex) and keys (LangChain)."""
