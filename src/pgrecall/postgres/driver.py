"""The driver: the connections that pgrecall accepts, and pgrecall's errors for those of the driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import AsyncClientCursor, ClientCursor
from psycopg.rows import tuple_row

from pgrecall import errors


def refuse_unfit(raw: Any) -> None:
    """Refuse a new connection of a caller's engine if its settings would change what is written or read.

    Raises: ConfigurationError.
    """
    # Arrays are sent as UTF-8. Under another client encoding the server would store wrong characters, without error.
    if raw.info.encoding != "utf-8":
        raise errors.ConfigurationError(
            f"the engine's connections have the client encoding {raw.info.encoding!r}; pgrecall requires UTF-8: "
            "create_engine(…, connect_args={'client_encoding': 'utf8'})"
        )
    if raw.row_factory is not tuple_row or issubclass(raw.cursor_factory, ClientCursor | AsyncClientCursor):
        raise errors.ConfigurationError(
            "the engine's connections have a custom row_factory or cursor_factory; pgrecall requires psycopg's "
            "tuple_row and server-side binding. Pass an engine without them"
        )


@contextmanager
def driver_errors() -> Iterator[None]:
    """Raise pgrecall's error for an error of the driver."""
    try:
        yield
    except psycopg.Error as exc:
        raise wrapped(exc) from exc
    except sa.exc.DBAPIError as exc:
        raise wrapped(exc.orig or exc) from exc
    except sa.exc.TimeoutError as exc:
        raise errors.Unavailable(
            f"timed out waiting for a connection from the pool ({exc}); increase pool_size or release connections "
            "sooner"
        ) from exc


def wrapped(exc: BaseException) -> errors.PgRecallError:
    """The pgrecall error for an error of the driver. Postgres' DETAIL is left out, because it quotes rows."""
    state = getattr(exc, "sqlstate", None) or ""
    diag = getattr(exc, "diag", None)
    text = (diag.message_primary if diag is not None else None) or " ".join(str(exc).split("\nDETAIL")[0].split())
    hint = f" {diag.message_hint}" if diag is not None and diag.message_hint else ""
    # 23503: the document or chunk that a write refers to was deleted between two of the write's statements.
    if state in ("40001", "40P01", "55P03", "23503"):
        return errors.Conflict(f"{text}; the transaction was rolled back; call again")
    if state in ("42P01", "3F000", "42703") or (state in ("42704", "22023") and "role" in text):
        return errors.MigrationRequired(
            f"{text}; the database does not have the schema of this version of pgrecall. Run: pgrecall db upgrade"
        )
    if state == "42501":
        return errors.ConfigurationError(f"{text}.{hint} Run `pgrecall doctor` to see which rights this login lacks")
    if state in ("22021", "22P05"):
        return errors.InvalidInput(f"{text}; remove the character")
    if (state[:2] in ("08", "57") and state != "57014") or (isinstance(exc, psycopg.OperationalError) and not state):
        return errors.Unavailable(
            f"the database can't be reached, or closed the connection ({text}); check the server and the URL, then "
            "call again"
        )
    if state == "P0001":
        return errors.ConfigurationError(f"{text}.{hint}")
    return errors.DatabaseError(f"{text} (SQLSTATE {state or 'none'}){hint}")
