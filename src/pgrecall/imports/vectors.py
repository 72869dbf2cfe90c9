"""Imports the vector tables of langchain-postgres: one for each `PGVectorStore`, or the two of the older `PGVector`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from psycopg import sql

from pgrecall.errors import ConfigurationError, InvalidInput, NotFound
from pgrecall.imports.source import ForeignDatabase, Imported, Progress, counted, vector
from pgrecall.stores.tenant import Tenant
from pgrecall.types import Chunk, Distance, Document, EmbedModel, EmbedSpace

_OPERATORS: dict[Distance, sql.SQL] = {"cosine": sql.SQL("<=>"), "l2": sql.SQL("<->"), "ip": sql.SQL("<#>")}
_LEGACY = "langchain_pg_embedding"


class Only(NamedTuple):
    """Restricts an import to the rows whose metadata key or column `key` has the text `value`."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Table:
    """A store's table and the names of its columns; `extra` columns are imported as metadata."""

    source: ForeignDatabase
    name: str
    id: str
    text: str
    metadata: str | None
    extra: tuple[str, ...]
    only: tuple[sql.Composed, ...]
    values: dict[str, str]

    @property
    def documents(self) -> Sequence[Document]:
        """The sources of the rows; complete when `chunks` has been read."""
        return ()

    @property
    def where(self) -> sql.Composed:
        """The condition that selects the rows."""
        return sql.SQL(" AND ").join([sql.SQL("true"), *self.only])

    def count(self) -> int:
        """How many rows there are."""
        query = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(self.source.table(self.name), self.where)
        return int(self.source.rows(query, self.values)[0][0])

    def chunks(self) -> Iterator[Chunk]:
        """The rows as chunks, ordered by id."""
        metadata = sql.SQL("'{}'::jsonb") if self.metadata is None else sql.Identifier(self.metadata)
        columns = [sql.Identifier(column) for column in self.extra]
        extra = sql.SQL("to_jsonb(ARRAY[]::text[])")
        if columns:
            extra = sql.SQL("jsonb_build_array({})").format(sql.SQL(", ").join(columns))  # type: ignore[assignment]
        query = sql.SQL("SELECT {}::text, {}, embedding::text, {}, {} FROM {} WHERE {} ORDER BY {}::text").format(
            *(sql.Identifier(self.id), sql.Identifier(self.text), metadata, extra),
            *(self.source.table(self.name), self.where, sql.Identifier(self.id)),
        )
        for chunk_id, text, embedding, found, more in self.source.stream(query, self.values):
            given = dict(found or {}) | {k: v for k, v in zip(self.extra, more, strict=True) if v is not None}
            yield Chunk(chunk_id, text or "", vector(embedding, f"row {chunk_id!r:.80}"), metadata=given)

    def nearest(self, chunk_id: str, distance: Distance, k: int) -> list[str]:
        """The ids of the `k` rows nearest to a row's vector, by an exact scan."""
        named = {"table": self.source.table(self.name), "id": sql.Identifier(self.id), "where": self.where}
        query = sql.SQL(
            "SELECT {id}::text FROM {table} WHERE {where} ORDER BY (embedding {operator} (SELECT embedding "
            "FROM {table} WHERE {id}::text = %(chunk)s AND {where} LIMIT 1)) + 0, {id}::text LIMIT %(k)s"
        ).format(operator=nearest_operator(distance), **named)
        return [row[0] for row in self.source.rows(query, {**self.values, "chunk": chunk_id, "k": str(k)})]


def nearest_operator(distance: Distance) -> sql.SQL:
    """pgvector's operator for a distance."""
    return _OPERATORS[distance]


