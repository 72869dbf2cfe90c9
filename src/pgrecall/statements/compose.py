"""What statements that SQLAlchemy composes are made with: parameters, and the text that the driver runs."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.psycopg import dialect

_DIALECT = dialect()  # type: ignore[no-untyped-call]


class _Untyped(sa.types.UserDefinedType[Any]):
    """Leaves the type to the cast around it or the column beside it: SQLAlchemy's own would add `::VARCHAR`.

    text = varchar is no operator of Postgres' own: it would take text = text, or what others made that fits better.
    """

    cache_ok = True


def bound(name: str) -> sa.BindParameter[Any]:
    """A parameter of the statement."""
    return sa.bindparam(name, type_=_Untyped())


def divided(one: Any, by: Any) -> Any:
    """``one / by`` without the cast to numeric that SQLAlchemy's own division adds."""
    return one.op("/", precedence=8)(by)


def compiled(statement: sa.sql.ClauseElement) -> str:
    """The statement as the driver takes it."""
    return str(statement.compile(dialect=_DIALECT))
