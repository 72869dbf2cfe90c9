"""Hash partitions by tenant: chosen when the tables are empty, for as long as they live."""

from __future__ import annotations

import sqlalchemy as sa

from pgrecall.errors import ConfigurationError, InvalidInput
from pgrecall.revisions import SETTINGS, WITH_PGVECTOR
from pgrecall.statements import partitions as statements


def check_number(count: int) -> int:
    """The number of partitions, or InvalidInput."""
    if isinstance(count, bool) or not isinstance(count, int) or not 2 <= count <= statements.MOST:
        raise InvalidInput(f"{count!r} partitions; expected a number from 2 to {statements.MOST:,}")
    return count


def number(connection: sa.Connection) -> int | None:
    """How many partitions the large tables have; None where each is one table, or there is none."""
    found: int | None = connection.exec_driver_sql(statements.COUNT).scalar()
    return found


def partition(connection: sa.Connection, count: int) -> None:
    """Make the large tables anew, which are empty and at the newest revision, with `count` partitions each.

    Nothing where they have as many. Raises: ConfigurationError where they have another number of them, or rows.
    """
    found = number(connection)
    if found == count:
        return
    if found is not None:
        raise ConfigurationError(
            f"the tables have {found} partitions; their number is chosen once. For {count}, make a new database with "
            f"`pgrecall db upgrade --partitions {count}` and move the rows: docs/scaling.md tells how"
        )
    connection.exec_driver_sql(WITH_PGVECTOR)
    for statement in statements.loosen():
        connection.exec_driver_sql(statement)
    if connection.scalar(statements.FILLED):
        raise ConfigurationError(
            "the tables have rows, and a table becomes partitioned only while it is empty: make a new database with "
            f"`pgrecall db upgrade --partitions {count}` and move the rows: docs/scaling.md tells how"
        )
    for statement in statements.make(count):
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql(SETTINGS)


def sql(count: int) -> str:
    """What `partition` runs on empty tables, for an administrator, in the transaction after the upgrade's."""
    lines = [WITH_PGVECTOR.strip(), *statements.make(count), SETTINGS.strip()]
    return "".join(f"{line};\n" for line in ("BEGIN", *lines, "COMMIT"))
