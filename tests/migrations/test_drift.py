"""The drift check sees each way in which a database can stop being what this version declares."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from pgrecall import MigrationRequired
from pgrecall.admin import drift, migrate

# What was done to the database, and the sentences that must come of it (their order is the report's).
TAMPERING = {
    "another collation": (
        'ALTER TABLE pgrecall.documents ALTER source TYPE text COLLATE "C"',
        ["missing: column documents.source: text", 'unexpected: column documents.source: text COLLATE "C"'],
    ),
    "row security off": (
        "ALTER TABLE pgrecall.chunks DISABLE ROW LEVEL SECURITY",
        ["missing: table chunks: row security on, forced", "unexpected: table chunks: row security off"],
    ),
    "not forced": (
        "ALTER TABLE pgrecall.tenants NO FORCE ROW LEVEL SECURITY",
        [
            "missing: table tenants: row security on, forced",
            "unexpected: table tenants: row security on, not forced",
        ],
    ),
    "policy dropped": (
        "DROP POLICY tenant_isolation ON pgrecall.documents",
        ["missing: permissive policy tenant_isolation on documents: ALL to pgrecall_app USING (tenant"],
    ),
    "policy added": (
        "CREATE POLICY everything ON pgrecall.chunks FOR SELECT USING (true)",
        ["unexpected: permissive policy everything on chunks: SELECT to PUBLIC USING (true)"],
    ),
    "condition for reading": (
        "ALTER POLICY tenant_isolation ON pgrecall.chunk_vectors USING (true)",
        [
            "missing: permissive policy tenant_isolation on chunk_vectors",
            "to pgrecall_app USING (true) WITH",
        ],
    ),
    "condition for writing": (
        "ALTER POLICY tenant_isolation ON pgrecall.collections WITH CHECK (true)",
        ["missing: permissive policy tenant_isolation on collections", "WITH CHECK (true)"],
    ),
    "another setting": (
        """ALTER POLICY tenant_isolation ON pgrecall.chunks
        USING (tenant_id = nullif(current_setting('tenant_id', true), ''))""",
        [
            "missing: permissive policy tenant_isolation on chunks",
            "current_setting('tenant_id'::text, true)",
        ],
    ),
    "policy's role": (
        "ALTER POLICY maintenance ON pgrecall.chunks TO pgrecall_maintenance, pgrecall_app",
        ["missing: permissive policy maintenance on chunks", "ALL to pgrecall_app, pgrecall_maintenance"],
    ),
    "truncate": (
        "GRANT TRUNCATE ON pgrecall.chunks TO pgrecall_app",
        ["unexpected: pgrecall_app may TRUNCATE on chunks"],
    ),
    "references and trigger": (
        "GRANT REFERENCES, TRIGGER ON pgrecall.tenants TO pgrecall_maintenance",
        [
            "unexpected: pgrecall_maintenance may REFERENCES on tenants",
            "unexpected: pgrecall_maintenance may TRIGGER on tenants",
        ],
    ),
    "grant to everybody": (
        "GRANT SELECT ON pgrecall.embed_spaces TO PUBLIC",
        ["unexpected: PUBLIC may SELECT on embed_spaces"],
    ),
    "grant of one column": (
        "GRANT UPDATE (dim) ON pgrecall.embed_spaces TO pgrecall_app",
        ["unexpected: pgrecall_app may UPDATE on embed_spaces.dim"],
    ),
    "grant to pass on": (
        "GRANT SELECT ON pgrecall.chunks TO pgrecall_app WITH GRANT OPTION",
        [
            "missing: pgrecall_app may SELECT on chunks",
            "unexpected: pgrecall_app may SELECT on chunks, and grant",
        ],
    ),
    "view granted": (
        "GRANT SELECT ON pgrecall.chunk_embeddings TO drift_stranger",
        ["unexpected: drift_stranger may SELECT on chunk_embeddings"],
    ),
    "version table granted": (
        "GRANT UPDATE ON pgrecall.alembic_version TO pgrecall_app",
        ["unexpected: pgrecall_app may UPDATE on alembic_version"],
    ),
    "schema granted": (
        "GRANT CREATE ON SCHEMA pgrecall TO pgrecall_app",
        ["unexpected: pgrecall_app may CREATE on pgrecall"],
    ),
    "grant revoked": (
        "REVOKE DELETE ON pgrecall.documents FROM pgrecall_app",
        ["missing: pgrecall_app may DELETE on documents"],
    ),
    "owner": (
        "ALTER TABLE pgrecall.embed_spaces OWNER TO pgrecall_app",
        [
            "missing: pgrecall_app may INSERT",
            "missing: pgrecall_app may SELECT",
            "pgrecall_app owns embed_spaces",
        ],
    ),
    "membership": (
        "GRANT pgrecall_maintenance TO pgrecall_app",
        ["unexpected: role pgrecall_app is a member of pgrecall_maintenance"],
    ),
    "storage": (
        "ALTER TABLE pgrecall.chunk_vectors ALTER COLUMN embedding SET STORAGE EXTERNAL",
        [
            "missing: column chunk_vectors.embedding: halfvec NOT NULL STORAGE MAIN",
            "unexpected: column chunk_vectors.embedding: halfvec NOT NULL",
        ],
    ),
    "view's invoker": (
        "ALTER VIEW pgrecall.chunk_embeddings RESET (security_invoker)",
        [
            "missing: view chunk_embeddings (security_invoker=true)",
            "unexpected: view chunk_embeddings ()",
        ],
    ),
    "view's query": (
        """CREATE OR REPLACE VIEW pgrecall.chunk_embeddings WITH (security_invoker = true) AS
        SELECT v.tenant_id, v.collection, v.chunk_id, s.provider AS embed_provider, s.model AS embed_model,
          v.embed_dim, s.distance AS embed_distance, v.embed_norm, v.embedding, v.created_at
        FROM pgrecall.chunk_vectors v JOIN pgrecall.embed_spaces s ON true""",
        ["missing: view chunk_embeddings", "unexpected: view chunk_embeddings"],
    ),
    "index dropped": (
        "DROP INDEX pgrecall.chunks_document_idx",
        ["missing: CREATE INDEX chunks_document_idx ON chunks USING btree (tenant_id, doc_id"],
    ),
    "index added": (
        "CREATE INDEX ON pgrecall.chunks (tenant_id, collection, text)",
        ["unexpected: CREATE INDEX chunks_tenant_id_collection_text_idx ON chunks"],
    ),
    "INVALID index": (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pgrecall.chunks_metadata_idx'::regclass",
        ["unexpected: index chunks_metadata_idx is INVALID"],
    ),
    "primary key": (
        """ALTER TABLE pgrecall.chunk_vectors DROP CONSTRAINT chunk_vectors_pkey,
        ADD CONSTRAINT chunk_vectors_pkey PRIMARY KEY (tenant_id, collection, space_id, chunk_id)""",
        [
            "missing: constraint chunk_vectors_pkey",
            "PRIMARY KEY (tenant_id, collection, space_id, chunk_id)",
        ],
    ),
    "check": (
        "ALTER TABLE pgrecall.chunks DROP CONSTRAINT chunks_id_length",
        ["missing: constraint chunks_id_length on chunks: CHECK (octet_length(id) >= 1 AND octet"],
    ),
    "foreign key not validated": (
        """ALTER TABLE pgrecall.chunks DROP CONSTRAINT chunks_document_fkey,
        ADD CONSTRAINT chunks_document_fkey FOREIGN KEY (tenant_id, collection, doc_id)
        REFERENCES pgrecall.documents ON DELETE CASCADE NOT VALID""",
        ["missing: constraint chunks_document_fkey", "unexpected: constraint chunks_document_fkey"],
    ),
    "trigger": (
        """CREATE TRIGGER noise BEFORE UPDATE ON pgrecall.chunks
        FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()""",
        ["unexpected: trigger noise on chunks"],
    ),
    "column": (
        "ALTER TABLE pgrecall.documents ADD COLUMN note text DEFAULT 'x', ALTER COLUMN metadata DROP NOT NULL",
        [
            "missing: column documents.metadata: jsonb NOT NULL DEFAULT '{}'::jsonb",
            "unexpected: column documents.metadata: jsonb DEFAULT '{}'::jsonb",
            "unexpected: column documents.note: text DEFAULT 'x'::text",
        ],
    ),
    "table and sequence": (
        "CREATE TABLE pgrecall.notes (); CREATE SEQUENCE pgrecall.numbers",
        ["unexpected: relation numbers of kind S", "unexpected: table notes: row security off"],
    ),
    "role's attributes": (
        "ALTER ROLE pgrecall_app BYPASSRLS CREATEDB",
        [
            "missing: role pgrecall_app: NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREP",
            "unexpected: role pgrecall_app: NOLOGIN NOSUPERUSER BYPASSRLS CREATEDB NOCREATEROLE NOREP",
        ],
    ),
    "role's login": (
        "ALTER ROLE pgrecall_maintenance LOGIN SUPERUSER CREATEROLE REPLICATION",
        [
            "missing: role pgrecall_maintenance",
            "LOGIN SUPERUSER NOBYPASSRLS NOCREATEDB CREATEROLE REPLICATION",
        ],
    ),
}


@pytest.fixture(scope="module")
def untouched(_databases) -> sa.URL:
    """A migrated database without rows: other tests' would get in the way of what is tampered with."""
    url = _databases()
    migrate.upgrade(url)
    return url


