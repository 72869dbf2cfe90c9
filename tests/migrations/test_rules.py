"""Rules that every table keeps, read from the catalogs: isolation by keys, ready for Citus, indexable ids."""

from __future__ import annotations

import re

import psycopg
import pytest

from conftest import as_dsn
from pgrecall import schema
from pgrecall.admin import migrate
from pgrecall.filters.keys import PREFIX
from pgrecall.statements import erasure

TENANT_TABLES = [table.name for table in schema.TENANT_TABLES]


@pytest.fixture
def catalog(admin_connection):
    """Rows of a query; `%(tables)s` are the tenant tables."""
    return lambda query, **values: admin_connection.execute(query, {"tables": TENANT_TABLES} | values).fetchall()


def test_every_table_but_the_registry_of_spaces_is_a_tenant_table(catalog):
    """A table that forgets its tenant would be seen here, whatever schema.py says of it."""
    tables = """SELECT c.relname::text, EXISTS (SELECT FROM pg_attribute a
      WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND a.attnotnull)
    FROM pg_class c WHERE c.relnamespace = 'pgrecall'::regnamespace AND c.relkind IN ('r', 'p')"""
    expected = dict.fromkeys(TENANT_TABLES, True) | {"alembic_version": False, "embed_spaces": False}
    assert dict(catalog(tables)) == expected


def test_the_deletion_of_a_tenant_reaches_every_table_leaf_first():
    """It goes by TENANT_TABLES, all but the tombstone and the trail; children stand there before their parents."""
    assert list(erasure.TENANTS_OWN) == [name for name in TENANT_TABLES if name not in ("memory_events", "tenants")]
    parents = {t.name: {k.referred_table.name for k in t.foreign_key_constraints} for t in schema.TENANT_TABLES}
    for at, name in enumerate(TENANT_TABLES):
        assert not parents[name] & set(TENANT_TABLES[:at]), name


def test_every_table_with_a_subject_says_so(catalog):
    """A column of that name, or a foreign key to such a table, is an entry of `schema.retention`; and none is stale."""
    columns = """SELECT c.relname::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE c.relnamespace = 'pgrecall'::regnamespace AND c.relname = ANY (%(tables)s) AND a.attname = 'subject'"""
    assert {name for (name,) in catalog(columns)} == set(schema.SUBJECTS) | {schema.TRAIL}
    whose = set(schema.SUBJECTS) | set(schema.PARTS)
    for table in schema.TENANT_TABLES:
        for key in table.foreign_key_constraints:
            if key.referred_table.name in whose:
                part = schema.PARTS[table.name]
                refers = {e.parent.name: e.column.name for e in key.elements if e.parent.name != "tenant_id"}
                assert (part.parent, dict(part.refers)) == (key.referred_table.name, refers)


