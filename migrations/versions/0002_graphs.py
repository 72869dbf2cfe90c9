"""Graphs: the number of rows that went into each space's graph, so that maintenance sees how many it lost."""

from __future__ import annotations

from alembic import op

from pgrecall import revisions

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# Drops graphs by the pattern of their names. The previous version does not know graphs and would report them as drift.
DROP_GRAPHS = """
DO $$
DECLARE
  item text;
BEGIN
  FOR item IN SELECT format('DROP INDEX pgrecall.%I', c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'pgrecall' AND c.relkind = 'i' AND c.relname ~ '^chunk_vectors_graph_[0-9]+_[0-9]+$'
  LOOP
    EXECUTE item;
  END LOOP;
END $$
"""


def upgrade() -> None:
    revisions.prepare()
    revisions.run("ALTER TABLE pgrecall.embed_spaces ADD COLUMN graph_rows integer NOT NULL DEFAULT 0;\n")


def downgrade() -> None:
    op.execute(DROP_GRAPHS)
    with revisions.unforced("chunk_vectors"):
        revisions.run(
            "UPDATE pgrecall.chunk_vectors SET graph = 32767 WHERE graph <> 32767;\n"
            "ALTER TABLE pgrecall.embed_spaces DROP COLUMN graph_rows;\n"
        )
    op.execute("UPDATE pgrecall.embed_spaces SET graph_generation = 0")
