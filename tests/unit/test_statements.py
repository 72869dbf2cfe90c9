"""The SQL itself: every reference to a tenant's table says whose rows it means.

So row-level security costs nothing, a mistake in it would not show one tenant's rows to another, and Citus can send
each statement to the one shard that has the tenant. Read as text, because that is what runs.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest

from pgrecall.schema import DUE, TENANT_TABLES, chunk_vectors
from pgrecall.statements import ddl
from support.statements import STATEMENTS

TABLES = "|".join(sorted((table.name for table in TENANT_TABLES), key=len, reverse=True))
KEYWORDS = "WHERE|SET|ON|ORDER|GROUP|USING|FOR|LIMIT|JOIN|LEFT|CROSS|UNION"
REFERENCE = re.compile(
    rf"(?:FROM|JOIN|UPDATE|USING|,)\s+pgrecall\.({TABLES})\b(?!\.)(?:\s+(?:AS\s+)?(?!(?:{KEYWORDS})\b)(\w+))?"
)
INSERT = re.compile(rf"INSERT INTO pgrecall\.(?:{TABLES})\b")
INSERT_OF_TENANT = re.compile(
    rf"INSERT INTO pgrecall\.(?:{TABLES})(?: AS \w+)?\s+\(tenant_id\b[^)]*\)\s+(?:SELECT|VALUES \()\s*%\(tenant\)s"
)
#: Of no tenant: what only the maintenance role runs.
ACROSS_TENANTS = {
    "registry.TENANTS",
    "registry.SPACE_USE",
    "registry.DROP_SPACE",
    "graphs.COLLECTIONS",
    "graphs.PARTS",
} | {f"due {table}.{column}" for table, columns in DUE.items() for column in columns}


def unbound(sql: str) -> list[str]:
    """The references to tenant tables that no `tenant_id = the tenant` belongs to."""
    references = Counter((table, alias) for table, alias in REFERENCE.findall(sql))
    missing = []
    for (table, alias), count in references.items():
        name = re.escape(alias) if alias else rf"(?:pgrecall\.)?{table}"
        said = len(re.findall(rf"(?<![\w.]){name}\.tenant_id = %\(tenant\)s", sql))
        if not alias:
            said += len(re.findall(r"(?<![\w.])tenant_id = %\(tenant\)s", sql))
        if said < count:
            missing.append(f"{table} {alias}".strip())
    if len(INSERT.findall(sql)) != len(INSERT_OF_TENANT.findall(sql)):
        missing.append("an INSERT")
    return missing


def test_each_statement_names_the_tenant_for_each_table():
    """No table is read, joined, locked, changed or filled without the tenant bound at that very place."""
    found = {name: missing for name, sql in STATEMENTS.items() if (missing := unbound(sql))}
    assert found.keys() <= ACROSS_TENANTS, found
    seen = {table for sql in STATEMENTS.values() for table, _ in REFERENCE.findall(sql)}
    assert seen == set(TABLES.split("|")) and len(STATEMENTS) > 250


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 FROM pgrecall.chunks WHERE collection = %(collection)s",
        "SELECT 1 FROM pgrecall.chunks c JOIN pgrecall.documents d ON d.id = c.doc_id WHERE c.tenant_id = %(tenant)s",
        "WITH x AS (SELECT id FROM pgrecall.chunks) DELETE FROM pgrecall.chunks USING x "
        "WHERE pgrecall.chunks.tenant_id = %(tenant)s",
        "SELECT 1 FROM pgrecall.chunks a, pgrecall.chunks b WHERE a.tenant_id = %(tenant)s AND b.id = a.id",
        "INSERT INTO pgrecall.chunks (tenant_id, id) SELECT t, i FROM unnest(%(t)s) AS u (t, i)",
        "UPDATE pgrecall.tenants SET erased_at = NULL",
    ],
)
def test_a_table_without_the_tenant_is_seen(sql):
    """The check above can fail: each of these lacks the tenant in one place."""
    assert unbound(sql)


def test_a_table_is_made_with_its_foreign_keys_whatever_was_asked_before():
    """SQLAlchemy's AddConstraint takes a constraint out of every later CREATE TABLE."""
    made = ddl.create_table(chunk_vectors)
    assert ddl.foreign_keys(chunk_vectors) and "FOREIGN KEY" in made
    assert ddl.create_table(chunk_vectors) == made
