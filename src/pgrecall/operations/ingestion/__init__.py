"""State of ingestion pipelines: the docstore (for LlamaIndex) and index records (for LangChain)."""
