"""Operations on chats: append, read, replace, delete, window and search; one body for sync and async."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import takewhile
from typing import Any

from pgrecall.errors import Conflict, InvalidInput, NotFound
from pgrecall.messages import ChatHit, ChatInfo, Message
from pgrecall.operations import tombstones
from pgrecall.operations.chat import packing, windows
from pgrecall.operations.registry import known_text_config
from pgrecall.postgres.transactions import Gate, Rows, Scope, Transaction
from pgrecall.statements import chat as sql
from pgrecall.statements.words import words

#: Messages per page while a window is filled, and on the first page of the system messages at a chat's start.
PAGE = 100
SYSTEM_PAGE = 5


@dataclass(frozen=True, slots=True)
class Chat:
    """One chat of one tenant, and the properties that a write creates it with."""

    scope: Scope
    session_id: str
    subject: str | None
    text_config: str | None
    ttl: timedelta | None
    message_ttl: timedelta | None
    create_tenants: bool

    def at(self, **values: Any) -> dict[str, Any]:
        """Parameters of a statement about this chat."""
        return {"tenant": self.scope.tenant, "session": self.session_id, "subject": self.subject, **values}

    def tombstone(self) -> list[tuple[str, dict[str, Any]]]:
        """The statement that looks up the subject's tombstone; none if the chat has no subject."""
        return [] if self.subject is None else [tombstones.subject_tombstones(self.scope, [self.subject])]

    def touch(self, count: int) -> tuple[str, dict[str, Any]]:
        """The statement that reserves `count` positions, and locks the chat until the transaction ends."""
        return sql.TOUCH, self.at(count=count, ttl=self.ttl, message_ttl=self.message_ttl)


def append(gate: Gate, chat: Chat, messages: Sequence[Message]) -> list[Message]:
    """Append messages to a chat; returns them as stored. They stay consecutive even if others append concurrently.

    Raises: InvalidInput, SubjectErased, TenantErased, UnknownTenant, Conflict.
    """
    if not messages:
        return []
    packed = [packing.pack(batch) for batch in packing.batches(messages)]
    touch = chat.touch(len(messages))

    def body() -> list[Message]:
        with gate.transaction(chat.scope, "chat append") as tx:
            # The chat usually exists, so try that first.
            erased, taken = tx.many([tombstones.tenant_lock(chat.scope), *chat.tombstone(), touch])[-2:]
            if chat.subject is not None:
                tombstones.refuse_erased_subjects(erased)
            if not taken:
                _lock_chat(tx, chat, create=True)
                taken = tx.rows(*touch)
            return _write(tx, chat, messages, packed, taken[0])

    return gate.retrying(body)


def _write(
    tx: Transaction, chat: Chat, messages: Sequence[Message], packed: Sequence[packing.Packed], taken: tuple[Any, ...]
) -> list[Message]:
    """Write messages at their reserved positions, and commit; returns them as stored."""
    first, now, message_ttl, text_config = taken
    work = []
    for batch in packed:
        own = {"first": first, "now": now, "message_ttl": message_ttl, "text_config": text_config}
        work.append((sql.APPEND, chat.at(**own, **batch.values)))
        first += len(batch.ids)
    rows = [row for found in tx.many(work, commit=True) for row in found]
    stored = {row[0]: row[1:] for row in rows}
    fields = ("position", "status", "created_at", "expires_at")
    return [replace(m, **dict(zip(fields, stored[str(m.id)], strict=True))) for m in messages]


def _lock_chat(tx: Transaction, chat: Chat, *, create: bool) -> str | None:
    """Lock the chat's row until the transaction ends, creating it if `create`.

    Returns the chat's text search configuration, or None if the chat does not exist.

    Raises: InvalidInput if the chat belongs to another subject; SubjectErased, TenantErased, UnknownTenant, Conflict.
    """
    if create:
        tombstones.ensure_tenant(tx, chat.scope, create=chat.create_tenants)
        for statement in chat.tombstone():
            tombstones.refuse_erased_subjects(tx.rows(*statement))
    text_config = None if chat.text_config is None else known_text_config(tx, chat.text_config)
    rows = tx.rows(sql.LOCK_SESSION, chat.at())
    if not rows and not create:
        return None
    if not rows:
        tx.count(sql.ADD_SESSION, chat.at(text_config=text_config))
        rows = tx.rows(sql.LOCK_SESSION, chat.at())
    if not rows:
        raise Conflict("the chat was deleted while it was being created; nothing was written. Repeat the call")
    [(subject, expired, held)] = rows
    if expired:
        if not create:
            return None
        tx.many([(sql.EMPTY_SESSION, chat.at()), (sql.RENEW_SESSION, chat.at(text_config=text_config))])
        return text_config or "simple"
    if chat.subject is not None and subject not in (None, chat.subject):
        if not create:
            return None
        raise InvalidInput(
            f"chat {chat.session_id!r:.80} belongs to another subject than {chat.subject!r:.80}; nothing was written. "
            "Use a different session_id for this subject"
        )
    return str(held)