def test_every_due_column_has_its_index(catalog):
    """A sweep finds what is due by (tenant_id, column) WHERE column IS NOT NULL."""
    found = {text for (text,) in catalog("SELECT indexdef FROM pg_indexes WHERE schemaname = 'pgrecall'")}
    for table, columns in schema.DUE.items():
        for column in columns:
            wanted = f"ON pgrecall.{table} USING btree (tenant_id, {column}) WHERE ({column} IS NOT NULL)"
            assert any(text.endswith(wanted) for text in found), (table, column)


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
WHERE c.relnamespace = 'pgrecall'::regnamespace AND k.contype = 'f' AND r.relname = ANY (%(tables)s)
ORDER BY 1
"""


def test_every_foreign_key_between_tenant_tables_joins_tenant_to_tenant(catalog):
    """A row can refer only to rows of its own tenant, for every writer."""
    found = catalog(FOREIGN_KEYS)
    assert [name for name, *_ in found] == [
        "chat_messages_session_fkey",
        "chunk_keys_chunk_fkey",
        "chunk_vectors_chunk_fkey",
        "chunks_document_fkey",
        "collections_tenant_fkey",
        "documents_collection_fkey",
        "eval_queries_set_fkey",
        "eval_results_run_fkey",
        "fact_vectors_fact_fkey",
        "run_events_run_fkey",
        "run_evidence_retrieval_fkey",
        "run_retrievals_run_fkey",
    ]
    for _, _, _, columns, referred in found:
        assert columns.index("tenant_id") == referred.index("tenant_id")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT tgname FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid WHERE NOT tgisinternal AND {here}",
        "SELECT c.relname FROM pg_class c WHERE relkind = 'S' AND {here}",
        """SELECT attname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
        WHERE (attidentity <> '' OR atttypid::regtype::text LIKE 'reg%%') AND {here}""",
        "SELECT rulename FROM pg_rewrite JOIN pg_class c ON c.oid = ev_class WHERE relkind <> 'v' AND {here}",
    ],
    ids=["trigger", "sequence", "identity or reg type", "rule"],
)
def test_there_is_no(catalog, query):
    """Citus and pg_upgrade both stumble over these."""
    assert catalog(query.format(here="c.relnamespace = 'pgrecall'::regnamespace")) == []


@pytest.fixture
def empty(new_database):
    """A database that was migrated, and has neither rows nor statistics."""
    url = new_database()
    migrate.upgrade(url)
    with psycopg.connect(as_dsn(url), autocommit=True, prepare_threshold=None) as connection:
        yield connection


def test_foreign_key_checks_take_the_whole_key_on_a_database_without_statistics(empty):
    """Their plans are cached, so that what empty tables make look cheap stays while the rows come in."""
    checks = empty.execute(FOREIGN_KEYS, {"tables": TENANT_TABLES}).fetchall()
    # The planner compares new indexes again, and picks at random between two with the same cost.
    empty.execute("REINDEX SCHEMA CONCURRENTLY pgrecall")
    for name, table, referred, columns, key in checks:
        parent = f"SELECT 1 FROM ONLY pgrecall.{referred} x WHERE {bound(key)} FOR KEY SHARE OF x"
        assert whole_key(empty, parent) == (f"{referred}_pkey", len(key)), name
        # And the other way, when a parent's row is deleted.
        cascade = f"DELETE FROM ONLY pgrecall.{table} WHERE {bound(columns)}"
        child = "chunks_document_idx" if name == "chunks_document_fkey" else f"{table}_pkey"
        assert whole_key(empty, cascade) == (child, len(columns)), name


def bound(columns):
    return " AND ".join(f"{column} = ${n}" for n, column in enumerate(columns, 1))


def whole_key(connection, statement):
    """The index of a cached plan, and how many of the columns it finds rows by."""
    plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN (GENERIC_PLAN) {statement}"))
    condition = re.search(r"Index Scan (?:using|on) (\w+) .*\n +Index Cond: (.*)", plan)
    assert condition, plan
    return condition[1], condition[2].count("$")


def test_no_secondary_index_can_stand_in_for_a_key(catalog):
    """A btree on the tenant that is not partial would cost a foreign key's check as little as the key itself."""
    secondary = """SELECT i.indexrelid::regclass::text
    FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
    JOIN pg_am m ON m.oid = x.relam
    WHERE c.relnamespace = 'pgrecall'::regnamespace AND c.relname = ANY (%(tables)s)
      AND m.amname = 'btree' AND NOT i.indisprimary AND (i.indpred IS NULL) = %(whole)s ORDER BY 1"""
    assert catalog(secondary, whole=True) == []
    assert catalog(secondary, whole=False) == [
        ("pgrecall.chat_messages_expiry_idx",),
        ("pgrecall.chat_messages_id_key",),
        ("pgrecall.chat_sessions_expiry_idx",),
        ("pgrecall.chat_sessions_subject_idx",),
        ("pgrecall.chunk_keys_value_idx",),
        ("pgrecall.chunk_vectors_scan_idx",),
        ("pgrecall.chunks_document_idx",),
        ("pgrecall.docstore_ref_doc_idx",),
        ("pgrecall.index_records_group_idx",),
        ("pgrecall.memory_events_subject_idx",),
        ("pgrecall.memory_events_target_idx",),
        ("pgrecall.memory_facts_expires_idx",),
        ("pgrecall.memory_facts_live_key",),
        ("pgrecall.memory_facts_namespace_idx",),
        ("pgrecall.memory_facts_purge_idx",),
        ("pgrecall.memory_facts_versions_idx",),
        ("pgrecall.runs_expiry_idx",),
        ("pgrecall.runs_subject_idx",),
    ]


