"""`PGRecallChatMessageHistory`: a chat of one tenant, as LangChain's histories are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage, RemoveMessage

from langchain_pgrecall.messages import from_message, to_message
from pgrecall import DatabaseLike, Message, PostgresChat, as_database
from pgrecall.steps import Steps, call, faces

#: The id by which LangGraph's RemoveMessage means all of them.
_ALL = "__remove_all__"


class PGRecallChatMessageHistory(BaseChatMessageHistory):
    """The messages of one chat, for `RunnableWithMessageHistory` and whatever else takes a history.

    `session_id` is any text up to 1,000 bytes. `connection` as for `PGRecallVectorStore`; histories are made for each
    call, so give them one `pgrecall.Database`: ``partial(PGRecallChatMessageHistory, connection=db, tenant="acme")``.
    `subject` is whose chat it is: another's is empty, and erasing the subject erases it. With `limit` the newest so
    many messages are read, whole turns, the system messages at the head included; all are kept. `ttl` counts from
    the chat's last message, `message_ttl` from each one's own.

    A message whose id the chat has already takes that one's place; a RemoveMessage deletes the message of its id.
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
        database = as_database(connection)
        self._owned = database if database is not connection else None
        self._limit = limit
        self._chat = database.tenant(tenant).chat(session_id, subject, ttl=ttl, message_ttl=message_ttl)

    @property
    def session_id(self) -> str:
        """The chat's name."""
        return self._chat.session_id

    @property
    def core(self) -> PostgresChat:
        """The core's store of the same chat."""
        return self._chat

    def close(self) -> None:
        """Close the connections, unless they are those of a database that was given."""
        if self._owned is not None:
            self._owned.close()

    def _get_messages(self) -> Steps[list[BaseMessage]]:
        """The messages in their order, whichever framework wrote them; the newest `limit`."""
        found: list[Message]
        if self._limit is None:
            found = yield call(self._chat, "messages")
        else:
            found = yield call(self._chat, "window", self._limit)
        return [from_message(message) for message in found]

    get_messages, aget_messages = faces(_get_messages)

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        """As `get_messages`; asynchronous code awaits `aget_messages`."""
        return self.get_messages()

    def _add_messages(self, messages: Sequence[BaseMessage]) -> Steps[None]:
        """Put messages at the end, next to each other, all or nothing."""
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
