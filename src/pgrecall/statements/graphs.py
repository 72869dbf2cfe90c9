"""Graphs: which collections they pay for, how rows enter them, and the indexes themselves."""

# What the router asks once in a while: two bounded counts, so that a huge collection costs no more than a small one.
ROUTE = """
SELECT s.graph_generation,
  (SELECT count(*) FROM (SELECT FROM pgrecall.chunk_vectors v
    WHERE v.tenant_id = %(tenant)s AND v.collection = %(collection)s AND v.space_id = %(space)s AND v.graph >= 0
    LIMIT %(most)s) counted),
  EXISTS (SELECT FROM pg_catalog.pg_class x JOIN pg_catalog.pg_index i ON i.indexrelid = x.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
    WHERE n.nspname = 'pgrecall' AND i.indisvalid
      AND x.relname = concat('chunk_vectors_graph_', s.id, '_', s.graph_generation)
      -- Before 0.8 a graph search could not go on where other tenants' rows were nearer.
      AND (SELECT string_to_array(extversion, '.')::int[] >= ARRAY[0, 8]
        FROM pg_catalog.pg_extension WHERE extname = 'vector'))
FROM pgrecall.collections c JOIN pgrecall.embed_spaces s ON s.id = c.space_id
WHERE c.tenant_id = %(tenant)s AND c.name = %(collection)s AND s.id = %(space)s
"""

SPACES = """
SELECT id, provider, model, dim, distance, graph_generation, graph_rows FROM pgrecall.embed_spaces ORDER BY id
"""

# Over all tenants, for maintenance: every collection of the space, what the graph holds of it and what waits.
COLLECTIONS = """
SELECT tenant_id, collection, count(*) FILTER (WHERE graph <= %(generation)s),
  count(*) FILTER (WHERE graph > %(generation)s)
FROM pgrecall.chunk_vectors WHERE space_id = %(space)s AND graph >= 0
GROUP BY tenant_id, collection ORDER BY tenant_id, collection
"""

# SKIP LOCKED: a writer that holds a row is about to change it, so it stays waiting; and who never waits can't deadlock
# with those who lock chunks before their vectors.
PROMOTE = """
WITH picked AS MATERIALIZED (
  SELECT collection, chunk_id FROM pgrecall.chunk_vectors
  WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND space_id = %(space)s AND graph > %(generation)s
  LIMIT %(batch)s FOR NO KEY UPDATE SKIP LOCKED)
UPDATE pgrecall.chunk_vectors v SET graph = %(generation)s FROM picked p
WHERE v.tenant_id = %(tenant)s AND v.collection = p.collection AND v.chunk_id = p.chunk_id AND v.space_id = %(space)s
"""

VERSION = """
SELECT extversion, string_to_array(extversion, '.')::int[] >= ARRAY[0, 8]
FROM pg_catalog.pg_extension WHERE extname = 'vector'
"""

SET_GENERATION = """
UPDATE pgrecall.embed_spaces SET graph_generation = %(generation)s, graph_rows = %(rows)s WHERE id = %(space)s
"""

ADD_ROWS = "UPDATE pgrecall.embed_spaces SET graph_rows = graph_rows + %(rows)s WHERE id = %(space)s"

INDEXES = """
SELECT x.relname::text, i.indisvalid
FROM pg_catalog.pg_class x
JOIN pg_catalog.pg_index i ON i.indexrelid = x.oid JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
WHERE n.nspname = 'pgrecall' AND x.relname ~ %(pattern)s ORDER BY 1
"""

#: The same, named as a statement takes them.
NAMES = """
SELECT format('%%I.%%I', n.nspname, x.relname) FROM pg_catalog.pg_class x
JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
WHERE n.nspname = 'pgrecall' AND x.relkind = 'i' AND x.relname ~ %(pattern)s ORDER BY 1
"""

# For the session, polled: whoever waited for it within a statement would hold a snapshot, and CREATE INDEX CONCURRENTLY
# waits for those.
TRY_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('pgrecall.graphs', 0::int8))"

UNLOCK = "SELECT pg_advisory_unlock(hashtextextended('pgrecall.graphs', 0::int8))"