@pytest.fixture
def tampered_with(untouched):
    """The shared database's superuser, in a transaction that no one else will ever see."""
    engine = sa.create_engine(untouched, poolclass=sa.NullPool)
    with engine.connect() as connection, connection.begin() as transaction:
        connection.execute(sa.text("SET LOCAL allow_system_table_mods = on; CREATE ROLE drift_stranger"))
        yield connection
        transaction.rollback()


@pytest.mark.parametrize("what", TAMPERING)
def test_the_drift_check_reports(tampered_with, what):
    """One change makes exactly the differences that name it; without it there is none."""
    statement, expected = TAMPERING[what]
    assert drift.differences(tampered_with) == []
    tampered_with.exec_driver_sql(statement)
    found = drift.differences(tampered_with)
    assert len(found) == len(expected)
    for sentence, fragment in zip(found, expected, strict=True):
        assert fragment in sentence


def test_maintain_is_a_privilege_that_nobody_has(tampered_with):
    """Postgres 17 has one privilege more, and it is compared like the others."""
    if tampered_with.dialect.server_version_info < (17,):
        with pytest.raises(sa.exc.DBAPIError, match="unrecognized privilege type"):
            tampered_with.exec_driver_sql("GRANT MAINTAIN ON pgrecall.chunks TO pgrecall_maintenance")
        return
    tampered_with.exec_driver_sql("GRANT MAINTAIN ON pgrecall.chunks TO pgrecall_maintenance")
    [found] = drift.differences(tampered_with)
    assert found == "unexpected: pgrecall_maintenance may MAINTAIN on chunks"


@pytest.mark.parametrize("path", ["pg_catalog", "pgrecall, public", "public", '"$user"'])
def test_the_session_s_search_path_makes_no_difference(tampered_with, path):
    """By the search path Postgres prints names with or without their schema; the comparison does not care."""
    tampered_with.exec_driver_sql(f"SET LOCAL search_path = {path}")
    assert drift.differences(tampered_with) == []


def test_check_raises_what_drift_finds(new_database, run):
    """`migrate.check` fails with all the differences in its message."""
    url = new_database()
    migrate.upgrade(url)
    run(url, "GRANT TRUNCATE ON pgrecall.chunks TO pgrecall_app; DROP POLICY maintenance ON pgrecall.chunks")
    with pytest.raises(MigrationRequired, match=r"differs .*\n.*policy maintenance on chunks.*\n.*TRUNCATE"):
        migrate.check(url)
