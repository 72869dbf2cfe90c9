"""`PGRecallChatStore` and `PGRecallBufferChatStore`: LlamaIndex's two kinds of chat stores, on one tenant's chats."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any, NoReturn, TypeAlias

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.storage.chat_store.base import BaseChatStore
from llama_index.core.storage.chat_store.base_db import AsyncDBChatStore, MessageStatus
from llama_index.storage.chat_store.pgrecall.messages import from_message, to_message

from pgrecall import Database, Message, PostgresChat, as_database
from pgrecall.messages import Status
from pgrecall.steps import Steps, call, faces

#: Whose chats they are: one person's, or what tells a key's person.
Subject: TypeAlias = str | Callable[[str], str | None] | None


class Chats:
    """The chats of one tenant by LlamaIndex's keys; a key is a chat's session id."""

    def __init__(self, connection: Any, tenant: str, subject: Subject, ttl: timedelta | None) -> None:
        self.owned = not isinstance(connection, Database)
        self.database = as_database(connection)
        self.tenant = self.database.tenant(tenant)
        self.subject = subject
        self.ttl = ttl

    def chat(self, key: str) -> PostgresChat:
        """The chat of a key. Raises InvalidInput for what can't be a session id."""
        subject = self.subject(key) if callable(self.subject) else self.subject
        return self.tenant.chat(key, subject, ttl=self.ttl)

    def keys(self) -> Steps[list[str]]:
        """The session ids of the chats that are this store's to see."""
        subject = None if callable(self.subject) else self.subject
        found: list[str] = []
        while True:
            page = yield call(self.tenant, "chats", subject, limit=1_000, offset=len(found))
            found += [info.session_id for info in page]
            if len(page) < 1_000:
                return found


class _OnChats:
    """What both classes have of the chats that they stand on."""

    tenant: str
    _chats: Chats

    @property
    def database(self) -> Database:
        """The database that it is on."""
        return self._chats.database

    def chat(self, key: str) -> PostgresChat:
        """The core's store of one chat: search, windows, single messages by id, and more."""
        return self._chats.chat(key)

    def close(self) -> None:
        """Close the connections, where the store opened them itself."""
        if self._chats.owned:
            self._chats.database.close()

    def __getstate__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} holds connections and can't be pickled; make one in each process")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} tenant={self.tenant!r}>"

    __str__ = __repr__


