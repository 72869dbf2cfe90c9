"""Declared keys: metadata whose filters can use an index under row-level security."""

from __future__ import annotations

from pgrecall import revisions

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLE = """
CREATE TABLE pgrecall.chunk_keys (
  tenant_id text NOT NULL,
  collection text NOT NULL,
  chunk_id text COLLATE "C" NOT NULL,
  key smallint NOT NULL,
  value text COLLATE "C" NOT NULL,
  -- The chunk first: without statistics a key that began with the collection would cost a lookup by value no more than
  -- the index below, which is for that, and be read for the whole collection.
  CONSTRAINT chunk_keys_pkey PRIMARY KEY (chunk_id, tenant_id, collection, key, value),
  CONSTRAINT chunk_keys_chunk_fkey FOREIGN KEY (tenant_id, collection, chunk_id)
    REFERENCES pgrecall.chunks (tenant_id, collection, id) ON DELETE CASCADE
);
-- Partial, though every row is in it: the cascade's cached plan must not take it for the primary key.
CREATE INDEX chunk_keys_value_idx ON pgrecall.chunk_keys (tenant_id, collection, key, value, chunk_id) WHERE key >= 0;
ALTER TABLE pgrecall.chunk_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE pgrecall.chunk_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON pgrecall.chunk_keys TO pgrecall_app
  USING (tenant_id = nullif(current_setting('pgrecall.tenant_id', true), ''))
  WITH CHECK (tenant_id = nullif(current_setting('pgrecall.tenant_id', true), ''));
CREATE POLICY maintenance ON pgrecall.chunk_keys TO pgrecall_maintenance USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON pgrecall.chunk_keys TO pgrecall_app, pgrecall_maintenance;
"""


def upgrade() -> None:
    revisions.prepare()
    revisions.run(TABLE)


def downgrade() -> None:
    # Declarations are removed with their rows. After a new upgrade, a key marked as filled would find nothing.
    with revisions.unforced("collections"):
        revisions.run("""
DROP TABLE pgrecall.chunk_keys;
UPDATE pgrecall.collections SET settings = settings - 'keys' - 'key_numbers'
  WHERE settings ?| ARRAY['keys', 'key_numbers'];
""")
