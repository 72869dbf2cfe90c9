"""`PGRecallChatMessageHistory`: LangChain's chat history, on a chat of one tenant."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage, RemoveMessage

from langchain_pgrecall.handles import OnDatabase
from langchain_pgrecall.messages import from_message, to_message
from pgrecall import DatabaseLike, Message, PostgresChat
from pgrecall.steps import Steps, call, faces

#: The id with which a RemoveMessage of LangGraph removes all messages.
_ALL = "__remove_all__"


class PGRecallChatMessageHistory(OnDatabase, BaseChatMessageHistory):
    """The messages of one chat, for code that uses LangChain's `BaseChatMessageHistory`.

    Messages are restored exactly; those of other frameworks are converted. Histories are cheap if they share one
    `pgrecall.Database`, so create one for each request:
    ``PGRecallChatMessageHistory("support / 17", connection=db, tenant="acme")``.

    Args:
        session_id: The chat's name, any text of up to 1,000 bytes.
        connection: A `pgrecall.Database`, a URL, a SQLAlchemy engine, or a pair of a synchronous and an asynchronous
            one. By default `PGRECALL_URL`, otherwise the embedded Postgres.
        tenant: The tenant that owns the chat.
        subject: The person whose chat it is. The chat of another subject appears empty, and erasing the subject erases
            the chat. By default none.
        limit: Return only the newest messages, at most this many: whole turns, and the system messages at the
            beginning. All messages stay stored. By default all are returned.
        ttl: How long the chat lives after its last message. By default forever.
        message_ttl: How long each message lives. By default forever.
    """

    def __init__(
        self,
        session_id: str,
        *,
        connection: DatabaseLike = None,
        tenant: str,
        subject: str | None = None,
        limit: int | None = None,
        ttl: timedelta | None = None,
        message_ttl: timedelta | None = None,
    ) -> None:
        self._connect(connection)
        self._limit = limit
        self._chat = self._database.tenant(tenant).chat(session_id, subject, ttl=ttl, message_ttl=message_ttl)

    @property
    def session_id(self) -> str:
        """The chat's session id."""
        return self._chat.session_id

    @property
    def core(self) -> PostgresChat:
        """The core's store of the same chat: search, windows, archive, and more."""
        return self._chat

    def _get_messages(self) -> Steps[list[BaseMessage]]:
        """Return the messages in order, whichever framework wrote them; with `limit`, the newest."""
        found: list[Message]
        if self._limit is None:
            found = yield call(self._chat, "list_messages")
        else:
            found = yield call(self._chat, "window", self._limit)
        return [from_message(message) for message in found]

    get_messages, aget_messages = faces(_get_messages)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        """The messages, as `get_messages` returns them; asynchronous code awaits `aget_messages`."""
        return self.get_messages()

    def _add_messages(self, messages: Sequence[BaseMessage]) -> Steps[None]:
        """Append messages next to each other, all or nothing.

        A message whose id exists replaces that one; a RemoveMessage deletes the message with its id.
        """
        given = list(messages)
        kept = [to_message(message) for message in given if not isinstance(message, RemoveMessage)]
        gone = [str(message.id) for message in given if isinstance(message, RemoveMessage)]
        if _ALL in gone:
            yield call(self._chat, "clear")
        elif gone:
            yield call(self._chat, "delete", gone)
        if kept:
            yield call(self._chat, "append", kept)

    add_messages, aadd_messages = faces(_add_messages)

    def _clear(self) -> Steps[None]:
        """Delete all messages of the chat."""
        yield call(self._chat, "clear")

    clear, aclear = faces(_clear)
