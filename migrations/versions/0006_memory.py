"""Memory: facts with versions and vectors, the trail of changes, and the tombstones of erased subjects."""

from __future__ import annotations

from pgrecall import revisions

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE pgrecall.memory_settings (
  tenant_id text NOT NULL,
  space_id smallint,
  fingerprint real[],
  text_config text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT memory_settings_pkey PRIMARY KEY (tenant_id),
  CONSTRAINT memory_settings_space_fkey FOREIGN KEY (space_id) REFERENCES pgrecall.embed_spaces (id)
);
-- A subject of '' is none: equality finds it by an index, which IS NOT DISTINCT FROM would not.
CREATE TABLE pgrecall.memory_facts (
  tenant_id text NOT NULL,
  id text COLLATE "C" NOT NULL,
  namespace text[] COLLATE "C" NOT NULL,
  subject text COLLATE "C" NOT NULL,
  kind text COLLATE "C" NOT NULL,
  key text COLLATE "C" NOT NULL,
  value jsonb NOT NULL,
  text text,
  source text,
  confidence double precision,
  actor text NOT NULL,
  valid_from timestamptz NOT NULL,
  valid_to timestamptz,
  supersedes_id text COLLATE "C",
  ttl double precision,
  ttl_refresh boolean NOT NULL,
  expires_at timestamptz,
  deleted_at timestamptz,
  purge_at timestamptz,
  text_search tsvector,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT memory_facts_pkey PRIMARY KEY (tenant_id, id),
  CONSTRAINT memory_facts_id_length CHECK (octet_length(id) BETWEEN 1 AND 200),
  CONSTRAINT memory_facts_identity_length CHECK (octet_length(subject) + octet_length(kind) + octet_length(key)
    + octet_length(pg_catalog.array_to_string(namespace, '')) + 8 * cardinality(namespace) <= 2000),
  CONSTRAINT memory_facts_identity_named CHECK (octet_length(kind) >= 1 AND octet_length(key) >= 1),
  CONSTRAINT memory_facts_confidence CHECK (confidence BETWEEN 0 AND 1)
);
CREATE UNIQUE INDEX memory_facts_live_key ON pgrecall.memory_facts (tenant_id, subject, kind, key, namespace)
  WHERE valid_to IS NULL AND deleted_at IS NULL;
-- Not for the lookup of one fact, which says nothing about namespaces that are not empty: without statistics it would
-- win over the live key, and walk all facts of the namespace.
CREATE INDEX memory_facts_namespace_idx ON pgrecall.memory_facts (tenant_id, namespace)
  WHERE valid_to IS NULL AND deleted_at IS NULL AND namespace <> '{}';
-- Partial, though every row is in it: no foreign key's check may take it for the primary key.
CREATE INDEX memory_facts_versions_idx ON pgrecall.memory_facts (tenant_id, subject, kind, key, valid_from)
  WHERE valid_from > '-infinity';
CREATE INDEX memory_facts_expires_idx ON pgrecall.memory_facts (tenant_id, expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX memory_facts_purge_idx ON pgrecall.memory_facts (tenant_id, purge_at) WHERE purge_at IS NOT NULL;
CREATE INDEX memory_facts_text_search_idx ON pgrecall.memory_facts USING gin (text_search)
  WHERE text_search IS NOT NULL;
CREATE TABLE pgrecall.fact_vectors (
  tenant_id text NOT NULL,
  fact_id text COLLATE "C" NOT NULL,
  field text COLLATE "C" NOT NULL,
  space_id smallint NOT NULL,
  embed_dim integer NOT NULL GENERATED ALWAYS AS (vector_dims(embedding)) STORED,
  embed_norm real NOT NULL,
  embedding halfvec NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT fact_vectors_pkey PRIMARY KEY (tenant_id, fact_id, field, space_id),
  CONSTRAINT fact_vectors_fact_fkey FOREIGN KEY (tenant_id, fact_id)
    REFERENCES pgrecall.memory_facts (tenant_id, id) ON DELETE CASCADE,
  CONSTRAINT fact_vectors_space_fkey FOREIGN KEY (space_id, embed_dim) REFERENCES pgrecall.embed_spaces (id, dim),
  CONSTRAINT fact_vectors_field_length CHECK (octet_length(field) BETWEEN 1 AND 1000)
);
ALTER TABLE pgrecall.fact_vectors ALTER COLUMN embedding SET STORAGE MAIN;
CREATE TABLE pgrecall.memory_events (
  tenant_id text NOT NULL,
  id text COLLATE "C" NOT NULL,
  at timestamptz NOT NULL,
  action text NOT NULL,
  target_id text COLLATE "C",
  subject text COLLATE "C",
  actor text,
  reason text,
  detail jsonb,
  CONSTRAINT memory_events_pkey PRIMARY KEY (tenant_id, id)
);
CREATE INDEX memory_events_target_idx ON pgrecall.memory_events (tenant_id, target_id) WHERE target_id IS NOT NULL;
CREATE INDEX memory_events_subject_idx ON pgrecall.memory_events (tenant_id, subject) WHERE subject IS NOT NULL;
CREATE TABLE pgrecall.erased_subjects (
  tenant_id text NOT NULL,
  subject_hash bytea NOT NULL,
  salt bytea NOT NULL,
  erased_at timestamptz NOT NULL,
  CONSTRAINT erased_subjects_pkey PRIMARY KEY (tenant_id, subject_hash)
);
"""

SECURED = """
ALTER TABLE pgrecall.{table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE pgrecall.{table} FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON pgrecall.{table} TO pgrecall_app
  USING (tenant_id = nullif(current_setting('pgrecall.tenant_id', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('pgrecall.tenant_id', true), ''));
CREATE POLICY maintenance ON pgrecall.{table} TO pgrecall_maintenance USING ({everywhere}) WITH CHECK ({everywhere});
GRANT SELECT, INSERT, UPDATE, DELETE ON pgrecall.{table} TO pgrecall_maintenance;
GRANT {granted} ON pgrecall.{table} TO pgrecall_app;
"""

OWN_TENANT = "tenant_id = nullif(current_setting('pgrecall.tenant_id', true), '')"
ALL = "SELECT, INSERT, UPDATE, DELETE"


def upgrade() -> None:
    revisions.prepare()
    revisions.run(TABLES)
    for table in ("memory_settings", "memory_facts", "fact_vectors", "erased_subjects"):
        revisions.run(SECURED.format(table=table, everywhere="true", granted=ALL))
    # The application appends to the trail and reads it. Even the maintenance role alters one tenant's rows at a time.
    revisions.run(SECURED.format(table="memory_events", everywhere=OWN_TENANT, granted="SELECT, INSERT"))


def downgrade() -> None:
    revisions.run(
        "DROP TABLE pgrecall.fact_vectors, pgrecall.memory_facts, pgrecall.memory_settings, pgrecall.memory_events,\n"
        "  pgrecall.erased_subjects;\n"
    )
