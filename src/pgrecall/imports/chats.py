"""Imports the chat tables of langchain-postgres (`PostgresChatMessageHistory`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from itertools import groupby
from typing import Any

from psycopg import sql

from pgrecall.errors import ConfigurationError
from pgrecall.extras import install_adapter
from pgrecall.imports.source import ForeignDatabase, Imported, Progress, batches, counted
from pgrecall.messages import Message
from pgrecall.stores.tenant import Tenant


def load(
    tenant: Tenant, source: ForeignDatabase, table: str, *, dry_run: bool = False, progress: Progress | None = None
) -> Imported:
    """Import each session's messages into a chat of the tenant with the same session id, in their order.

    A message without an id gets one from its row, so that the import can be repeated; messages that exist are not
    written again.

    Args:
        tenant: The tenant to import into.
        source: The database to import from.
        table: The chat table.
        dry_run: Only count the messages; by default False.
        progress: Called with the number of messages done and their total.

    Raises:
        NotFound: The table does not exist.
        ConfigurationError: The table has other columns, or langchain-pgrecall is not installed.
        InvalidInput: A row is not a message.
    """
    columns = source.columns(table)
    if missing := {"id", "session_id", "message"} - set(columns):
        raise ConfigurationError(
            f"table {table!r} has no column {', '.join(sorted(missing))}; expected a table of langchain-postgres' "
            "PostgresChatMessageHistory"
        )
    named = source.table(table)
    total = int(source.rows(sql.SQL("SELECT count(*) FROM {}").format(named))[0][0])
    if dry_run:
        return Imported(total, 0, 0, dry_run=True)
    convert = _converter()
    query = sql.SQL("SELECT session_id::text, id, message FROM {} ORDER BY session_id::text, id").format(named)
    rows = counted(source.stream(query), total, progress)
    written = unchanged = 0
    for session_id, group in groupby(rows, key=lambda row: row[0]):
        chat = tenant.chat(session_id)
        before = chat.count(None)
        given = 0
        for part in batches(_messages(group, table, convert)):
            given += len(chat.append(part))
        new = chat.count(None) - before
        written += new
        unchanged += given - new
    return Imported(total, written, unchanged)


def _messages(rows: Iterator[tuple[Any, ...]], table: str, convert: Callable[[Any], Message]) -> Iterator[Message]:
    for _, number, stored in rows:
        message = convert(stored)
        yield message if message.id is not None else replace(message, id=f"{table}:{number}")


def _converter() -> Callable[[Any], Message]:
    """The adapter's function that reads a message of LangChain."""
    try:
        adapter = import_module("langchain_pgrecall.messages")
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            "reading LangChain's messages needs its adapter, which is missing; "
            + install_adapter("langchain-pgrecall", "langchain")
        ) from exc
    return adapter.from_dict  # type: ignore[no-any-return]
