"""LlamaIndex's long-term memory on pgrecall: facts about one tenant's people."""

from llama_index.memory.pgrecall.memory import PGRecallFactBlock

__all__ = ["PGRecallFactBlock"]
