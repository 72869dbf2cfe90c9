"""Graphs: the collections that use them, how rows enter them, and the indexes themselves.

If the vectors are partitioned, a graph is an index on each partition. A search is planned for its tenant's partition
only, and an index on the parent could be neither built nor dropped concurrently with searches.
"""

from __future__ import annotations

# What the router asks from time to time. Counts are bounded, so that a huge collection costs no more than a small one.
ROUTE = """
SELECT c.settings->'keys', c.settings->'graph', s.graph_generation,
  (SELECT count(*) FROM (SELECT FROM pgrecall.chunk_vectors v
    WHERE v.tenant_id = %(tenant)s AND v.collection = %(collection)s AND v.space_id = %(space)s AND v.graph >= 0
    LIMIT %(most)s) counted),
  EXISTS (SELECT FROM pgrecall.chunk_vectors v
    WHERE v.tenant_id = %(tenant)s AND v.collection = %(collection)s AND v.space_id = %(space)s
      AND v.graph >= 0 AND v.graph <= s.graph_generation),
  (SELECT count(*) FROM (SELECT FROM pgrecall.chunk_vectors v
    WHERE v.tenant_id = %(tenant)s AND v.collection = %(collection)s AND v.space_id = %(space)s
      AND v.graph >= 0 AND v.graph > s.graph_generation
    LIMIT %(most)s) counted),
  c.text_config, c.text_config IS NOT NULL AND NOT c.settings ? 'text_pending'
FROM pgrecall.collections c JOIN pgrecall.embed_spaces s ON s.id = c.space_id
WHERE c.tenant_id = %(tenant)s AND c.name = %(collection)s AND s.id = %(space)s
"""

# The generations whose graph can be searched: complete and valid in each partition. It reads catalogs only, because
# Citus sends statements that read a tenant's table to a worker.
VALID = """
SELECT substring(x.relname from '^chunk_vectors_graph_[0-9]+_([0-9]+)')::int4
FROM pg_catalog.pg_class x JOIN pg_catalog.pg_index i ON i.indexrelid = x.oid
JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
WHERE n.nspname = 'pgrecall' AND x.relname >= %(low)s AND x.relname < %(high)s
  AND x.relname ~ '^chunk_vectors_graph_[0-9]+_[0-9]+(_p[0-9]+)?$'
  -- Before 0.8 a graph search could not go on where other tenants' rows were nearer.
  AND (SELECT string_to_array(extversion, '.')::int[] >= ARRAY[0, 8]
    FROM pg_catalog.pg_extension WHERE extname = 'vector')
GROUP BY 1, n.oid
HAVING bool_and(i.indisvalid) AND count(*) = greatest(1, (
  SELECT count(*) FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class t ON t.oid = h.inhparent
  WHERE t.relnamespace = n.oid AND t.relname = 'chunk_vectors'))
"""


def names_of(space_id: int) -> dict[str, str]:
    """The parameters of VALID: the range of the names of a space's graphs."""
    stem = f"chunk_vectors_graph_{space_id}"
    return {"low": f"{stem}_", "high": f"{stem}{chr(ord('_') + 1)}"}


# All of one collection, as the tenant: rows in the graph, and waiting rows.
HELD = """
SELECT count(*) FILTER (WHERE graph <= %(generation)s), count(*) FILTER (WHERE graph > %(generation)s)
FROM pgrecall.chunk_vectors
WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND space_id = %(space)s AND graph >= 0
"""

SPACES = """
SELECT id, provider, model, dim, distance, graph_generation, graph_rows FROM pgrecall.embed_spaces ORDER BY id
"""

# Across all tenants, as the maintenance role: each collection of the space, its rows in the graph and waiting rows.
COLLECTIONS = """
SELECT tenant_id, collection, count(*) FILTER (WHERE graph <= %(generation)s),
  count(*) FILTER (WHERE graph > %(generation)s)
FROM pgrecall.chunk_vectors WHERE space_id = %(space)s AND graph >= 0
GROUP BY tenant_id, collection ORDER BY tenant_id, collection
"""

# Every `step`-th vector of the graph among a collection's first rows: a sample for the cost of one bounded scan.
SAMPLE = """
SELECT chunk_id, halfvec_send(embedding) FROM (
  SELECT chunk_id, embedding, row_number() OVER () AS number FROM pgrecall.chunk_vectors
  WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND space_id = %(space)s
    AND graph >= 0 AND graph <= %(generation)s
  LIMIT %(most)s) numbered
WHERE number %% %(step)s::int8 = 0 LIMIT %(count)s
"""

