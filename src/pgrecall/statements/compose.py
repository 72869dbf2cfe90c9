"""Helpers for statements that SQLAlchemy composes: parameters, and the text that the driver runs."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.psycopg import dialect

_DIALECT = dialect()  # type: ignore[no-untyped-call]


class _Untyped(sa.types.UserDefinedType[Any]):
    """Leaves a parameter's type to a cast or a column; SQLAlchemy's own types would add `::VARCHAR`.

    Postgres has no operator text = varchar. It would use text = text, or another user's operator that matches better.
    """

    cache_ok = True


def bound(name: str) -> sa.BindParameter[Any]:
    """A parameter of the statement."""
    return sa.bindparam(name, type_=_Untyped())


def divided(one: Any, by: Any) -> Any:
    """``one / by`` without the cast to numeric that SQLAlchemy's own division adds."""
    return one.op("/", precedence=8)(by)


def compiled(statement: sa.sql.ClauseElement) -> str:
    """The statement's text for the driver."""
    return str(statement.compile(dialect=_DIALECT))