def table(source: ForeignDatabase, name: str, *, collection: str | None = None, only: Only | None = None) -> Table:
    """A table of `PGVectorStore`, or (if its name is "langchain_pg_embedding") a collection of `PGVector`.

    Raises:
        NotFound: The table does not exist, or it has no column and no metadata for `only`.
        ConfigurationError: The table has other columns.
        InvalidInput: The table is that of `PGVector`, and no collection was given.
    """
    columns = source.columns(name)
    conditions: list[sql.Composed] = []
    values: dict[str, str] = {}
    if name == _LEGACY:
        if collection is None:
            known = sql.SQL("SELECT name FROM {} ORDER BY 1").format(source.table("langchain_pg_collection"))
            names = ", ".join(row[0] for row in source.rows(known))
            raise InvalidInput(f"no collection of PGVector was given; expected one of: {names or 'none exist'}")
        made = sql.SQL("collection_id = (SELECT uuid FROM {} WHERE name = %(collection)s)")
        conditions.append(made.format(source.table("langchain_pg_collection")))
        values["collection"] = collection
        layout = ("id" if "id" in columns else "custom_id", "document", "cmetadata")
    else:
        layout = ("langchain_id", "content", "langchain_metadata")
    missing = [column for column in (*layout[:2], "embedding") if column not in columns]
    if missing:
        raise ConfigurationError(
            f"table {name!r} has no column {', '.join(missing)}; expected a table of langchain-postgres. It has "
            f"{', '.join(columns)}"
        )
    metadata = layout[2] if layout[2] in columns else None
    known_columns = {*layout, "embedding", "collection_id", "uuid", "custom_id", "content_tsv"}
    extra = tuple(column for column in columns if column not in known_columns) if name != _LEGACY else ()
    if only is not None:
        conditions.append(_matching(only, extra, metadata))
        values |= {"only_key": only.key, "only_value": only.value}
    return Table(source, name, layout[0], layout[1], metadata, extra, tuple(conditions), values)


def _matching(only: Only, extra: tuple[str, ...], metadata: str | None) -> sql.Composed:
    if only.key in extra:
        return sql.SQL("{}::text = %(only_value)s").format(sql.Identifier(only.key))
    if metadata is None:
        raise NotFound(f"the table has neither a column {only.key!r} nor JSON metadata")
    return sql.SQL("{}::jsonb ->> %(only_key)s = %(only_value)s").format(sql.Identifier(metadata))


def load(
    tenant: Tenant,
    rows: Table,
    collection: str,
    model: EmbedModel,
    *,
    text_config: str | None = None,
    dry_run: bool = False,
    questions: int = 20,
    progress: Progress | None = None,
) -> Imported:
    """Import a store's rows into a tenant's collection: ids, texts, metadata, and vectors as they are.

    The import commits every 1,000 rows. If it is interrupted, repeat it; rows that exist are not written again.
    Afterwards the vectors of some rows are searched in both databases, and the ids of the ten nearest are compared.

    Args:
        tenant: The tenant to import into.
        rows: The table to import; see `table`.
        collection: The collection to import into.
        model: The model of the vectors.
        text_config: The text search configuration of a new collection. By default it has no full-text search.
        dry_run: Only count the rows; by default False.
        questions: How many rows to compare afterwards; by default 20.
        progress: Called with the number of rows done and their total.

    Raises:
        ConfigurationError: A row has no vector.
        InvalidInput: A row can't be stored.
        EmbedSpaceMismatch: The collection exists with another space.
        TenantErased: The tenant was deleted.
        Unavailable: The database cannot be reached.
    """
    total = rows.count()
    first = next(rows.chunks(), None)
    if dry_run or first is None:
        return Imported(total, 0, 0, dry_run=dry_run)
    assert first.embedding is not None
    space: EmbedSpace = model.space(len(first.embedding))
    store = tenant.vectors(collection, space, text_config=text_config)
    result = store.upsert(counted(rows.chunks(), total, progress), commit_every=1_000)
    if rows.documents:
        store.upsert([], documents=rows.documents)
    same = compared = 0
    step = max(1, total // max(questions, 1))
    asked = result.ids[::step][:questions]
    for chunk in store.get(asked, with_embeddings=True):
        assert chunk.embedding is not None
        wanted = rows.nearest(chunk.id, space.distance, 10)
        found = {hit.chunk_id for hit in store.query(chunk.embedding, len(wanted))}
        same += len(found & set(wanted))
        compared += len(wanted)
    return Imported(total, result.written, result.unchanged, same, compared)
