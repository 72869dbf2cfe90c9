"""Rules that every table keeps, read from the catalogs: isolation by keys, ready for Citus, short enough to index."""

from __future__ import annotations

import psycopg
import pytest

from pgrecall import migrate, schema

TENANT_TABLES = [table.name for table in schema.TENANT_TABLES]


@pytest.fixture
def catalog(admin_connection):
    """Rows of a query; `%(tables)s` are the tenant tables."""
    return lambda query: admin_connection.execute(query, {"tables": TENANT_TABLES}).fetchall()


def test_every_table_but_the_registry_of_spaces_is_a_tenant_table(catalog):
    """A table that forgets its tenant would be seen here, whatever schema.py says of it."""
    without = """SELECT relname::text FROM pg_class c WHERE relnamespace = 'pgrecall'::regnamespace AND relkind IN ('r', 'p')
    AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND attname = 'tenant_id' AND attnotnull)
    ORDER BY 1"""
    assert catalog(without) == [("alembic_version",), ("embed_spaces",)]
    every = "SELECT relname::text FROM pg_class WHERE relnamespace = 'pgrecall'::regnamespace AND relkind IN ('r', 'p')"
    assert {name for (name,) in catalog(every)} == {*TENANT_TABLES, "alembic_version", "embed_spaces"}


def test_every_unique_key_of_a_tenant_table_contains_the_tenant(catalog):
    """A key without it would tell a tenant of another one's rows, and could not be distributed."""
    keys = """SELECT i.indexrelid::regclass::text, EXISTS (SELECT FROM pg_attribute a
        WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey) AND a.attname = 'tenant_id')
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    WHERE c.relnamespace = 'pgrecall'::regnamespace AND c.relname = ANY (%(tables)s) AND i.indisunique"""
    found = catalog(keys)
    assert len(found) >= len(TENANT_TABLES)
    assert [name for name, contains in found if not contains] == []


FOREIGN_KEYS = """
SELECT k.conname::text, c.relname::text, r.relname::text,
  ARRAY (SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u (n, at)
    JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY at),
  ARRAY (SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u (n, at)
    JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY at)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class r ON r.oid = k.confrelid
WHERE c.relnamespace = 'pgrecall'::regnamespace AND k.contype = 'f' AND k.conparentid = 0 AND r.relname = ANY (%(tables)s)
ORDER BY 1
"""


def test_every_foreign_key_between_tenant_tables_joins_tenant_to_tenant(catalog):
    """A row can refer to its own tenant's rows only, whoever wrote it."""
    found = catalog(FOREIGN_KEYS)
    assert [name for name, *_ in found] == [
        "chunk_vectors_chunk_fkey", "chunks_document_fkey", "collections_tenant_fkey", "documents_collection_fkey",
    ]  # fmt: skip
    for _, _, _, columns, referred in found:
        assert columns.index("tenant_id") == referred.index("tenant_id")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT tgname FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE NOT tgisinternal AND {here}",
        "SELECT c.relname FROM pg_class c WHERE relkind = 'S' AND {here}",
        """SELECT attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
        WHERE (attidentity <> '' OR atttypid::regtype::text LIKE 'reg%%') AND relkind IN ('r', 'p', 'v') AND {here}""",
        "SELECT rulename FROM pg_rewrite JOIN pg_class c ON c.oid = ev_class WHERE relkind <> 'v' AND {here}",
    ],
    ids=["trigger", "sequence", "identity or reg type", "rule"],
)
def test_there_is_no(catalog, query):
    """Citus and pg_upgrade both stumble over these."""
    assert catalog(query.format(here="c.relnamespace = 'pgrecall'::regnamespace")) == []


def test_no_index_begins_like_a_primary_key_that_is_referred_to(catalog):
    """Without statistics a cached foreign-key check would take that index instead: 671 rows/s, not 5,741."""
    indexes = """SELECT c.relname::text, i.indexrelid::regclass::text, i.indisprimary,
      ARRAY (SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY u (n, at)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = u.n ORDER BY at)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
    WHERE c.relnamespace = 'pgrecall'::regnamespace AND EXISTS (
      SELECT FROM pg_constraint WHERE contype = 'f' AND confrelid = c.oid AND c.relname = ANY (%(tables)s))"""
    found = catalog(indexes)
    keys = {table: columns for table, _, primary, columns in found if primary}
    assert sorted(keys) == ["chunks", "collections", "documents", "tenants"]
    for table, name, primary, columns in found:
        assert primary or columns[:2] != keys[table][:2], name


@pytest.fixture
def empty(new_database):
    """A database that was migrated, and has neither rows nor statistics."""
    url = new_database()
    migrate.upgrade(url)
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(False), autocommit=True) as connection:
        yield connection


