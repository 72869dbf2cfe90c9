"""The foundation: tenants, spaces, collections, documents, chunks and their vectors, with roles and policies.

A revision is frozen once released: it spells its SQL out instead of importing today's schema.
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Roles belong to the whole server: made where missing, never dropped. Two databases of one server may
# migrate at once, hence the caught duplicates.
ROLES = """
DO $$
DECLARE wanted text;
BEGIN
  IF current_setting('server_version_num')::int < 160000 THEN
    RAISE EXCEPTION 'Postgres % is too old: pgrecall needs 16 or later', current_setting('server_version');
  END IF;
  FOREACH wanted IN ARRAY ARRAY['pgrecall_app', 'pgrecall_maintenance'] LOOP
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted) THEN
      BEGIN
        EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION', wanted);
      EXCEPTION
        WHEN duplicate_object OR unique_violation THEN NULL;
        WHEN insufficient_privilege THEN
          RAISE EXCEPTION 'role % is missing and % may not create roles', wanted, current_user
            USING HINT = format('An administrator runs first: CREATE ROLE pgrecall_app NOLOGIN NOBYPASSRLS; '
              'CREATE ROLE pgrecall_maintenance NOLOGIN NOBYPASSRLS; '
              'GRANT pgrecall_app, pgrecall_maintenance TO %I WITH INHERIT FALSE, SET TRUE;', current_user);
      END;
    END IF;
    -- Postgres 16 gives the maker of a role ADMIN, but not SET: a plain CREATEROLE migrator grants it to itself.
    IF NOT pg_has_role(current_user, wanted, 'SET') THEN
      BEGIN
        EXECUTE format('GRANT %I TO %I WITH INHERIT FALSE, SET TRUE', wanted, current_user);
      EXCEPTION WHEN insufficient_privilege THEN
        RAISE EXCEPTION '% may not SET ROLE %', current_user, wanted
          USING HINT = format('An administrator runs first: GRANT %I TO %I WITH INHERIT FALSE, SET TRUE;', wanted, current_user);
      END;
    END IF;
  END LOOP;
END $$
"""

# The extension may live in any schema (`extensions` on some hosts); the rest of this transaction finds it there.
EXTENSION = """
DO $$
DECLARE home text; version text; granted text;
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'vector') THEN
    BEGIN
      CREATE EXTENSION vector;
    EXCEPTION
      WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'extension vector is not installed and % may not install it', current_user
          USING HINT = 'An administrator runs first, in this database: CREATE EXTENSION vector;';
      WHEN undefined_file OR feature_not_supported THEN
        RAISE EXCEPTION 'extension vector is not available on this server'
          USING HINT = 'Install pgvector 0.7 or later for this Postgres, then run the upgrade again.';
    END;
  END IF;
  SELECT n.nspname, e.extversion INTO home, version
    FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector';
  IF string_to_array(substring(version from '^\\d+\\.\\d+'), '.')::int[] < ARRAY[0, 7] THEN
    RAISE EXCEPTION 'pgvector % is too old: halfvec needs 0.7 or later', version
      USING HINT = 'An administrator runs first, in this database: ALTER EXTENSION vector UPDATE;';
  END IF;
  FOREACH granted IN ARRAY ARRAY['pgrecall_app', 'pgrecall_maintenance'] LOOP
    IF NOT has_schema_privilege(granted, home, 'USAGE') THEN
      BEGIN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', home, granted);
      EXCEPTION WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'role % may not use schema %, where extension vector lives', granted, home
          USING HINT = format('An administrator runs first: GRANT USAGE ON SCHEMA %I TO pgrecall_app, pgrecall_maintenance;', home);
      END;
    END IF;
  END LOOP;
  PERFORM set_config('search_path', format('pg_catalog, %I', home), true);
