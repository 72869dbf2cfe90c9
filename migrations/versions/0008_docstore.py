"""The document store: what an ingestion remembers about its documents."""

from __future__ import annotations

from pgrecall import revisions

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLE = """
-- No foreign key to collections: a docstore may come before its collection, which names a space.
CREATE TABLE pgrecall.docstore (
  tenant_id text NOT NULL,
  collection text NOT NULL,
  id text COLLATE "C" NOT NULL,
  hash text,
  ref_doc_id text COLLATE "C",
  metadata jsonb,
  payload jsonb,
  position integer NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT docstore_pkey PRIMARY KEY (tenant_id, collection, id),
  CONSTRAINT docstore_collection_length CHECK (octet_length(collection) BETWEEN 1 AND 200),
  CONSTRAINT docstore_id_length CHECK (octet_length(id) BETWEEN 1 AND 1000),
  CONSTRAINT docstore_ref_doc_id_length CHECK (octet_length(ref_doc_id) BETWEEN 1 AND 1000)
);
CREATE INDEX docstore_ref_doc_idx ON pgrecall.docstore (tenant_id, ref_doc_id, collection)
  WHERE ref_doc_id IS NOT NULL;
ALTER TABLE pgrecall.docstore ENABLE ROW LEVEL SECURITY;
ALTER TABLE pgrecall.docstore FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON pgrecall.docstore TO pgrecall_app
  USING (tenant_id = nullif(current_setting('pgrecall.tenant_id', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('pgrecall.tenant_id', true), ''));
CREATE POLICY maintenance ON pgrecall.docstore TO pgrecall_maintenance USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgrecall.docstore TO pgrecall_app, pgrecall_maintenance;
"""


def upgrade() -> None:
    revisions.prepare()
    revisions.run(TABLE)


def downgrade() -> None:
    revisions.run("DROP TABLE pgrecall.docstore;\n")
