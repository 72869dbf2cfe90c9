"""Re-embedding: the space that is being filled while the active one answers."""

from __future__ import annotations

from pgrecall import revisions

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE pgrecall.collections
  ADD COLUMN next_space_id smallint,
  ADD COLUMN next_fingerprint real[],
  ADD CONSTRAINT collections_next_space_fkey FOREIGN KEY (next_space_id) REFERENCES pgrecall.embed_spaces (id);
"""


def upgrade() -> None:
    revisions.prepare()
    revisions.run(COLUMNS)


def downgrade() -> None:
    # Deletes the vectors of unfinished spaces, which nothing would find or delete later.
    with revisions.unforced("collections", "chunk_vectors"):
        revisions.run("""
DELETE FROM pgrecall.chunk_vectors v USING pgrecall.collections c
  WHERE c.next_space_id IS NOT NULL AND v.tenant_id = c.tenant_id AND v.collection = c.name
    AND v.space_id = c.next_space_id;
ALTER TABLE pgrecall.collections DROP COLUMN next_space_id, DROP COLUMN next_fingerprint;
""")