SPACE = 32000
CAPS = [
    ("tenants", "tenant_id", "tenants_id_length", 200),
    ("collections", "name", "collections_name_length", 200),
    ("embed_spaces", "provider", "embed_spaces_provider_length", 200),
    ("embed_spaces", "model", "embed_spaces_model_length", 200),
    ("documents", "id", "documents_id_length", 1000),
    ("chunks", "id", "chunks_id_length", 1000),
    ("index_records", "key", "index_records_key_length", 1000),
    ("index_records", "group_id", "index_records_group_length", 1000),
    ("index_records", "collection", "index_records_collection_length", 200),
    ("chat_sessions", "session_id", "chat_sessions_id_length", 1000),
    ("chat_sessions", "subject", "chat_sessions_subject_length", 1000),
    ("chat_messages", "message_id", "chat_messages_id_length", 1000),
    ("runs", "run_id", "runs_id_length", 1000),
    ("runs", "subject", "runs_subject_length", 1000),
    ("runs", "status", "runs_status_length", 200),
    ("run_events", "kind", "run_events_kind_length", 200),
    ("run_evidence", "chunk_id", "run_evidence_chunk_length", 1000),
]
ROW = {
    "tenants": {"tenant_id": "t"},
    "collections": {"tenant_id": "t", "name": "c", "space_id": SPACE},
    "embed_spaces": {"id": SPACE + 1, "provider": "p", "model": "m", "dim": 8, "distance": "ip"},
    "documents": {"tenant_id": "t", "collection": "c", "id": "d"},
    "chunks": {"tenant_id": "t", "collection": "c", "id": "k", "text": "", "content_hash": b""},
    "index_records": {"tenant_id": "t", "collection": "c", "namespace": "", "key": "k"},
    "chat_sessions": {"tenant_id": "t", "session_id": "s"},
    "chat_messages": {"tenant_id": "t", "session_id": "parent", "position": 0, "role": "user", "text": ""},
    "runs": {"tenant_id": "t", "run_id": "r", "status": "running"},
    "run_events": {"tenant_id": "t", "run_id": "parent", "seq": 0, "kind": "k"},
    "run_retrievals": {
        "tenant_id": "t",
        "run_id": "parent",
        "seq": 0,
        "collection": "c",
        "query_hash": b"",
        "query_kind": "text",
    },
    "run_evidence": {
        "tenant_id": "t",
        "run_id": "parent",
        "seq": 0,
        "rank": 0,
        "chunk_id": "k",
        "content_hash": b"",
        "score": 1.0,
    },
}


def insert(connection, table, **values):
    row = ROW.get(table, {}) | values
    columns, marks = ", ".join(row), ", ".join(["%s"] * len(row))
    connection.execute(f"INSERT INTO pgrecall.{table} ({columns}) VALUES ({marks})", list(row.values()))


@pytest.mark.parametrize(("table", "column", "constraint", "cap"), CAPS)
def test_names_and_ids_are_capped_by_checks(admin_url, table, column, constraint, cap):
    """Bytes count, not characters; the empty and the 5 kB one are refused by the check, never by a btree."""
    with psycopg.connect(as_dsn(admin_url)) as connection, connection.transaction(force_rollback=True):
        insert(connection, "embed_spaces", id=SPACE, provider="cap")
        for parent in ("tenants", "collections", "documents"):
            insert(connection, parent)
        insert(connection, "chat_sessions", session_id="parent")
        insert(connection, "runs", run_id="parent")
        insert(connection, "run_retrievals")
        for refused in ("", "x" * (cap + 1), "ü" * (cap // 2) + "x", "".join(map(chr, range(1000, 6000)))):
            with pytest.raises(psycopg.errors.CheckViolation) as failed, connection.transaction():
                insert(connection, table, **{column: refused})
            assert failed.value.diag.constraint_name == constraint
        insert(connection, table, **{column: "ü" * (cap // 2)})


def test_the_longest_ids_of_all_fit_together(admin_url):
    """At their caps the keys of a chunk, its document and its vector still fit into every index on them."""
    long = {n: "".join(chr(0x100 + (i * 7919) % 0x500) for i in range(n // 2)) for n in (200, 1000)}
    with psycopg.connect(as_dsn(admin_url)) as connection, connection.transaction(force_rollback=True):
        insert(connection, "embed_spaces", id=SPACE, provider="cap")
        here = {"tenant_id": long[200]}
        insert(connection, "tenants", **here)
        insert(connection, "collections", **here, name=long[200])
        here |= {"collection": long[200]}
        insert(connection, "documents", **here, id=long[1000])
        insert(connection, "chunks", **here, id=long[1000], doc_id=long[1000])
        vector = {"chunk_id": long[1000], "space_id": SPACE, "embed_norm": 1, "embedding": "[1,1,1,1,1,1,1,1]"}
        insert(connection, "chunk_vectors", **here, **vector)
        insert(connection, "index_records", **here, namespace=long[200], key=long[1000], group_id=long[1000])
        value = "".join(chr(0x10000 + (i * 7919) % 0x10000) for i in range(PREFIX))
        insert(connection, "chunk_keys", **here, chunk_id=long[1000], key=1, value=value)
        here = {"tenant_id": long[200], "subject": long[1000]}
        insert(connection, "chat_sessions", **here, session_id=long[1000])
        del here["subject"]
        insert(connection, "chat_messages", **here, session_id=long[1000], message_id=long[1000])
        insert(connection, "runs", **here, run_id=long[1000], subject=long[1000])
