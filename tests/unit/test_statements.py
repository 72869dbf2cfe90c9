"""The SQL itself: every reference to a tenant's table says whose rows it means.

So row-level security costs nothing, a mistake in it would not show one tenant's rows to another, and Citus can send
each statement to the one shard that has the tenant. Read as text, because that is what runs.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest

from pgrecall import F
from pgrecall.filters.keys import Key, lookup
from pgrecall.schema import ACTORS, DUE, SUBJECTS, TENANT_TABLES
from pgrecall.statements import deletes, erasure, facts, graphs, keys, reads, recall, records, registry, search, writes
from pgrecall.statements.reads import Where
from pgrecall.statements.search import Form, Graph

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
ACROSS_TENANTS = {"registry.TENANTS", "registry.SPACE_USE", "registry.DROP_SPACE", "graphs.COLLECTIONS"} | {
    f"due {table}.{column}" for table, columns in DUE.items() for column in columns
}

FORMS = [
    *(Form(distance) for distance in ("cosine", "l2", "ip")),
    Form("cosine", graph=Graph(3, 8, 2), with_vectors=True),
    Form("cosine", "sparse", counts=True),
    Form("l2", "hybrid", fusion="reciprocal", with_vectors=True),
    Form("ip", "hybrid", graph=Graph(3, 8, 2)),
]


def texts():
    for module in (deletes, erasure, facts, graphs, keys, recall, records, registry, writes, reads):
        short = module.__name__.rpartition(".")[2]
        for name, value in vars(module).items():
            if name.isupper() and not name.startswith("_"):
                parts = value.items() if isinstance(value, dict) else [("", value)]
                yield from (
                    (f"{short}.{name}{key and '.' + key}", part) for key, part in parts if isinstance(part, str)
                )
    filters = (None, F.lang == "de", (F.n > 3) & ~(F.tags.any(["a"]) | F.meta.exists()))
    wheres = [
        Where.of(tree, by_ids=ids, by_documents=documents, but_ids=ids and but)
        for tree, ids, documents, but in product(filters, *[(False, True)] * 3)
    ]
    known = [Key(1, ("lang",), "text"), Key(2, ("n",), "number"), Key(3, ("tags",), "text")]
    for tree in (F.lang == "de", (F.n > 3) & (F.lang == "de") & (F.n <= 9), F.tags.any(["a"]) | (F.n == 1)):
        found = lookup(tree, known)
        wheres.append(replace(Where.of(tree), keys=found.form, by_keys_alone=found.whole))
    for number, where in enumerate(wheres):
        for form in FORMS:
            yield f"search {form} {number}", search.search(form, where)
        for one, two in product((False, True), repeat=2):
            yield f"listing {one} {two} {number}", reads.listing(where, with_vectors=one, page=two)
        yield f"count {number}", reads.count(where)
        yield f"delete {number}", reads.delete(where)
        yield from ((f"retag {r} {number}", reads.retag(where, replace=r)) for r in (False, True))
    yield from erasures()
    yield from recalls()


def erasures():
    for name in erasure.TENANTS_OWN:
        yield f"delete all {name}", erasure.delete(name, subject=False)
        yield f"count all {name}", erasure.count(name, subject=False)
    for name in erasure.SUBJECTS_OWN:
        yield f"delete of subject {name}", erasure.delete(name, subject=True)
        yield f"count of subject {name}", erasure.count(name, subject=True)
    yield from ((f"nobody's {name}", erasure.count_without_subject(name)) for name in SUBJECTS)
    yield from ((f"actor {name}", erasure.rename_actor(name)) for name in ACTORS)
    for name, first in product(erasure.EXPORTED, (False, True)):
        yield f"export {name} {first}", erasure.export(name, first=first)
    for name, columns in DUE.items():
        for column in columns:
            yield f"due {name}.{column}", erasure.tenants_due(name, column)
            yield f"count due {name}.{column}", erasure.count_due(name, column)
            yield f"sweep {name}.{column}", erasure.sweep(name, column)


def recalls():
    names = ("by_subject", "by_kinds", "by_key", "by_namespace", "as_of")
    for tree, by in product((None, F.lang == "de"), product((False, True), repeat=5)):
        which = recall.Facts.of(tree, **dict(zip(names, by, strict=True)))
        yield f"facts {tree} {by}", recall.listing(which, "confidence")
        for distance in ("cosine", "l2", "ip"):
            yield (
                f"facts by both {distance} {tree} {by}",
                recall.relevant(which, "relevance", words=True, distance=distance),
            )
        yield f"facts by words {tree} {by}", recall.relevant(which, "recency", words=True, distance=None)


STATEMENTS = dict(texts())


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


def test_conflicts_are_settled_by_the_row_that_came():
    """DO UPDATE takes values from `excluded` alone: a function such as now() there is not the same on every node."""
    updates = [sql.partition("DO UPDATE")[2] for sql in STATEMENTS.values() if "DO UPDATE" in sql]
    assert len(updates) == 4
    for update in updates:
        assert not re.search(r"\w\(", update.partition("\nRETURNING")[0].replace("FROM (", "")), update
