"""Names of the schema, and columns and checks that several tables have."""

from __future__ import annotations

import sqlalchemy as sa

SCHEMA = "pgrecall"
APP_ROLE = "pgrecall_app"
MAINTENANCE_ROLE = "pgrecall_maintenance"
TENANT_SETTING = "pgrecall.tenant_id"

metadata = sa.MetaData(schema=SCHEMA)

#: Sorted by code point, so that pages and locks follow the primary key; else each page would sort its whole collection.
ID = sa.Text(collation="C")


def created_at() -> sa.Column[object]:
    """A column for when the row was written, by the server's clock."""
    return sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False, server_default=sa.text("now()"))


def bytes_cap(column: str, cap: int, name: str) -> sa.CheckConstraint:
    """A check that a text has 1 to `cap` bytes."""
    # Conditions are written as Postgres prints them, so that the drift check can compare them.
    return sa.CheckConstraint(f"octet_length({column}) >= 1 AND octet_length({column}) <= {cap}", name=name)