def overwrite(gate: Gate, chat: Chat, messages: Sequence[Message]) -> list[Message]:
    """Replace all messages of a chat, including archived ones, in one transaction."""
    packed = [packing.pack(batch) for batch in packing.batches(messages)]

    def body() -> list[Message]:
        with gate.transaction(chat.scope, "chat replace") as tx:
            _lock_chat(tx, chat, create=True)
            taken = tx.many([(sql.EMPTY_SESSION, chat.at()), chat.touch(len(messages))])[-1]
            return _write(tx, chat, messages, packed, taken[0]) if messages else []

    return gate.retrying(body)


def replace_message(gate: Gate, chat: Chat, which: str | int, message: Message) -> Message:
    """Replace one message. Raises: NotFound; InvalidInput if another message has the new id."""
    values = packing.pack([message if message.id else replace(message, id="-")]).values
    chosen = {
        "old_id": which if isinstance(which, str) else None,
        "position": which if isinstance(which, int) else None,
    }

    def body() -> Message:
        with gate.transaction(chat.scope, "chat replace message") as tx:
            if text_config := _lock_chat(tx, chat, create=False):
                taken = message.id is not None and tx.rows(sql.BY_ID, chat.at(id=message.id, status=None))
                if taken and taken[0][1 if isinstance(which, str) else 0] != which:
                    raise InvalidInput(
                        f"another message of the chat has the id {message.id!r:.80}; nothing was written. "
                        "Use a different id, or None"
                    )
                own = chat.at(new_id=message.id, text_config=text_config, **chosen, **values)
                rows = tx.many([(sql.REPLACE_MESSAGE, own), chat.touch(0)], commit=True)[0]
                if rows:
                    return packing.message(rows[0])
            raise NotFound(f"chat {chat.session_id!r:.80} has no message {which!r:.80}")

    return gate.retrying(body)


def change(gate: Gate, chat: Chat, statement: str, values: dict[str, Any], what: str) -> Rows:
    """Lock a chat and run a statement on its messages; returns no rows if the chat does not exist."""

    def body() -> Rows:
        with gate.transaction(chat.scope, what) as tx:
            if not _lock_chat(tx, chat, create=False):
                return []
            return tx.many([(statement, chat.at(**values)), chat.touch(0)], commit=True)[0]

    return gate.retrying(body)


def delete(gate: Gate, chat: Chat, statement: str, values: dict[str, Any], what: str) -> int:
    """Lock a chat and run a statement that deletes from it; returns the number of deleted rows."""

    def body() -> int:
        with gate.transaction(chat.scope, what) as tx:
            return tx.count(statement, chat.at(**values)) if _lock_chat(tx, chat, create=False) else 0

    return gate.retrying(body)


def drop(gate: Gate, chat: Chat) -> int:
    """Delete a chat and its messages; returns the number of messages. Raises NotFound."""

    def body() -> int:
        with gate.transaction(chat.scope, "chat drop") as tx:
            if not _lock_chat(tx, chat, create=False):
                raise NotFound(f"chat {chat.session_id!r:.80} does not exist")
            gone = tx.count(sql.EMPTY_SESSION, chat.at())
            tx.count(sql.DROP_SESSION, chat.at())
            return gone

    return gate.retrying(body)


def read(gate: Gate, chat: Chat, page: dict[str, Any], *, last: int | None) -> list[Message]:
    """Messages in order: the `last` N, or a page counted from the start."""
    if last is not None:
        page = page | {"limit": last}
    statement = sql.FIRST if last is None else sql.LAST
    rows = gate.read(chat.scope, "chat read", lambda tx: tx.last(statement, chat.at(**page, before=None)))
    return [packing.message(row) for row in (rows if last is None else rows[::-1])]


