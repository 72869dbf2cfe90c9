"""Row-level security by itself, asked with plain SQL that names no tenant."""

from __future__ import annotations

import psycopg
import pytest

import pgrecall
from conftest import as_dsn
from pgrecall import Chunk, Document, EmbedSpace
from pgrecall.schema import TENANT_TABLES, TRAIL

TABLES = [table.name for table in TENANT_TABLES]


RUN = """
INSERT INTO pgrecall.runs (tenant_id, run_id, status) VALUES (%(tenant)s, 'r', 'running');
INSERT INTO pgrecall.run_events (tenant_id, run_id, seq, kind) VALUES (%(tenant)s, 'r', 0, 'k');
INSERT INTO pgrecall.run_retrievals (tenant_id, run_id, seq, collection, query_hash, query_kind)
VALUES (%(tenant)s, 'r', 1, 'handbook', '', 'text');
INSERT INTO pgrecall.run_evidence (tenant_id, run_id, seq, rank, chunk_id, content_hash, score)
VALUES (%(tenant)s, 'r', 1, 0, '1', '', 1);
"""

#: A row of each table that the stores above leave empty.
ROWS = {
    "index_records": "(tenant_id, collection, namespace, key) VALUES (%s, 'c', '', 'k')",
    "docstore": "(tenant_id, collection, id, position) VALUES (%s, 'c', 'i', 0)",
    "erased_subjects": "(tenant_id, subject_hash, salt, erased_at) VALUES (%s, '', '', now())",
    "eval_sets": "(tenant_id, name, version, sha256, kind) VALUES (%s, 's', 1, '', 'judged')",
    "eval_queries": "(tenant_id, set_name, set_version, query_id, text, judged) VALUES (%s, 's', 1, 'q', '', '{}')",
    "eval_runs": "(tenant_id, run_id, set_name, set_sha256, status, config) VALUES (%s, 'r', 's', '', 'done', '{}')",
    "eval_results": "(tenant_id, run_id, query_id, retrieved, metrics, latency, foreign_rows) "
    "VALUES (%s, 'r', 'q', '[]', '{}', '{}', 0)",
    "eval_records": "(tenant_id, kind, name, place, record) VALUES (%s, 'datasets', 'n', 0, '{}')",
}


@pytest.fixture
def two_tenants(db, tenant_id, admin_connection):
    tenants = f"{tenant_id}-A", f"{tenant_id}-B"
    for tenant in tenants:
        store = db.tenant(tenant).vectors("handbook", EmbedSpace("test", "eight", 8))
        store.upsert([Chunk("1", tenant, [1.0] * 8, "d", metadata={"k": "v"})], documents=[Document("d", tenant)])
        db.tenant(tenant).index_key("handbook", "k")
        db.tenant(tenant).chat("s").append(pgrecall.Message("user", tenant))
        for statement in RUN.split(";\n")[:-1]:
            admin_connection.execute(statement, {"tenant": tenant})
        fact = pgrecall.Fact("ann", "kind", "key", {"v": 1}, "text", embedding=[1.0] * 8)
        db.tenant(tenant).memory(actor="a", space=EmbedSpace("test", "eight", 8)).put_fact(fact)
        for table, row in ROWS.items():
            admin_connection.execute(f"INSERT INTO pgrecall.{table} {row}", [tenant])
    return tenants


def as_app(connection, tenant=None):
    connection.execute("SET LOCAL ROLE pgrecall_app")
    if tenant is not None:
        connection.execute(psycopg.sql.SQL("SET LOCAL pgrecall.tenant_id = {}").format(psycopg.sql.Literal(tenant)))


@pytest.fixture(params=["application's login", "superuser"])
def plain(request, app_url, admin_url):
    """A plain connection in a transaction that is rolled back."""
    with psycopg.connect(as_dsn(app_url if request.param != "superuser" else admin_url)) as connection:
        yield connection
        connection.rollback()