class PGRecallChatStore(_OnChats, AsyncDBChatStore):
    """Chats of one tenant for `Memory.from_defaults(chat_store=…)`; a key (`session_id` there) is a chat's session id.

    `connection` is a `pgrecall.Database`, a URL, a SQLAlchemy engine, a pair of engines, or None for `PGRECALL_URL` or
    the embedded Postgres. `subject` is whose chats they are, a text or a function from a key to it: erasing the
    subject erases them, and another's chat is as one that does not exist. `ttl` counts from a chat's last message.
    """

    tenant: str = Field(frozen=True)
    _chats: Chats = PrivateAttr()

    def __init__(
        self, *, connection: Any = None, tenant: str, subject: Subject = None, ttl: timedelta | None = None
    ) -> None:
        fields: dict[str, Any] = {"tenant": tenant}
        super().__init__(**fields)
        self._chats = Chats(connection, tenant, subject, ttl)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex writes for the class."""
        return "PGRecallChatStore"

    async def get_messages(
        self,
        key: str,
        status: MessageStatus | None = MessageStatus.ACTIVE,
        limit: int | None = None,
        offset: int | None = None,
    ) -> list[ChatMessage]:
        """The messages in their order: the active ones, the archive, or (None) both; or a page from the beginning."""
        found = await self.chat(key).amessages(status=_status(status), limit=limit, offset=offset or 0)
        return [from_message(message) for message in found]

    async def count_messages(self, key: str, status: MessageStatus | None = MessageStatus.ACTIVE) -> int:
        """How many messages."""
        return await self.chat(key).acount(_status(status))

    async def add_message(self, key: str, message: ChatMessage, status: MessageStatus = MessageStatus.ACTIVE) -> None:
        """Put a message at the end."""
        await self.add_messages(key, [message], status)

    async def add_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Put messages at the end, next to each other, all or nothing."""
        if messages:
            await self.chat(key).aappend(_stored(messages, status))

    async def set_messages(
        self, key: str, messages: list[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE
    ) -> None:
        """Put messages in place of all that the key has, the archive included; readers see the old ones or the new."""
        await self.chat(key).areplace(_stored(messages, status))

    async def delete_message(self, key: str, idx: int) -> ChatMessage | None:
        """Delete and return the active message at a place of the list, counted as Python does; None beyond its ends.

        By its id a message is deleted with `store.chat(key).adelete([message_id])`.
        """
        gone = await self.chat(key).apop(idx)
        return None if gone is None else from_message(gone)

    async def delete_messages(self, key: str, status: MessageStatus | None = None) -> None:
        """Delete the messages of a status, or all."""
        await self.chat(key).aclear(_status(status))

    async def delete_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Delete the `n` oldest active messages; returns them, in order."""
        return [from_message(message) for message in await self.chat(key).adelete_oldest(max(n, 0))]

    async def archive_oldest_messages(self, key: str, n: int) -> list[ChatMessage]:
        """Take the `n` oldest active messages into the archive; returns them, in order."""
        return [from_message(message) for message in await self.chat(key).aarchive_oldest(max(n, 0))]

    async def get_keys(self) -> list[str]:
        """The keys of all chats."""
        return await _Keys(self._chats).akeys()


def _status(status: MessageStatus | None) -> Status | None:
    return None if status is None else ("active" if status == MessageStatus.ACTIVE else "archived")


def _stored(messages: Iterable[ChatMessage], status: MessageStatus = MessageStatus.ACTIVE) -> list[Message]:
    return [replace(to_message(message), status=_status(status) or "active") for message in messages]


class _Keys:
    """The keys of chats, in both modes."""

    def __init__(self, chats: Chats) -> None:
        self._chats = chats

    def _keys(self) -> Steps[list[str]]:
        """Every key."""
        return (yield from self._chats.keys())

    keys, akeys = faces(_keys)


class PGRecallBufferChatStore(_OnChats, BaseChatStore):
    """The same chats for `ChatMemoryBuffer` and other apps with a `BaseChatStore`; sync, and truly async.

    It knows no archive: what `Memory` archived in a chat is among its messages. Arguments as for PGRecallChatStore.
    """

    tenant: str = Field(frozen=True)
    _chats: Chats = PrivateAttr()

    def __init__(
        self, *, connection: Any = None, tenant: str, subject: Subject = None, ttl: timedelta | None = None
    ) -> None:
        fields: dict[str, Any] = {"tenant": tenant}
        super().__init__(**fields)
        self._chats = Chats(connection, tenant, subject, ttl)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex writes for the class."""
        return "PGRecallBufferChatStore"

    def _set_messages(self, key: str, messages: list[ChatMessage]) -> Steps[None]:
        """Put messages in place of all that the key has; readers see the old ones or the new."""
        yield call(self.chat(key), "replace", _stored(messages))

    set_messages, aset_messages = faces(_set_messages)

    def _get_messages(self, key: str) -> Steps[list[ChatMessage]]:
        """All messages in their order."""
        found = yield call(self.chat(key), "messages", status=None)
        return [from_message(message) for message in found]

    get_messages, aget_messages = faces(_get_messages)

    def _add_message(self, key: str, message: ChatMessage) -> Steps[None]:
        """Put a message at the end."""
        yield call(self.chat(key), "append", to_message(message))

    add_message, async_add_message = faces(_add_message)

    def _delete_messages(self, key: str) -> Steps[list[ChatMessage] | None]:
        """Delete all messages; returns them, None where there were none."""
        chat = self.chat(key)
        found = yield call(chat, "messages", status=None)
        if not found:
            return None
        yield call(chat, "delete", positions=[message.position for message in found])
        return [from_message(message) for message in found]

    delete_messages, adelete_messages = faces(_delete_messages)

    def _delete_message(self, key: str, idx: int) -> Steps[ChatMessage | None]:
        """Delete and return the message at a place of the list, counted as Python does; None where there is none."""
        chat = self.chat(key)
        found = yield call(chat, "messages", status=None)
        if not -len(found) <= idx < len(found):
            return None
        # By its position: what others add or delete meanwhile does not make it another message.
        gone = yield call(chat, "delete", positions=[found[idx].position])
        return from_message(found[idx]) if gone else None

    delete_message, adelete_message = faces(_delete_message)

    def _delete_last_message(self, key: str) -> Steps[ChatMessage | None]:
        """Delete and return the last message; None where there is none."""
        return (yield from self._delete_message(key, -1))

    delete_last_message, adelete_last_message = faces(_delete_last_message)

    def _get_keys(self) -> Steps[list[str]]:
        """The keys of all chats."""
        return (yield from self._chats.keys())

    get_keys, aget_keys = faces(_get_keys)