# SKIP LOCKED: a writer that holds a row is about to change it, so it stays waiting. A statement that never waits can't
# deadlock with writers, which lock chunks before their vectors.
PROMOTE = """
WITH picked AS MATERIALIZED (
  SELECT collection, chunk_id FROM pgrecall.chunk_vectors
  WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND space_id = %(space)s
    AND graph >= 0 AND graph > %(generation)s
  LIMIT %(batch)s FOR NO KEY UPDATE SKIP LOCKED)
UPDATE pgrecall.chunk_vectors v SET graph = %(generation)s FROM picked p
WHERE v.tenant_id = %(tenant)s AND v.collection = p.collection AND v.chunk_id = p.chunk_id AND v.space_id = %(space)s
"""

# What is stored about a collection for searches of its graph: its rows as maintenance counted them, and the `ef_search`
# that was found for it.
NOTE = """
UPDATE pgrecall.collections
SET settings = jsonb_set(settings, '{graph}', coalesce(settings->'graph', '{}'::jsonb) || %(noted)s::jsonb)
WHERE tenant_id = %(tenant)s AND name = %(collection)s
"""

FORGET_BREADTH = """
UPDATE pgrecall.collections SET settings = settings #- '{graph,ef_search}'
WHERE tenant_id = %(tenant)s AND name = %(collection)s
"""

# For maintenance, which counts each time. Written only if the count changed by more than a fifth.
NOTE_ROWS = (
    NOTE.rstrip()
    + """
  AND abs(coalesce((settings #>> '{graph,rows}')::int8, 0) - %(rows)s::int8) > %(rows)s::int8 / 5
"""
)

VERSION = """
SELECT extversion, string_to_array(extversion, '.')::int[] >= ARRAY[0, 8]
FROM pg_catalog.pg_extension WHERE extname = 'vector'
"""

SET_GENERATION = """
UPDATE pgrecall.embed_spaces SET graph_generation = %(generation)s, graph_rows = %(rows)s WHERE id = %(space)s
"""

#: The tables that have graphs, and the suffix of the graphs' names there.
TABLES = """
SELECT c.relname::text, coalesce('_' || substring(c.relname from 'p[0-9]+$'), '')
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_inherits h ON h.inhrelid = c.oid
WHERE n.nspname = 'pgrecall' AND (c.relname = 'chunk_vectors' AND c.relkind = 'r'
  OR h.inhparent = (
    SELECT t.oid FROM pg_catalog.pg_class t WHERE t.relnamespace = n.oid AND t.relname = 'chunk_vectors'))
ORDER BY length(c.relname), c.relname
"""

# The rows of a generation in each partition, across all tenants, as the maintenance role.
PARTS = """
SELECT c.relname::text, count(*)::int8 FROM pgrecall.chunk_vectors v JOIN pg_catalog.pg_class c ON c.oid = v.tableoid
WHERE v.space_id = %(space)s AND v.graph >= 0 AND v.graph <= %(generation)s GROUP BY c.relname
"""

INDEXES = """
SELECT x.relname::text, i.indisvalid, coalesce(x.reloptions, '{}')
FROM pg_catalog.pg_class x
JOIN pg_catalog.pg_index i ON i.indexrelid = x.oid JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
WHERE n.nspname = 'pgrecall' AND x.relname ~ %(pattern)s ORDER BY 1
"""

# A session lock, polled: a statement that waits for it would hold a snapshot, for which CREATE INDEX CONCURRENTLY
# waits.
TRY_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('pgrecall.graphs', 0::int8))"

# Overrides the settings of the role and the database: builds take long, and the session must live on to hold the lock.
OWNER_SETTINGS = """
SELECT set_config(name, CASE name WHEN 'lock_timeout' THEN %(lock_timeout)s ELSE '0' END, false)
FROM pg_catalog.pg_settings
WHERE name IN ('lock_timeout', 'statement_timeout', 'transaction_timeout', 'idle_session_timeout')
"""

SIZES = """
SELECT pg_size_bytes(current_setting('maintenance_work_mem')), pg_size_bytes(current_setting('shared_buffers')),
  greatest(1, current_setting('max_parallel_workers')::int / 2)
"""

BUILD_SETTINGS = """
SELECT set_config('maintenance_work_mem', %(memory)s, false),
  set_config('max_parallel_maintenance_workers', %(workers)s, false)
"""

PROGRESS = """
SELECT phase, blocks_done, blocks_total FROM pg_catalog.pg_stat_progress_create_index
WHERE pid = %(pid)s AND datname = current_database()
"""