@pytest.mark.parametrize("table", [*TABLES, "chunk_embeddings"])
def test_policies_show_and_change_one_tenant_s_rows(plain, two_tenants, table):
    """SQL that names no tenant reads, updates and deletes the rows of the transaction's tenant and no others."""
    as_app(plain, two_tenants[0])
    assert plain.execute(f"SELECT DISTINCT tenant_id FROM pgrecall.{table}").fetchall() == [(two_tenants[0],)]
    if table == "chunk_embeddings":
        return
    if table == TRAIL:  # it only grows
        for change in (f"UPDATE pgrecall.{table} SET tenant_id = tenant_id", f"DELETE FROM pgrecall.{table}"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"), plain.transaction():
                plain.execute(change)
        return
    for change in (f"UPDATE pgrecall.{table} SET tenant_id = tenant_id", f"DELETE FROM pgrecall.{table}"):
        with plain.transaction(force_rollback=True):
            if change.startswith("DELETE"):  # what would stand in its way
                for leaf in (t for t in TABLES[: TABLES.index(table)] if t != TRAIL):
                    plain.execute(f"DELETE FROM pgrecall.{leaf}")
            assert plain.execute(change).rowcount == 1
    moved = f"UPDATE pgrecall.{table} SET tenant_id = '{two_tenants[1]}'"
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        plain.execute(moved)


INSERTS = {
    "tenants": "(tenant_id) VALUES (%s)",
    "collections": "(tenant_id, name, space_id) VALUES (%s, 'n', 1)",
    "documents": "(tenant_id, collection, id) VALUES (%s, 'n', 'i')",
    "chunks": "(tenant_id, collection, id, text, content_hash) VALUES (%s, 'n', 'i', 't', '')",
    "chunk_vectors": "(tenant_id, collection, chunk_id, space_id, embed_norm, embedding) "
    "VALUES (%s, 'n', 'i', 1, 1, '[1]')",
    "chat_sessions": "(tenant_id, session_id) VALUES (%s, 'n')",
    "chat_messages": "(tenant_id, session_id, position, role, text) VALUES (%s, 's', 9, 'user', '')",
    "runs": "(tenant_id, run_id, status) VALUES (%s, 'n', 's')",
    "run_events": "(tenant_id, run_id, seq, kind) VALUES (%s, 'r', 9, 'k')",
    "run_retrievals": "(tenant_id, run_id, seq, collection, query_hash, query_kind) "
    "VALUES (%s, 'r', 9, 'c', '', 'text')",
    "run_evidence": "(tenant_id, run_id, seq, rank, chunk_id, content_hash, score) VALUES (%s, 'r', 1, 9, 'k', '', 1)",
    "chunk_keys": "(tenant_id, collection, chunk_id, key, value) VALUES (%s, 'n', 'i', 1, 'v')",
    "memory_settings": "(tenant_id, text_config) VALUES (%s, 'simple')",
    "memory_facts": "(tenant_id, id, namespace, subject, kind, key, value, actor, valid_from, ttl_refresh) "
    "VALUES (%s, 'n', '{}', 's', 'k', 'n', '{}', 'a', now(), false)",
    "fact_vectors": "(tenant_id, fact_id, field, space_id, embed_norm, embedding) VALUES (%s, 'n', 'f', 1, 1, '[1]')",
    "memory_events": "(tenant_id, id, at, action) VALUES (%s, 'n', now(), 'put')",
    **ROWS,
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("setting", [None, "", "another"], ids=["never set", "empty", "another"])
def test_policies_let_no_row_in_for_another_tenant(plain, two_tenants, table, setting):
    """Without a tenant, or as another one, a row of A can't be written; without one nothing is seen or changed."""
    as_app(plain, setting)
    if not setting:
        assert plain.execute(f"SELECT FROM pgrecall.{table}").rowcount == 0
        for change in (f"DELETE FROM pgrecall.{table}", f"UPDATE pgrecall.{table} SET tenant_id = tenant_id"):
            assert table == TRAIL or plain.execute(change).rowcount == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        plain.execute(f"INSERT INTO pgrecall.{table} {INSERTS[table]}", [two_tenants[0]])


def test_the_application_s_login_can_do_no_more_than_its_role(app_url, two_tenants):
    """Itself it may read nothing; it may not act as maintenance, nor empty or change a table."""
    refused = [
        "SELECT * FROM pgrecall.chunks",
        "SET ROLE pgrecall_maintenance",
        "SET ROLE pgrecall_app; TRUNCATE pgrecall.chunk_vectors",
        "SET ROLE pgrecall_app; ALTER TABLE pgrecall.chunks DISABLE ROW LEVEL SECURITY",
        "SET ROLE pgrecall_app; DROP POLICY tenant_isolation ON pgrecall.chunks",
        "SET ROLE pgrecall_app; UPDATE pgrecall.embed_spaces SET model = 'x'",
        "SET ROLE pgrecall_app; CREATE TABLE pgrecall.x (y int)",
    ]
    with psycopg.connect(as_dsn(app_url)) as connection:
        for statement in refused:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)
            connection.rollback()
    with pgrecall.connect(app_url) as db, pytest.raises(pgrecall.ConfigurationError, match="permission denied"):
        db.list_tenants()
