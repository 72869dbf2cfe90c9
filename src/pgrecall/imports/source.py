"""The database that is imported from: read only, on the driver, in batches; its tables are nobody's here."""

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

#: Rows that are read, and then written, at once.
BATCH = 1_000

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did. `found` rows in the source; of them `written`, or there already as they are (`unchanged`).

    `same` of `compared` results are the same, where questions were asked of both.
    """

    found: int
    written: int
    unchanged: int
    same: int = 0
    compared: int = 0
    dry_run: bool = False


class ForeignDatabase:
    """Tables of another library, in one database; made by `opened`."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]], schema: str) -> None:
        self._connection = connection
        self._schema = schema

    def table(self, name: str) -> sql.Identifier:
        """A table's quoted name, its schema's first."""
        return sql.Identifier(self._schema, name)

    def columns(self, table: str) -> dict[str, str]:
        """A table's columns and their types. Raises NotFound where there is no such table."""
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
            raise NotFound(f"there is no table {table!r} in schema {self._schema!r} that this login may see")
        return dict(found)

    def has(self, table: str) -> bool:
        """Whether there is such a table."""
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
        """The rows of a query, read as they are needed."""
        try:
            with self._connection.cursor("pgrecall_import") as cursor:
                cursor.itersize = BATCH
                yield from cursor.execute(query, values)
        except psycopg.Error as exc:
            raise wrapped(exc) from exc


@contextmanager
def opened(url: str | sa.URL, schema: str = "public") -> Iterator[ForeignDatabase]:
    """A source, in one snapshot: what is written meanwhile is not seen. Raises Unavailable, ConfigurationError."""
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
    """A vector as pgvector prints it. Raises ConfigurationError where there is none."""
    if text is None:
        raise ConfigurationError(f"{what} has no vector; import it with an embedding function of your own")
    return np.fromstring(text[1:-1], dtype=np.float32, sep=",")


def counted(items: Iterator[Any], total: int, progress: Progress | None) -> Iterator[Any]:
    """The same items, telling progress how many have passed."""
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