def test_foreign_key_checks_take_the_primary_key_on_a_database_without_statistics(empty):
    """Their plans are cached, so what is chosen on empty tables stays while the first million rows come in."""
    checks = empty.execute(FOREIGN_KEYS, {"tables": TENANT_TABLES}).fetchall()
    assert len(checks) == 4
    for name, table, referred, columns, key in checks:
        parent = " AND ".join(f"{column} = ${n}" for n, column in enumerate(key, 1))
        found = plan(empty, f"SELECT 1 FROM ONLY pgrecall.{referred} x WHERE {parent} FOR KEY SHARE OF x")
        assert f"using {referred}_pkey" in found and "Filter" not in found, name
        # And the other way, when a parent's row is deleted.
        child = " AND ".join(f"{column} = ${n}" for n, column in enumerate(columns, 1))
        found = plan(empty, f"DELETE FROM ONLY pgrecall.{table} WHERE {child}")
        assert f"{CHILD_INDEX.get(name, f'{table}_pkey')}" in found and "Filter" not in found, (name, found)


CHILD_INDEX = {"chunks_document_fkey": "chunks_document_idx"}


def plan(connection, statement):
    return "\n".join(line for (line,) in connection.execute(f"EXPLAIN (GENERIC_PLAN) {statement}"))


CAPS = [
    ("tenants", "tenant_id", "tenants_id_length", 200),
    ("collections", "name", "collections_name_length", 200),
    ("embed_spaces", "provider", "embed_spaces_provider_length", 200),
    ("embed_spaces", "model", "embed_spaces_model_length", 200),
    ("documents", "id", "documents_id_length", 1000),
    ("chunks", "id", "chunks_id_length", 1000),
]
ROW = {
    "tenants": {"tenant_id": "t"},
    "collections": {"tenant_id": "t", "name": "c", "space_id": 1},
    "embed_spaces": {"id": 2, "provider": "p", "model": "m", "dim": 8, "distance": "ip"},
    "documents": {"tenant_id": "t", "collection": "c", "id": "d"},
    "chunks": {"tenant_id": "t", "collection": "c", "id": "k", "text": "", "content_hash": b""},
}


def insert(connection, table, **values):
    row = ROW[table] | values
    marks = ", ".join(["%s"] * len(row))
    connection.execute(f"INSERT INTO pgrecall.{table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))


@pytest.mark.parametrize(("table", "column", "constraint", "cap"), CAPS)
def test_names_and_ids_are_capped_by_checks(admin_url, table, column, constraint, cap):
    """Bytes count, not characters; the empty and 5 kB names are refused by name, never by a btree's own limit."""
    dsn = admin_url.set(drivername="postgresql").render_as_string(False)
    with psycopg.connect(dsn) as connection, connection.transaction(force_rollback=True):
        connection.execute("INSERT INTO pgrecall.embed_spaces VALUES (1, 'p', 'm', 4, 'ip') ON CONFLICT DO NOTHING")
        for parent in ("tenants", "collections", "documents"):
            insert(connection, parent)
        for refused in ("", "x" * (cap + 1), "ü" * (cap // 2) + "x", "".join(map(chr, range(1000, 6000)))):
            with pytest.raises(psycopg.errors.CheckViolation) as failed, connection.transaction():
                insert(connection, table, **{column: refused})
            assert failed.value.diag.constraint_name == constraint
        insert(connection, table, **{column: "ü" * (cap // 2)})


def test_the_longest_ids_of_all_fit_together(admin_url):
    """At their caps the keys of a chunk, its document and its vector still fit into every index on them."""
    dsn = admin_url.set(drivername="postgresql").render_as_string(False)
    long = {n: "".join(chr(0x100 + (i * 7919) % 0x500) for i in range(n // 2)) for n in (200, 1000)}
    with psycopg.connect(dsn) as connection, connection.transaction(force_rollback=True):
        connection.execute("INSERT INTO pgrecall.embed_spaces VALUES (1, 'p', 'm', 1, 'ip') ON CONFLICT DO NOTHING")
        space = connection.execute("SELECT id, dim FROM pgrecall.embed_spaces LIMIT 1").fetchone()
        here = {"tenant_id": long[200]}
        insert(connection, "tenants", **here)
        insert(connection, "collections", **here, name=long[200], space_id=space[0])
        here |= {"collection": long[200]}
        insert(connection, "documents", **here, id=long[1000])
        insert(connection, "chunks", **here, id=long[1000], doc_id=long[1000])
        connection.execute(
            "INSERT INTO pgrecall.chunk_vectors (tenant_id, collection, chunk_id, space_id, embed_norm, embedding) "
            "VALUES (%s, %s, %s, %s, 1, (SELECT array_agg(1) FROM generate_series(1, %s))::real[]::halfvec)",
            [long[200], long[200], long[1000], *space],
        )
