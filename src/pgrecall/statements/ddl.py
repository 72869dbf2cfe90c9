"""The statements that create what the schema declares, for code that recreates tables (partitions, Citus).

Revisions spell out their own. Types of pgvector are named without their schema, as in revisions.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.psycopg import dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from pgrecall.schema import GRANTS, SCHEMA, STORAGE, VIEWS, policies

_DIALECT: sa.Dialect = dialect()  # type: ignore[no-untyped-call]
#: A fixed order, so that the text is always the same.
_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")


def _text(element: sa.schema.ExecutableDDLElement) -> str:
    text = str(element.compile(dialect=_DIALECT)).strip()
    return " ".join(text.split()).replace("( ", "(").replace(" )", ")")


def create_table(table: sa.Table, partitioned_by: str = "") -> str:
    """Create a table with its primary key, checks and foreign keys."""
    return f"{_text(CreateTable(table))}{partitioned_by and f' PARTITION BY {partitioned_by}'}"


def completing(table: sa.Table) -> Iterator[str]:
    """Complete a new table: its columns' storage, and its indexes."""
    for (name, column), storage in STORAGE.items():
        if name == table.name:
            yield f"ALTER TABLE {SCHEMA}.{name} ALTER COLUMN {column} SET STORAGE {storage}"
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        yield _text(CreateIndex(index))


def foreign_keys(table: sa.Table) -> dict[str, str]:
    """A table's foreign keys: name -> the statement that adds it."""
    # Not by `AddConstraint`: once it was made from a constraint, CreateTable omits that constraint in this process.
    compiler = _DIALECT.ddl_compiler(_DIALECT, None)  # type: ignore[arg-type]
    return {
        str(constraint.name): f"ALTER TABLE {SCHEMA}.{table.name} ADD {' '.join(compiler.process(constraint).split())}"
        for constraint in sorted(table.foreign_key_constraints, key=lambda constraint: str(constraint.name))
    }


def drop_foreign_key(table: sa.Table, name: str) -> str:
    """Drop a foreign key, if it exists."""
    return f"ALTER TABLE {SCHEMA}.{table.name} DROP CONSTRAINT IF EXISTS {name}"


def force_row_security(name: str) -> list[str]:
    """Enable row-level security, also for the owner."""
    return [
        f"ALTER TABLE {SCHEMA}.{name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {SCHEMA}.{name} FORCE ROW LEVEL SECURITY",
    ]


def loosen_row_security(name: str) -> list[str]:
    """Disable row-level security."""
    return [
        f"ALTER TABLE {SCHEMA}.{name} NO FORCE ROW LEVEL SECURITY",
        f"ALTER TABLE {SCHEMA}.{name} DISABLE ROW LEVEL SECURITY",
    ]


def create_policies(name: str) -> list[str]:
    """Create a tenant table's policies."""
    return [
        f"CREATE POLICY {policy} ON {SCHEMA}.{name} TO {role} USING ({condition}) WITH CHECK ({condition})"
        for policy, (role, condition) in policies(name).items()
    ]


def drop_policies(name: str) -> list[str]:
    """Drop a tenant table's policies, if they exist."""
    return [f"DROP POLICY IF EXISTS {policy} ON {SCHEMA}.{name}" for policy in policies(name)]


def grants(name: str) -> list[str]:
    """Grant each role its rights on a relation, one statement per role."""
    return [
        f"GRANT {', '.join(p for p in _PRIVILEGES if p in privileges)} ON {SCHEMA}.{name} TO {role}"
        for role, privileges in GRANTS[name].items()
    ]


def drop_view(name: str) -> str:
    """Drop one of the schema's views."""
    return f"DROP VIEW {SCHEMA}.{name}"


def create_view(name: str) -> list[str]:
    """Create a view with its grants. Readers need their own rights on its tables."""
    query = VIEWS[name].rstrip(";")
    return [f"CREATE VIEW {SCHEMA}.{name} WITH (security_invoker = true) AS {query}", *grants(name)]