def get(gate: Gate, chat: Chat, message_id: str) -> Message | None:
    """One message by id, even if it is archived."""
    rows = gate.read(chat.scope, "chat get", lambda tx: tx.last(sql.BY_ID, chat.at(id=message_id, status=None)))
    return packing.message(rows[0]) if rows else None


def count(gate: Gate, chat: Chat, status: str | None) -> int:
    """The number of messages with a status, or of all."""
    [(count,)] = gate.read(chat.scope, "chat count", lambda tx: tx.last(sql.COUNT, chat.at(status=status)))
    return int(count)


def window(gate: Gate, chat: Chat, budget: windows.Budget, *, keep_system: bool) -> list[Message]:
    """The chat's leading system messages if `keep_system`, followed by the newest active messages that fit."""
    size = PAGE if budget.messages is None else min(PAGE, budget.messages + 1)

    def body(tx: Transaction) -> list[Message]:
        head, tail = tx.many([_page(chat, sql.FIRST, SYSTEM_PAGE), _page(chat, sql.LAST, size)])
        system = windows.leading(_messages_from(tx, chat, sql.FIRST, SYSTEM_PAGE, head)) if keep_system else []
        beyond = -1 if not system else system[-1].position or 0
        backwards = _messages_from(tx, chat, sql.LAST, size, tail)
        fresh = takewhile(lambda message: (message.position or 0) > beyond, backwards)
        return system + windows.newest(fresh, windows.reserve(system, budget))

    return gate.read(chat.scope, "chat window", body)


def _page(chat: Chat, statement: str, size: int, beyond: int | None = None) -> tuple[str, dict[str, Any]]:
    after, before = (beyond, None) if statement is sql.FIRST else (None, beyond)
    page = {"after": after, "before": before, "since": None, "status": "active", "limit": size, "offset": 0}
    return statement, chat.at(**page)


def _messages_from(tx: Transaction, chat: Chat, statement: str, size: int, rows: Rows) -> Iterator[Message]:
    """Active messages from one end, starting with the page `rows`. Later pages are read when they are needed."""
    while True:
        yield from (packing.message(row) for row in rows)
        if len(rows) < size:
            return
        size = PAGE
        rows = tx.rows(*_page(chat, statement, size, beyond=rows[-1][0]))


def infos(
    gate: Gate, scope: Scope, *, subject: str | None, session_id: str | None, limit: int | None, offset: int
) -> list[ChatInfo]:
    """Chats, the most recently written first."""
    values = {"tenant": scope.tenant, "subject": subject, "session": session_id, "limit": limit, "offset": offset}
    return [ChatInfo(*row) for row in gate.read(scope, "chats", lambda tx: tx.last(sql.SESSIONS, values))]


def configure(gate: Gate, chat: Chat, statement: str, values: dict[str, Any]) -> None:
    """Change a chat's properties. Raises NotFound."""

    def body() -> int:
        with gate.transaction(chat.scope, "chat configure") as tx:
            return tx.count(statement, chat.at(**values))

    if not gate.retrying(body):
        raise NotFound(f"chat {chat.session_id!r:.80} does not exist; its first message creates it")


@dataclass(frozen=True, slots=True)
class Sought:
    """A search of messages: the text, and the conditions on chats and messages."""

    text: str
    limit: int
    subject: str | None
    session_id: str | None
    roles: list[str] | None
    status: str | None


def search(gate: Gate, scope: Scope, sought: Sought) -> list[ChatHit]:
    """Messages that match words of the text, best first. Each chat is searched with its own configuration."""
    values: dict[str, Any] = {
        "tenant": scope.tenant,
        "session": sought.session_id,
        "subject": sought.subject,
        "roles": sought.roles,
        "status": sought.status,
        "limit": sought.limit,
        **words(sought.text),
    }

    def body(tx: Transaction) -> list[Rows]:
        configs = [row[0] for row in tx.rows(sql.TEXT_CONFIGS, values)]
        if not configs:
            return []
        return tx.many([(sql.SEARCH, values | {"text_config": config}) for config in configs], commit=True)

    found = gate.read(scope, "chat search", body)
    hits = [ChatHit(row[0], packing.message(row[2:]), row[1]) for rows in found for row in rows]
    # The sort is stable: within each configuration, rows are already ordered, with ties by newest.
    return sorted(hits, key=lambda hit: -hit.score)[: sought.limit]
