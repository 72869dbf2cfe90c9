"""Re-embedding: the vectors of the next space next to those of the active one, the switch, and the cleanup.

A vector of the next space is written only while its chunk's row is locked and still is the version that was read (its
xmin). A later change of the chunk deletes the vector in the same transaction (FORGET). So no stored vector is stale,
and missing ones are found again.
"""

# Locks the tenant first, like every writer, then the collection, which waits for current writers.
HELD = """
SELECT t.erased_at, c.space_id, c.next_space_id, c.next_fingerprint, c.fingerprint,
  s.provider, s.model, s.dim, s.distance, n.provider, n.model, n.dim, n.distance
FROM pgrecall.tenants t JOIN pgrecall.collections c ON c.tenant_id = t.tenant_id
JOIN pgrecall.embed_spaces s ON s.id = c.space_id LEFT JOIN pgrecall.embed_spaces n ON n.id = c.next_space_id
WHERE t.tenant_id = %(tenant)s AND c.tenant_id = %(tenant)s AND c.name = %(collection)s
FOR SHARE OF t FOR NO KEY UPDATE OF c
"""

#: As HELD, but concurrent with writers: the collection's spaces, which can't change during the batch.
STILL = """
SELECT c.space_id, c.next_space_id
FROM pgrecall.tenants t JOIN pgrecall.collections c ON c.tenant_id = t.tenant_id
WHERE t.tenant_id = %(tenant)s AND c.tenant_id = %(tenant)s AND c.name = %(collection)s
FOR SHARE OF t, c
"""

BEGIN = """
UPDATE pgrecall.collections SET next_space_id = %(space)s, next_fingerprint = %(fingerprint)s::float4[]
WHERE tenant_id = %(tenant)s AND name = %(collection)s
"""

CANCEL = """
UPDATE pgrecall.collections SET next_space_id = NULL, next_fingerprint = NULL
WHERE tenant_id = %(tenant)s AND name = %(collection)s
"""

# The settings of the old space's graph do not apply to the new space's.
SWITCH = """
UPDATE pgrecall.collections
SET space_id = next_space_id, fingerprint = next_fingerprint, next_space_id = NULL, next_fingerprint = NULL,
  settings = settings - 'graph'
WHERE tenant_id = %(tenant)s AND name = %(collection)s AND next_space_id = %(space)s
"""

# One statement, so that both counts are consistent. Every vector has a chunk, and a chunk has at most one vector of a
# space, so equal counts prove that none is missing.
COUNTS = """
SELECT
  (SELECT count(*) FROM pgrecall.chunks WHERE tenant_id = %(tenant)s AND collection = %(collection)s),
  (SELECT count(*) FROM pgrecall.chunk_vectors
    WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND space_id = %(space)s AND graph >= 0)
"""

# A page of ids, and its chunks without a vector of the space. At least one row, with the page's size and last id.
MISSING = """
WITH page AS MATERIALIZED (
  SELECT s.id FROM pgrecall.chunks s
  WHERE s.tenant_id = %(tenant)s AND s.collection = %(collection)s AND s.id > %(after)s
  ORDER BY s.id COLLATE "C" LIMIT %(batch)s),
lacking AS MATERIALIZED (
  SELECT p.id FROM page p LEFT JOIN LATERAL (
    SELECT true AS there FROM pgrecall.chunk_vectors v
    WHERE v.tenant_id = %(tenant)s AND v.collection = %(collection)s AND v.chunk_id = p.id AND v.space_id = %(space)s
    LIMIT 1) made ON true
  WHERE made.there IS NULL)
SELECT whole.size, whole.last, c.id, c.text, c.metadata, c.doc_id, c.chunk_index, c.payload, c.version
FROM (SELECT count(*) AS size, max(id COLLATE "C") AS last FROM page) whole
LEFT JOIN (lacking l JOIN LATERAL (
  SELECT s.id, s.text, s.metadata, s.doc_id, s.chunk_index, s.payload, s.xmin::text AS version FROM pgrecall.chunks s
  WHERE s.tenant_id = %(tenant)s AND s.collection = %(collection)s AND s.id = l.id LIMIT 1) c ON true) ON true
ORDER BY c.id COLLATE "C"
"""

FILL = """
INSERT INTO pgrecall.chunk_vectors (tenant_id, collection, chunk_id, space_id, embed_norm, embedding)
SELECT %(tenant)s, %(collection)s, i.id, %(space)s, i.norm, i.embedding
FROM unnest(%(ids)s::text[], %(versions)s::text[], %(norms)s::float4[], %(embeddings)s::halfvec[])
  AS i (id, version, norm, embedding)
JOIN LATERAL (
  SELECT FROM pgrecall.chunks c
  WHERE c.tenant_id = %(tenant)s AND c.collection = %(collection)s AND c.id = i.id AND c.xmin::text = i.version
  LIMIT 1 FOR NO KEY UPDATE) same ON true
ON CONFLICT DO NOTHING
RETURNING 1
"""

# For a writer that changed these chunks and holds their rows. It selects the collection as in `reads._same`.
FORGET = """
WITH changed AS MATERIALIZED (
  SELECT %(collection)s::text AS collection, i.id FROM unnest(%(ids)s::text[]) AS i (id))
DELETE FROM pgrecall.chunk_vectors v USING changed c
WHERE v.tenant_id = %(tenant)s AND v.collection = c.collection AND v.chunk_id = c.id AND v.space_id = %(space)s
"""

# Every `step`-th vector of the space among the first rows, with its chunk, and the chunk's vector of the old space.
SAMPLE = """
SELECT halfvec_send(n.embedding), halfvec_send(o.embedding),
  c.id, c.text, c.metadata, c.doc_id, c.chunk_index, c.payload
FROM (
  SELECT chunk_id, embedding, row_number() OVER () AS number FROM pgrecall.chunk_vectors
  WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND space_id = %(space)s AND graph >= 0
  LIMIT %(most)s) n
JOIN LATERAL (
  SELECT s.id, s.text, s.metadata, s.doc_id, s.chunk_index, s.payload FROM pgrecall.chunks s
  WHERE s.tenant_id = %(tenant)s AND s.collection = %(collection)s AND s.id = n.chunk_id LIMIT 1) c ON true
JOIN LATERAL (
  SELECT s.embedding FROM pgrecall.chunk_vectors s
  WHERE s.tenant_id = %(tenant)s AND s.collection = %(collection)s AND s.chunk_id = n.chunk_id AND s.space_id = %(old)s
  LIMIT 1) o ON true
WHERE n.number %% %(step)s::int8 = 0 LIMIT %(count)s
"""

SPACES = """
SELECT DISTINCT space_id FROM pgrecall.chunk_vectors
WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND graph >= 0
"""

# SKIP LOCKED: never waits for deletes of chunks, which lock the chunk before its vectors.
DROP = """
WITH picked AS MATERIALIZED (
  SELECT collection, chunk_id FROM pgrecall.chunk_vectors
  WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND space_id = %(space)s AND graph >= 0
  LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
DELETE FROM pgrecall.chunk_vectors v USING picked p
WHERE v.tenant_id = %(tenant)s AND v.collection = p.collection AND v.chunk_id = p.chunk_id AND v.space_id = %(space)s
"""

LEFT = """
SELECT EXISTS (SELECT FROM pgrecall.chunk_vectors
  WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND space_id = %(space)s AND graph >= 0)
"""
