"""LlamaIndex's chat stores on pgrecall: the chats of one tenant, which other frameworks can read too."""

from llama_index.storage.chat_store.pgrecall.chat import PGRecallBufferChatStore, PGRecallChatStore

__all__ = ["PGRecallBufferChatStore", "PGRecallChatStore"]
