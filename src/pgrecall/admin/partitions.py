"""Hash partitions by tenant. Their number is chosen once, while the tables are empty."""

from __future__ import annotations

import sqlalchemy as sa

from pgrecall.errors import ConfigurationError, InvalidInput
from pgrecall.revisions import SETTINGS, WITH_PGVECTOR
from pgrecall.statements import partitions as statements


def check_number(count: int) -> int:
    """Return a valid number of partitions. Raises InvalidInput."""
    if isinstance(count, bool) or not isinstance(count, int) or not 2 <= count <= statements.MOST:
        raise InvalidInput(f"the number of partitions is {count!r}; expected a number from 2 to {statements.MOST:,}")
    return count


def number(connection: sa.Connection) -> int | None:
    """How many partitions each large table has; None if the tables are not partitioned or do not exist."""
    found: int | None = connection.exec_driver_sql(statements.COUNT).scalar()
    return found


def partition(connection: sa.Connection, count: int) -> None:
    """Recreate the large tables with `count` partitions each. They must be empty and at the newest revision.

    Does nothing if they already have that many. Raises: ConfigurationError if they have another number, or rows.
    """
    found = number(connection)
    if found == count:
        return
    if found is not None:
        raise ConfigurationError(
            f"the tables have {found} partitions, and the number cannot be changed. For {count}, create a new database "
            f"with `pgrecall db upgrade --partitions {count}` and move the rows (see docs/scaling.md)"
        )
    connection.exec_driver_sql(WITH_PGVECTOR)
    for statement in statements.loosen():
        connection.exec_driver_sql(statement)
    if connection.scalar(statements.FILLED):
        raise ConfigurationError(
            "the tables have rows, but only empty tables can be partitioned. Create a new database with "
            f"`pgrecall db upgrade --partitions {count}` and move the rows (see docs/scaling.md)"
        )
    for statement in statements.make(count):
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql(SETTINGS)


def sql(count: int) -> str:
    """The SQL that `partition` runs on empty tables, for an administrator to run after the upgrade's transaction."""
    lines = [WITH_PGVECTOR.strip(), *statements.make(count), SETTINGS.strip()]
    return "".join(f"{line};\n" for line in ("BEGIN", *lines, "COMMIT"))
