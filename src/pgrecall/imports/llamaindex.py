"""Imports LlamaIndex's tables: vectors (`PGVectorStore`) and chats (`PostgresChatStore`, `SQLAlchemyChatStore`).

The adapter, which knows LlamaIndex's classes, reads nodes and messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import groupby
from typing import Any

from psycopg import sql

from pgrecall.errors import ConfigurationError
from pgrecall.extras import install_adapter
from pgrecall.imports.source import ForeignDatabase, Imported, Progress, batches, counted, vector
from pgrecall.imports.vectors import Only, Table, nearest_operator
from pgrecall.stores.tenant import Tenant
from pgrecall.types import Chunk, Distance, Document

#: The columns of each chat store's table.
_ARRAYS, _ROWS = {"key", "value"}, {"id", "key", "status", "data"}


def _adapter(module: str) -> Any:
    try:
        return import_module(f"llama_index.{module}")
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            "reading LlamaIndex's nodes and messages needs its adapter, which is missing; "
            + install_adapter("llama-index-pgrecall", "llamaindex")
        ) from exc


@dataclass(frozen=True, slots=True)
class Nodes(Table):
    """A table of `PGVectorStore`. If it has several rows for one node, the last one counts."""

    found: dict[str, Document] = field(default_factory=dict)

    @property
    def documents(self) -> list[Document]:
        """The sources of the nodes; complete when `chunks` has been read."""
        return list(self.found.values())

    def chunks(self) -> Iterator[Chunk]:
        """The rows as chunks, in the order in which they were written."""
        convert = _adapter("vector_stores.pgrecall.nodes").from_peer
        query = sql.SQL("SELECT node_id, text, metadata_, embedding::text FROM {} WHERE {} ORDER BY id")
        for node_id, text, metadata, embedding in self.source.stream(
            query.format(self.source.table(self.name), self.where), self.values
        ):
            chunk, document = convert(node_id, text, metadata, vector(embedding, f"node {node_id!r:.80}"))
            if document is not None:
                self.found[document.id] = document
            yield chunk

    def nearest(self, chunk_id: str, distance: Distance, k: int) -> list[str]:
        """The ids of the `k` nodes nearest to a node's vector, by an exact scan."""
        query = sql.SQL(
            "WITH last AS (SELECT DISTINCT ON (node_id) node_id, embedding FROM {table} WHERE {where} "
            "ORDER BY node_id, id DESC) "
            "SELECT node_id FROM last ORDER BY (embedding {operator} (SELECT embedding FROM last WHERE "
            "node_id = %(chunk)s)) + 0, node_id LIMIT %(k)s"
        ).format(table=self.source.table(self.name), where=self.where, operator=nearest_operator(distance))
        return [row[0] for row in self.source.rows(query, {**self.values, "chunk": chunk_id, "k": str(k)})]


def table(source: ForeignDatabase, name: str, *, only: Only | None = None) -> Nodes:
    """A table of `PGVectorStore`, named with or without the prefix "data_".

    Raises:
        NotFound: The table does not exist.
        ConfigurationError: The table has other columns.
    """
    if not source.has(name) and source.has(f"data_{name}"):
        name = f"data_{name}"
    columns = source.columns(name)
    if missing := {"id", "node_id", "text", "metadata_", "embedding"} - set(columns):
        raise ConfigurationError(
            f"table {name!r} has no column {', '.join(sorted(missing))}; expected a table of "
            f"llama-index-vector-stores-postgres. It has {', '.join(columns)}"
        )
    if only is None:
        return Nodes(source, name, "node_id", "text", "metadata_", (), (), {})
    condition = sql.SQL("metadata_::jsonb ->> %(only_key)s = %(only_value)s").format()
    values = {"only_key": only.key, "only_value": only.value}
    return Nodes(source, name, "node_id", "text", "metadata_", (), (condition,), values)


def load_chats(
    tenant: Tenant, source: ForeignDatabase, name: str, *, dry_run: bool = False, progress: Progress | None = None
) -> Imported:
    """Import each key's messages into a chat of the tenant, in their order; archived messages stay archived.

    Each message gets an id from its row, so that the import can be repeated.

    Args:
        tenant: The tenant to import into.
        source: The database to import from.
        name: The chat table, with or without the prefix "data_".
        dry_run: Only count the messages; by default False.
        progress: Called with the number of messages done and their total.

    Raises:
        NotFound: The table does not exist.
        ConfigurationError: The table has other columns, or llama-index-pgrecall is not installed.
        InvalidInput: A row is not a message.
    """
    if not source.has(name) and source.has(f"data_{name}"):
        name = f"data_{name}"
    columns = set(source.columns(name))
    if columns >= _ROWS:
        query = sql.SQL("SELECT key, id, status, data FROM {} ORDER BY key, timestamp, id")
    elif columns >= _ARRAYS:
        query = sql.SQL(
            "SELECT t.key, m.n, 'active', m.data FROM {} t CROSS JOIN LATERAL "
            "unnest(t.value) WITH ORDINALITY AS m (data, n) ORDER BY t.key, m.n"
        )
    else:
        raise ConfigurationError(
            f"table {name!r} has the columns {', '.join(sorted(columns))}; expected {', '.join(sorted(_ARRAYS))} "
            f"(PostgresChatStore) or {', '.join(sorted(_ROWS))} (SQLAlchemyChatStore)"
        )
    chosen = query.format(source.table(name))
    total = int(source.rows(sql.SQL("SELECT count(*) FROM ({}) found").format(chosen))[0][0])
    if dry_run:
        return Imported(total, 0, 0, dry_run=True)
    convert = _adapter("storage.chat_store.pgrecall.messages").from_dict
    written = unchanged = 0
    for key, group in groupby(counted(source.stream(chosen), total, progress), key=lambda row: row[0]):
        chat = tenant.chat(key)
        before, given = chat.count(None), 0
        messages = (replace(convert(data), id=f"{name}:{number}", status=status) for _, number, status, data in group)
        for part in batches(messages):
            given += len(chat.append(part))
        new = chat.count(None) - before
        written, unchanged = written + new, unchanged + given - new
    return Imported(total, written, unchanged)
