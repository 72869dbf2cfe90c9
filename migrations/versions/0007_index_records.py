"""Index records: the keys that ingestions wrote, when each was last seen, and its group."""

from __future__ import annotations

from alembic import op

from pgrecall import revisions

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE pgrecall.index_records (
  tenant_id text NOT NULL,
  collection text NOT NULL,
  namespace text NOT NULL,
  key text COLLATE "C" NOT NULL,
  group_id text,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT index_records_pkey PRIMARY KEY (tenant_id, collection, namespace, key),
  CONSTRAINT index_records_tenant_length CHECK (octet_length(tenant_id) BETWEEN 1 AND 200),
  CONSTRAINT index_records_collection_length CHECK (octet_length(collection) BETWEEN 1 AND 200),
  CONSTRAINT index_records_namespace_length CHECK (octet_length(namespace) <= 200),
  CONSTRAINT index_records_key_length CHECK (octet_length(key) BETWEEN 1 AND 1000),
  CONSTRAINT index_records_group_length CHECK (octet_length(group_id) BETWEEN 1 AND 1000)
);
CREATE INDEX index_records_group_idx ON pgrecall.index_records (tenant_id, collection, namespace, group_id)
  WHERE group_id IS NOT NULL;
ALTER TABLE pgrecall.index_records ENABLE ROW LEVEL SECURITY;
ALTER TABLE pgrecall.index_records FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON pgrecall.index_records TO pgrecall_app
  USING (tenant_id = nullif(current_setting('pgrecall.tenant_id', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('pgrecall.tenant_id', true), ''));
CREATE POLICY maintenance ON pgrecall.index_records TO pgrecall_maintenance USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgrecall.index_records TO pgrecall_app, pgrecall_maintenance;
"""


def upgrade() -> None:
    revisions.prepare()
    revisions.run(TABLE)


def downgrade() -> None:
    op.execute("DROP TABLE pgrecall.index_records")
