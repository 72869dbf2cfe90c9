"""Imports LangGraph's long-term memory (`PostgresStore`) as facts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psycopg import sql

from pgrecall.errors import ConfigurationError
from pgrecall.facts import Fact, FactKey
from pgrecall.imports.source import ForeignDatabase, Imported, Progress, batches, counted, vector
from pgrecall.stores.tenant import Tenant
from pgrecall.types import EmbedModel, EmbedSpace

#: The kind of the facts; LangChain's adapter reads only this one.
KIND = "item"


def load(
    tenant: Tenant,
    source: ForeignDatabase,
    *,
    table: str = "store",
    model: EmbedModel | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Imported:
    """Import a store's items into a tenant's memory: namespaces, keys, values and lifetimes.

    Expired items are skipped. An item whose value exists already is not written again, so the import can be repeated.

    Args:
        tenant: The tenant to import into.
        source: The database to import from.
        table: The table of the items; by default "store".
        model: The model of the vectors. By default vectors are not imported.
        dry_run: Only count the items; by default False.
        progress: Called with the number of items done and their total.

    Raises:
        NotFound: The table does not exist.
        ConfigurationError: The table has other columns.
        InvalidInput: An item can't be stored as a fact.
    """
    columns = source.columns(table)
    if missing := {"prefix", "key", "value", "expires_at", "ttl_minutes"} - set(columns):
        raise ConfigurationError(
            f"table {table!r} has no column {', '.join(sorted(missing))}; expected a table of LangGraph's PostgresStore"
        )
    count = sql.SQL("SELECT count(*) FROM {} WHERE expires_at IS NULL OR expires_at > now()")
    total = int(source.rows(count.format(source.table(table)))[0][0])
    if dry_run or not total:
        return Imported(total, 0, 0, dry_run=dry_run)
    vectors = f"{table}_vectors" if model is not None and source.has(f"{table}_vectors") else None
    rows = counted(source.stream(_query(source, table, vectors)), total, progress)
    space: EmbedSpace | None = None
    written = unchanged = 0
    for part in batches(_facts(rows)):
        if space is None and model is not None:
            lengths = [len(v) for fact in part for v in (fact.embedding or {}).values()]
            space = model.space(lengths[0]) if lengths else None
        memory = tenant.memory(actor="pgrecall import", space=space)
        held = memory.get_facts([FactKey(None, KIND, f.key, f.namespace) for f in part], refresh=False)
        new = [f for f, there in zip(part, held, strict=True) if there is None or there.value != f.value]
        memory.put_facts(new)
        written += len(new)
        unchanged += len(part) - len(new)
    return Imported(total, written, unchanged)


def _query(source: ForeignDatabase, table: str, vectors: str | None) -> sql.Composed:
    found = sql.SQL("NULL")
    if vectors is not None:
        found = sql.SQL(  # type: ignore[assignment]
            "(SELECT jsonb_object_agg(v.field_name, v.embedding::text) FROM {} v "
            "WHERE v.prefix = s.prefix AND v.key = s.key)"
        ).format(source.table(vectors))
    return sql.SQL(
        "SELECT s.prefix, s.key, s.value, s.expires_at, s.ttl_minutes, {} FROM {} s "
        "WHERE s.expires_at IS NULL OR s.expires_at > now() ORDER BY s.prefix, s.key"
    ).format(found, source.table(table))


def _facts(rows: Iterator[tuple[Any, ...]]) -> Iterator[Fact]:
    for prefix, key, value, expires_at, ttl_minutes, vectors in rows:
        embedding = {field: vector(text, f"item {key!r:.80}") for field, text in (vectors or {}).items()}
        life = {"ttl": ttl_minutes * 60} if ttl_minutes else {"expires_at": expires_at}
        yield Fact(
            *(None, KIND, key, value),
            namespace=tuple(prefix.split(".")),
            embedding=embedding or None,
            embed_texts={},
            refresh_on_read=bool(ttl_minutes),
            **life,
        )