END $$
"""

TABLES = """
CREATE TABLE pgrecall.tenants (
  tenant_id text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  erased_at timestamptz,
  CONSTRAINT tenants_pkey PRIMARY KEY (tenant_id),
  CONSTRAINT tenants_id_length CHECK (octet_length(tenant_id) BETWEEN 1 AND 200)
);
CREATE TABLE pgrecall.embed_spaces (
  id smallint NOT NULL,
  provider text NOT NULL,
  model text NOT NULL,
  dim integer NOT NULL,
  distance text NOT NULL,
  graph_generation smallint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT embed_spaces_pkey PRIMARY KEY (id),
  CONSTRAINT embed_spaces_identity UNIQUE (provider, model, dim, distance),
  CONSTRAINT embed_spaces_id_dim UNIQUE (id, dim),
  CONSTRAINT embed_spaces_distance CHECK (distance IN ('cosine', 'l2', 'ip')),
  CONSTRAINT embed_spaces_dim CHECK (dim BETWEEN 1 AND 16000)
);
CREATE TABLE pgrecall.collections (
  tenant_id text NOT NULL,
  name text NOT NULL,
  space_id smallint NOT NULL,
  fingerprint real[],
  text_config text,
  settings jsonb NOT NULL DEFAULT '{}'::jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT collections_pkey PRIMARY KEY (tenant_id, name),
  CONSTRAINT collections_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES pgrecall.tenants (tenant_id),
  CONSTRAINT collections_space_fkey FOREIGN KEY (space_id) REFERENCES pgrecall.embed_spaces (id),
  CONSTRAINT collections_name_length CHECK (octet_length(name) BETWEEN 1 AND 200)
);
CREATE TABLE pgrecall.documents (
  tenant_id text NOT NULL,
  collection text NOT NULL,
  id text NOT NULL,
  source text,
  uri text,
  content_hash text,
  metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT documents_pkey PRIMARY KEY (tenant_id, collection, id),
  CONSTRAINT documents_collection_fkey FOREIGN KEY (tenant_id, collection)
    REFERENCES pgrecall.collections (tenant_id, name),
  CONSTRAINT documents_id_length CHECK (octet_length(id) BETWEEN 1 AND 1000)
);
CREATE TABLE pgrecall.chunks (
  tenant_id text NOT NULL,
  collection text NOT NULL,
  id text NOT NULL,
  doc_id text,
  chunk_index integer,
  text text NOT NULL,
  content_hash bytea NOT NULL,
  metadata jsonb NOT NULL DEFAULT '{}'::jsonb,
  payload jsonb,
  text_search tsvector,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT chunks_pkey PRIMARY KEY (tenant_id, collection, id),
  CONSTRAINT chunks_document_fkey FOREIGN KEY (tenant_id, collection, doc_id)
    REFERENCES pgrecall.documents (tenant_id, collection, id) ON DELETE CASCADE,
  CONSTRAINT chunks_id_length CHECK (octet_length(id) BETWEEN 1 AND 1000)
);
CREATE INDEX chunks_document_idx ON pgrecall.chunks (tenant_id, doc_id, collection);
CREATE INDEX chunks_metadata_idx ON pgrecall.chunks USING gin (metadata jsonb_path_ops);
CREATE INDEX chunks_text_search_idx ON pgrecall.chunks USING gin (text_search) WHERE text_search IS NOT NULL;
CREATE TABLE pgrecall.chunk_vectors (
  tenant_id text NOT NULL,
  collection text NOT NULL,
  chunk_id text NOT NULL,
  space_id smallint NOT NULL,
  embed_dim integer NOT NULL GENERATED ALWAYS AS (vector_dims(embedding)) STORED,
  embed_norm real NOT NULL,
  embedding halfvec NOT NULL,
  graph smallint NOT NULL DEFAULT 32767,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT chunk_vectors_pkey PRIMARY KEY (tenant_id, collection, chunk_id, space_id),
  CONSTRAINT chunk_vectors_chunk_fkey FOREIGN KEY (tenant_id, collection, chunk_id)
    REFERENCES pgrecall.chunks (tenant_id, collection, id) ON DELETE CASCADE,
  CONSTRAINT chunk_vectors_space_fkey FOREIGN KEY (space_id, embed_dim) REFERENCES pgrecall.embed_spaces (id, dim)
);
-- In line and uncompressed: an exact scan of 4,000 rows of 1,536 dims takes 3.2 ms, and 18 ms out of line.
ALTER TABLE pgrecall.chunk_vectors ALTER COLUMN embedding SET STORAGE MAIN;
CREATE INDEX chunk_vectors_scan_idx ON pgrecall.chunk_vectors (tenant_id, collection, space_id, graph);
CREATE VIEW pgrecall.chunk_embeddings WITH (security_invoker = true) AS
  SELECT v.tenant_id, v.collection, v.chunk_id, s.provider AS embed_provider, s.model AS embed_model,
         v.embed_dim, s.distance AS embed_distance, v.embed_norm, v.embedding, v.created_at
  FROM pgrecall.chunk_vectors v JOIN pgrecall.embed_spaces s ON s.id = v.space_id;
"""

TENANT_TABLES = ("tenants", "collections", "documents", "chunks", "chunk_vectors")

POLICIES = """
ALTER TABLE pgrecall.{table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE pgrecall.{table} FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON pgrecall.{table} TO pgrecall_app
  USING (tenant_id = nullif(current_setting('pgrecall.tenant_id', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('pgrecall.tenant_id', true), ''));
CREATE POLICY maintenance ON pgrecall.{table} TO pgrecall_maintenance USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgrecall.{table} TO pgrecall_app, pgrecall_maintenance;
"""

GRANTS = """
GRANT USAGE ON SCHEMA pgrecall TO pgrecall_app, pgrecall_maintenance;
GRANT SELECT, INSERT ON pgrecall.embed_spaces TO pgrecall_app;
GRANT SELECT, INSERT, UPDATE ON pgrecall.embed_spaces TO pgrecall_maintenance;
GRANT SELECT ON pgrecall.alembic_version, pgrecall.chunk_embeddings TO pgrecall_app, pgrecall_maintenance;
"""


def _run(script: str) -> None:
    for statement in filter(None, (part.strip() for part in script.split(";\n"))):
        op.execute(statement)


def upgrade() -> None:
    op.execute(ROLES)
    op.execute(EXTENSION)
    _run(TABLES)
    for table in TENANT_TABLES:
        _run(POLICIES.format(table=table))
    _run(GRANTS)


def downgrade() -> None:
    # The extension and the roles stay: other schemas and other databases may use them.
    _run("""
DROP VIEW pgrecall.chunk_embeddings;
DROP TABLE pgrecall.chunk_vectors, pgrecall.chunks, pgrecall.documents, pgrecall.collections,
  pgrecall.embed_spaces, pgrecall.tenants;
REVOKE ALL ON pgrecall.alembic_version FROM pgrecall_app, pgrecall_maintenance;
REVOKE ALL ON SCHEMA pgrecall FROM pgrecall_app, pgrecall_maintenance;
""")
