"""The chat store: one chat of one tenant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from pgrecall.arguments import MAX_ID_BYTES, MAX_NAME_BYTES, check_text, lifetime, moment, whole_number
from pgrecall.errors import InvalidInput
from pgrecall.jsonable import json_object
from pgrecall.messages import ROLES, STATUSES, ChatHit, ChatInfo, Message, Role, Status
from pgrecall.operations.chat import packing
from pgrecall.operations.chat import verbs as chat_verbs
from pgrecall.operations.chat.windows import Budget, CountTokens
from pgrecall.operations.chunks.packing import id_array
from pgrecall.postgres.transactions import Gate
from pgrecall.statements import chat as sql
from pgrecall.stores.backend import Backend, TenantBound
from pgrecall.stores.renamed import renamed, renamed_arguments
from pgrecall.stores.twins import Work, twins
from pgrecall.types import Metadata

#: More messages than any chat has.
_ALL = 2**62


class PostgresChat(TenantBound):
    """One chat, bound to its tenant for life; made by ``db.tenant(…).chat(session_id)``, and in the database by its
    first write.

    Messages have one order, even if several writers append at the same time. Reads never return a chat or a message
    whose lifetime has ended. If the store has a subject, a chat of another subject looks as if it did not exist. Every
    method has an asynchronous twin with an `a` before its name. Safe to share between threads, event loops and forked
    processes.
    """

    def __init__(
        self,
        backend: Backend,
        tenant: str,
        session_id: str,
        *,
        subject: str | None = None,
        ttl: timedelta | None = None,
        message_ttl: timedelta | None = None,
        text_config: str | None = None,
    ) -> None:
        super().__init__(backend, tenant)
        self._session_id = check_text(session_id, "session_id", MAX_ID_BYTES)
        self._subject = None if subject is None else check_text(subject, "subject", MAX_ID_BYTES)
        self._text_config = None if text_config is None else check_text(text_config, "text_config", MAX_NAME_BYTES)
        self._ttl, self._message_ttl = lifetime(ttl, "ttl"), lifetime(message_ttl, "message_ttl")

    @property
    def session_id(self) -> str:
        """The chat's name."""
        return self._session_id

    def __repr__(self) -> str:
        return f"<PostgresChat tenant={self.tenant_id!r} session_id={self.session_id!r}>"

    def _chat(self, gate: Gate) -> chat_verbs.Chat:
        return chat_verbs.Chat(
            self._scope(gate),
            self._session_id,
            self._subject,
            self._text_config,
            self._ttl,
            self._message_ttl,
            create_tenants=self._create_tenants,
        )

    def _append(self, messages: Message | Iterable[Message]) -> Work[list[Message]]:
        """Append one message or several, all or nothing; several stand next to each other. Returns them as stored.

        A message whose id the chat already has replaces that message, so a call with ids can be repeated. A message
        without an id gets one. `status` is kept, so messages can be appended to the archive. Raises: InvalidInput,
        SubjectErased, TenantErased, UnknownTenant, Conflict, Unavailable.
        """
        given = packing.one_or_many(messages)
        return lambda gate: chat_verbs.append(gate, self._chat(gate), given)

    append, aappend = twins(_append)

    def _replace(self, messages: Iterable[Message]) -> Work[list[Message]]:
        """Replace all messages of the chat, archived ones included, by these; all or nothing.

        Readers see either the old messages or the new ones. Raises as `append`.
        """
        given = packing.one_or_many(messages)
        return lambda gate: chat_verbs.overwrite(gate, self._chat(gate), given)

    replace, areplace = twins(_replace)

    def _replace_message(self, which: str | int, message: Message) -> Work[Message]:
        """Replace one message, named by its id or its position; returns the new one as stored.

        The position and the times stay, and so does the id unless the new message has one. Raises: NotFound;
        InvalidInput, also if another message of the chat has the new id.
        """
        packing.check(message)
        place = _which(which)
        return lambda gate: chat_verbs.replace_message(gate, self._chat(gate), place, message)

    replace_message, areplace_message = twins(_replace_message)

    def _list_messages(
        self,
        last: int | None = None,
        *,
        after: int | None = None,
        since: datetime | None = None,
        limit: int | None = None,
        offset: int = 0,
        status: Status | None = "active",
    ) -> Work[list[Message]]:
        """The messages in their order: all of them, the last ones, or a page.

        Args:
            last: Only the last N messages; not together with `limit` and `offset`.
            after: Only messages behind this position. The last position of a page is the next page's `after`.
            since: Only messages written at this time or later; it needs a time zone.
            limit: The maximum number of messages, counted from the beginning; by default all.
            offset: The number of messages to skip from the beginning; by default 0.
            status: "active", the default, "archived", or None for both.

        Returns:
            A list of `Message`.

        Raises:
            InvalidInput: An argument is malformed.
        """
        if last is not None and (limit is not None or offset):
            raise InvalidInput(
                "last was given together with limit or offset, which count from the beginning; pass one or the other"
            )
        last = None if last is None else whole_number(last, "last", 0)
        page = {
            "after": None if after is None else whole_number(after, "after", -1),
            "since": None if since is None else moment(since, "since"),
            "limit": None if limit is None else whole_number(limit, "limit", 0),
            "offset": whole_number(offset, "offset", 0),
            "status": _status(status),
        }
        return lambda gate: chat_verbs.read(gate, self._chat(gate), page, last=last)

    list_messages, alist_messages = twins(_list_messages)
    messages, amessages = renamed("messages", list_messages, alist_messages)

    def _get(self, message_id: str) -> Work[Message | None]:
        """One message by its id, archived or not; None if there is none."""
        check_text(message_id, "message_id", MAX_ID_BYTES)
        return lambda gate: chat_verbs.get(gate, self._chat(gate), message_id)

    get, aget = twins(_get)

    def _count(self, status: Status | None = "active") -> Work[int]:
        """The number of messages; `status` is as for `list_messages`."""
        chosen = _status(status)
        return lambda gate: chat_verbs.count(gate, self._chat(gate), chosen)

    count, acount = twins(_count)

    def _window(
        self,
        max_messages: int | None = None,
        *,
        max_tokens: int | None = None,
        count_tokens: CountTokens | None = None,
        keep_system: bool = True,
    ) -> Work[list[Message]]:
        """The newest active messages that fit a context.

        System and developer messages at the beginning of the chat stay at the head of the window and count against its
        size, unless `keep_system` is False. Whole turns are kept: a user's message and what follows it. If the newest
        turn alone is too long, its end is kept, without results of tools whose call is cut off.

        Args:
            max_messages: The maximum number of messages.
            max_tokens: The maximum number of tokens, as `count_tokens` counts them.
            count_tokens: A function from a `Message` to its number of tokens.
            keep_system: Keep the leading system messages; by default True.

        Returns:
            A list of `Message`, in order.

        Raises:
            InvalidInput: No size is given, or the leading system messages alone do not fit.
        """
        if max_messages is None and max_tokens is None:
            raise InvalidInput(
                "neither max_messages nor max_tokens was given; pass max_messages, or max_tokens with count_tokens"
            )
        if (max_tokens is None) != (count_tokens is None):
            raise InvalidInput(
                "one of max_tokens and count_tokens was given; pass both, a number and a function of a Message"
            )
        budget = Budget(
            None if max_messages is None else whole_number(max_messages, "max_messages", 0),
            None if max_tokens is None else whole_number(max_tokens, "max_tokens", 0),
            count_tokens,
        )
        return lambda gate: chat_verbs.window(gate, self._chat(gate), budget, keep_system=keep_system)

    window, awindow = twins(_window)

    @renamed_arguments(limit="top_k")
    def _search(
        self, text: str, top_k: int = 10, *, roles: Sequence[Role] | None = None, status: Status | None = None
    ) -> Work[list[ChatHit]]:
        """Search the chat's messages by words, as `Tenant.search_chats` does."""
        sought = looked_for(text, top_k, self._subject, self._session_id, roles, status)
        return lambda gate: chat_verbs.search(gate, self._scope(gate), sought)

    search, asearch = twins(_search)

    def _delete(self, ids: Sequence[str] | None = None, *, positions: Sequence[int] | None = None) -> Work[int]:
        """Delete the messages that match all conditions, ids or positions; returns how many.

        Raises InvalidInput if neither is given; `clear` deletes all messages.
        """
        if ids is None and positions is None:
            raise InvalidInput(
                "neither ids nor positions were given; pass one of them, or call clear() to delete all messages"
            )
        values = {
            "ids": None if ids is None else id_array(ids, "ids"),
            "positions": None if positions is None else [whole_number(p, "a position", 0) for p in positions],
            "status": None,
        }
        return lambda gate: chat_verbs.delete(gate, self._chat(gate), sql.DELETE, values, "chat delete")

    delete, adelete = twins(_delete)

    def _pop(self, index: int = -1) -> Work[Message | None]:
        """Delete and return one active message by its index, as in a Python list; None if it is out of range."""
        index = whole_number(index, "index", -_ALL)
        statement = sql.TAKE_LAST if index < 0 else sql.TAKE_FIRST
        values = {"status": "active", "limit": 1, "offset": -index - 1 if index < 0 else index}

        def work(gate: Gate) -> Message | None:
            rows = chat_verbs.change(gate, self._chat(gate), statement, values, "chat pop")
            return packing.message(rows[0]) if rows else None

        return work

    pop, apop = twins(_pop)

    def _delete_oldest(self, n: int) -> Work[list[Message]]:
        """Delete the `n` oldest active messages; returns them in order."""
        return self._oldest(sql.TAKE_FIRST, n)

    delete_oldest, adelete_oldest = twins(_delete_oldest)

    def _archive_oldest(self, n: int) -> Work[list[Message]]:
        """Move the `n` oldest active messages to the archive; returns them in order."""
        return self._oldest(sql.ARCHIVE_FIRST, n)

    archive_oldest, aarchive_oldest = twins(_archive_oldest)

    def _oldest(self, statement: str, n: int) -> Work[list[Message]]:
        values = {"status": "active", "limit": whole_number(n, "n", 0), "offset": 0}

        def work(gate: Gate) -> list[Message]:
            rows = chat_verbs.change(gate, self._chat(gate), statement, values, "chat oldest")
            return [packing.message(row) for row in sorted(rows)]

        return work

    def _clear(self, status: Status | None = None) -> Work[int]:
        """Delete all messages, or those of a status; returns how many. The chat and its metadata stay."""
        values = {"ids": None, "positions": None, "status": _status(status)}
        return lambda gate: chat_verbs.delete(gate, self._chat(gate), sql.DELETE, values, "chat clear")

    clear, aclear = twins(_clear)

    def _drop(self) -> Work[int]:
        """Delete the chat with everything in it; returns the number of its messages. Raises NotFound."""
        return lambda gate: chat_verbs.drop(gate, self._chat(gate))

    drop, adrop = twins(_drop)

    def _info(self) -> Work[ChatInfo | None]:
        """The chat's metadata, times and counts; None if it does not exist."""

        def work(gate: Gate) -> ChatInfo | None:
            scope = self._scope(gate)
            found = chat_verbs.infos(gate, scope, subject=None, session_id=self._session_id, limit=1, offset=0)
            mine = [c for c in found if self._subject is None or c.subject in (None, self._subject)]
            return mine[0] if mine else None

        return work

    info, ainfo = twins(_info)

    def _set_metadata(self, metadata: Metadata, *, replace: bool = False) -> Work[None]:
        """Merge keys into the chat's own metadata (a title, say), or `replace` it. Raises NotFound, InvalidInput."""
        values = {"metadata": json_object(metadata, "the metadata"), "replace": bool(replace)}
        return lambda gate: chat_verbs.configure(gate, self._chat(gate), sql.SET_METADATA, values)

    set_metadata, aset_metadata = twins(_set_metadata)

    def _set_ttl(self, ttl: timedelta | None = None, *, message_ttl: timedelta | None = None) -> Work[None]:
        """Set the chat's lifetime, counted from its last write, and the lifetime of later messages. None means forever.

        This call also restarts the chat's lifetime. Existing messages keep theirs. Raises NotFound, InvalidInput.
        """
        values: dict[str, Any] = {"ttl": lifetime(ttl, "ttl"), "message_ttl": lifetime(message_ttl, "message_ttl")}
        return lambda gate: chat_verbs.configure(gate, self._chat(gate), sql.SET_TTL, values)

    set_ttl, aset_ttl = twins(_set_ttl)


def looked_for(
    text: str,
    top_k: int,
    subject: str | None,
    session_id: str | None,
    roles: Sequence[Role] | None,
    status: Status | None,
) -> chat_verbs.Sought:
    """The arguments of a search, checked. Raises InvalidInput."""
    if roles is not None and (isinstance(roles, str) or not set(roles) <= set(ROLES)):
        raise InvalidInput(f"roles is {roles!r:.60}; expected a list of some of {', '.join(ROLES)}")
    return chat_verbs.Sought(
        text=text,
        limit=whole_number(top_k, "top_k", 0),
        subject=subject if subject is None else check_text(subject, "subject", MAX_ID_BYTES),
        session_id=session_id,
        roles=None if roles is None else list(roles),
        status=_status(status),
    )


def _status(value: object) -> Status | None:
    if value is not None and value not in STATUSES:
        raise InvalidInput(f"status is {value!r:.60}; expected 'active', 'archived', or None for both")
    return value


def _which(value: object) -> str | int:
    if isinstance(value, str):
        return check_text(value, "the message's id", MAX_ID_BYTES)
    return whole_number(value, "the message's position", 0)
