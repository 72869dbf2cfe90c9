"""The database to import from, read through the driver in batches, in a read-only transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
import sqlalchemy as sa
from psycopg import sql

from pgrecall.errors import ConfigurationError, NotFound
from pgrecall.postgres.driver import wrapped
from pgrecall.postgres.engines import parse_url

#: Rows per batch, in reading and in writing.
BATCH = 1_000

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did. Of the `found` rows of the source, `written` are new or changed; `unchanged` existed.

    If searches of both databases were compared, `same` of `compared` results agree.
    """

    found: int
    written: int
    unchanged: int
    same: int = 0
    compared: int = 0
    dry_run: bool = False


class ForeignDatabase:
    """Another library's tables in one database; made by `opened`."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]], schema: str) -> None:
        self._connection = connection
        self._schema = schema

    def table(self, name: str) -> sql.Identifier:
        """The quoted name of a table, with its schema."""
        return sql.Identifier(self._schema, name)

    def columns(self, table: str) -> dict[str, str]:
        """The columns of a table and their types. Raises NotFound if there is no such table."""
        found = self.rows(
            sql.SQL(
                "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod) FROM pg_attribute a "
                "JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
                "WHERE n.nspname = %(schema)s AND c.relname = %(table)s AND a.attnum > 0 AND NOT a.attisdropped "
                "ORDER BY a.attnum"
            ),
            {"schema": self._schema, "table": table},
        )
        if not found:
            raise NotFound(f"table {table!r} does not exist in schema {self._schema!r}, or this login may not see it")
        return dict(found)

    def has(self, table: str) -> bool:
        """Whether the table exists."""
        try:
            return bool(self.columns(table))
        except NotFound:
            return False

    def rows(self, query: sql.SQL | sql.Composed, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        try:
            return self._connection.execute(query, values).fetchall()
        except psycopg.Error as exc:
            raise wrapped(exc) from exc

    def stream(
        self, query: sql.SQL | sql.Composed, values: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, read batch by batch."""
        try:
            with self._connection.cursor("pgrecall_import") as cursor:
                cursor.itersize = BATCH
                yield from cursor.execute(query, values)
        except psycopg.Error as exc:
            raise wrapped(exc) from exc


@contextmanager
def opened(url: str | sa.URL, schema: str = "public") -> Iterator[ForeignDatabase]:
    """Open a source; it is read in one snapshot. Raises Unavailable, ConfigurationError."""
    try:
        dsn = parse_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        connection = psycopg.connect(dsn, application_name="pgrecall import")
    except psycopg.Error as exc:
        raise wrapped(exc) from exc
    with connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        yield ForeignDatabase(connection, schema)


def vector(text: str | None, what: str) -> npt.NDArray[np.float32]:
    """Parse a vector as pgvector prints it. Raises ConfigurationError if it is NULL."""
    if text is None:
        raise ConfigurationError(f"{what} has no vector; expected one in every row. Import it by upsert with embed=")
    return np.fromstring(text[1:-1], dtype=np.float32, sep=",")


def counted(items: Iterator[Any], total: int, progress: Progress | None) -> Iterator[Any]:
    """The same items; reports every hundredth, and the last, to `progress`."""
    for number, item in enumerate(items, 1):
        yield item
        if progress is not None and (number % 100 == 0 or number == total):
            progress(number, total)


def batches(items: Iterator[Any], size: int = BATCH) -> Iterator[Sequence[Any]]:
    """Items in lists of at most `size`."""
    part: list[Any] = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part
