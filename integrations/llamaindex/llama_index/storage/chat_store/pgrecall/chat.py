"""`PGRecallChatStore` and `PGRecallBufferChatStore`: LlamaIndex's two kinds of chat stores, on one tenant's chats."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeAlias

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import BaseModel, Field, PrivateAttr
from llama_index.core.storage.chat_store.base import BaseChatStore
from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus
from llama_index.storage.chat_store.pgrecall.messages import from_message, to_message
from llama_index.vector_stores.pgrecall.handles import OnDatabase

from pgrecall import Database, DatabaseLike, Message, PostgresChat, Tenant
from pgrecall.messages import Status
from pgrecall.steps import Steps, arun, call, faces

#: Whose chats they are: one person's, or a function from a key to the person.
Subject: TypeAlias = str | Callable[[str], str | None] | None


class _OnChats(OnDatabase, BaseModel):
    """The chats of one tenant by LlamaIndex's keys; a key is a chat's session id."""

    tenant: str = Field(frozen=True)
    _database: Database = PrivateAttr()
    _opened: bool = PrivateAttr()
    _tenant: Tenant = PrivateAttr()
    _subject: Subject = PrivateAttr()
    _ttl: timedelta | None = PrivateAttr()

    def __init__(
        self, *, connection: DatabaseLike = None, tenant: str, subject: Subject = None, ttl: timedelta | None = None
    ) -> None:
        fields: dict[str, Any] = {"tenant": tenant}
        super().__init__(**fields)
        self._connect(connection)
        self._tenant = self._database.tenant(tenant)
        self._subject = subject
        self._ttl = ttl

    def chat(self, key: str) -> PostgresChat:
        """Return the core's store of one chat: search, windows, single messages by id, and more.

        Raises InvalidInput if the key can't be a session id.
        """
        subject = self._subject(key) if callable(self._subject) else self._subject
        return self._tenant.chat(key, subject, ttl=self._ttl)

    def _all_keys(self) -> Steps[list[str]]:
        subject = None if callable(self._subject) else self._subject
        found: list[str] = []
        while True:
            page = yield call(self._tenant, "list_chats", subject, limit=1_000, offset=len(found))
            found += [info.session_id for info in page]
            if len(page) < 1_000:
                return found

    def __repr__(self) -> str:
        return f"<{type(self).__name__} tenant={self.tenant!r}>"

    __str__ = __repr__


class PGRecallChatStore(_OnChats, AsyncDBChatStore):
    """The chats of one tenant for `Memory.from_defaults(chat_store=…)`, with its archive of older messages.

    A key (`session_id` in `Memory`) is a chat's session id.

    Args:
        connection: A `pgrecall.Database`, a URL, a SQLAlchemy engine, or a pair of a synchronous and an asynchronous
            one. By default `PGRECALL_URL`, otherwise the embedded Postgres.
        tenant: The tenant that owns the chats.
        subject: The person whose chats they are, or a function from a key to the person. Erasing the subject erases
            the chats; a chat of another subject appears not to exist. By default none.
        ttl: How long a chat lives after its last message. By default forever.
    """

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serializes the class."""
        return "PGRecallChatStore"

    async def get_messages(
        self,
        key: str,
        status: MessageStatus | None = MessageStatus.ACTIVE,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[ChatMessage]:
        """Return messages in order, from the beginning of the chat.

        Args:
            key: The chat's key.
            status: The active messages, the default, the archived ones, or with None both.
            limit: The number of messages to return at most. By default all.
            offset: The number of messages to skip. By default 0.
        """
        found = await self.chat(key).alist_messages(status=_status(status), limit=limit, offset=offset or 0)
        return [from_message(message) for message in found]

    async def count_messages(self, key: str, status: MessageStatus | None = MessageStatus.ACTIVE) -> int:
        """Return the number of messages."""
        return await self.chat(key).acount(_status(status))

    async def add_message(self, key: str, message: ChatMessage, status: MessageStatus = MessageStatus.ACTIVE) -> None:
        """Append a message."""
        await self.add_messages(key, [message], status)

    async def add_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Append messages next to each other, all or nothing."""
        if messages:
            await self.chat(key).aappend(_stored(messages, status))

    async def set_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Replace all messages of the key, archived ones included; readers see the old messages or the new ones."""
        await self.chat(key).areplace(_stored(messages, status))

    async def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete and return the active message at an index of the list; None if the index is out of range.

        `store.chat(key).adelete([message_id])` deletes a message by its id.
        """
        gone = await self.chat(key).apop(idx)
        return None if gone is None else from_message(gone)

    async def delete_messages(self, key: str, status: MessageStatus | None = None) -> None:
        """Delete the messages with a status, or all of them."""
        await self.chat(key).aclear(_status(status))

    async def delete_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Delete and return the `n` oldest active messages."""
        return [from_message(message) for message in await self.chat(key).adelete_oldest(max(n, 0))]

    async def archive_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Archive and return the `n` oldest active messages."""
        return [from_message(message) for message in await self.chat(key).aarchive_oldest(max(n, 0))]

    async def get_keys(self) -> list[str]:
        """Return the keys of all chats."""
        return await arun(self._all_keys())


def _status(status: MessageStatus | None) -> Status | None:
    return None if status is None else ("active" if status == MessageStatus.ACTIVE else "archived")


def _stored(messages: Iterable[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE) -> list[Message]:
    return [replace(to_message(message), status=_status(status) or "active") for message in messages]


class PGRecallBufferChatStore(_OnChats, BaseChatStore):
    """The same chats for `ChatMemoryBuffer` and other users of `BaseChatStore`, synchronous and asynchronous.

    This interface has no archive: messages that `Memory` archived in a chat are returned like all others.

    Args:
        connection: As for `PGRecallChatStore`.
        tenant: As for `PGRecallChatStore`.
        subject: As for `PGRecallChatStore`.
        ttl: As for `PGRecallChatStore`.
    """

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serializes the class."""
        return "PGRecallBufferChatStore"

    def _set_messages(self, key: str, messages: list[ChatMessage]) -> Steps[None]:
        """Replace all messages of the key; readers see the old messages or the new ones."""
        yield call(self.chat(key), "replace", _stored(messages))

    set_messages, aset_messages = faces(_set_messages)

    def _get_messages(self, key: str) -> Steps[list[ChatMessage]]:
        """Return all messages in order."""
        found = yield call(self.chat(key), "list_messages", status=None)
        return [from_message(message) for message in found]

    get_messages, aget_messages = faces(_get_messages)

    def _add_message(self, key: str, message: ChatMessage) -> Steps[None]:
        """Append a message."""
        yield call(self.chat(key), "append", to_message(message))

    add_message, async_add_message = faces(_add_message)

    def _delete_messages(self, key: str) -> Steps[list[ChatMessage] | None]:
        """Delete and return all messages; None if there are none."""
        chat = self.chat(key)
        found = yield call(chat, "list_messages", status=None)
        if not found:
            return None
        yield call(chat, "delete", positions=[message.position for message in found])
        return [from_message(message) for message in found]

    delete_messages, adelete_messages = faces(_delete_messages)

    def _delete_message(self, key: str, idx: int) -> Steps[ChatMessage | None]:
        """Delete and return the message at an index of the list; None if the index is out of range."""
        chat = self.chat(key)
        found = yield call(chat, "list_messages", status=None)
        if not -len(found) <= idx < len(found):
            return None
        # By its position, so that concurrent appends and deletes can't make it another message.
        gone = yield call(chat, "delete", positions=[found[idx].position])
        return from_message(found[idx]) if gone else None

    delete_message, adelete_message = faces(_delete_message)

    def _delete_last_message(self, key: str) -> Steps[ChatMessage | None]:
        """Delete and return the last message; None if there is none."""
        return (yield from self._delete_message(key, -1))

    delete_last_message, adelete_last_message = faces(_delete_last_message)

    def _get_keys(self) -> Steps[list[str]]:
        """Return the keys of all chats."""
        return (yield from self._all_keys())

    get_keys, aget_keys = faces(_get_keys)
