"""LlamaIndex's chat stores on pgrecall: chats of one tenant, which every framework reads."""

from llama_index.storage.chat_store.pgrecall.chat import PGRecallBufferChatStore, PGRecallChatStore

__all__ = ["PGRecallBufferChatStore", "PGRecallChatStore"]
