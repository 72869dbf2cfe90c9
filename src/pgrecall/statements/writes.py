"""Upserts: whole columns as binary arrays. Unchanged rows are left out before anything is computed or locked.

Rows are sorted by id in code point order, and inserts keep that order. So concurrent writers take their locks in the
same order: documents, then chunks by id, each chunk before its vector. A writer or deleter of a vector holds its
chunk's row.
"""

DOCUMENTS = """
INSERT INTO pgrecall.documents AS d (tenant_id, collection, id, source, uri, content_hash, metadata)
SELECT %(tenant)s, %(collection)s, i.id, i.source, i.uri, i.content_hash, i.metadata
FROM unnest(%(ids)s::text[], %(sources)s::text[], %(uris)s::text[], %(hashes)s::text[], %(metadata)s::jsonb[])
  AS i (id, source, uri, content_hash, metadata)
ORDER BY i.id COLLATE "C"
ON CONFLICT (tenant_id, collection, id) DO UPDATE
SET source = excluded.source, uri = excluded.uri, content_hash = excluded.content_hash,
    metadata = excluded.metadata, updated_at = excluded.updated_at
WHERE (d.source, d.uri, d.content_hash, d.metadata)
  IS DISTINCT FROM (excluded.source, excluded.uri, excluded.content_hash, excluded.metadata)
"""

# Documents that chunks refer to without a description: a row must exist, and an existing row keeps its provenance.
# Existing rows are locked as the chunks' foreign key will lock them, but before any chunk. Deletes of documents lock in
# the same order, so the two can't deadlock.
NAMED_DOCUMENTS = """
WITH held AS MATERIALIZED (
  SELECT id FROM pgrecall.documents
  WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND id = ANY (%(ids)s::text[])
  ORDER BY id COLLATE "C" FOR KEY SHARE)
INSERT INTO pgrecall.documents (tenant_id, collection, id)
SELECT %(tenant)s, %(collection)s, i.id FROM unnest(%(ids)s::text[]) AS i (id)
WHERE i.id NOT IN (SELECT id FROM held)
ORDER BY i.id COLLATE "C"
ON CONFLICT DO NOTHING
"""

# LEFT JOIN LATERAL … LIMIT 1 by the primary key instead of NOT EXISTS: without statistics the planner would hash the
# tenant's whole collection for each batch. It also keeps the rows in the order of the arrays. An unchanged chunk is
# locked in its turn, because its vector may change.
CHUNKS = """
INSERT INTO pgrecall.chunks AS c
  (tenant_id, collection, id, doc_id, chunk_index, text, content_hash, metadata, payload, text_search)
SELECT %(tenant)s, %(collection)s, i.id, i.doc_id, i.chunk_index, i.text, i.content_hash, i.metadata, i.payload,
  CASE WHEN %(text_config)s::text IS NOT NULL THEN
    -- The prefix keeps the worst text below tsvector's limit of 1 MB; the text itself is stored whole.
    to_tsvector(%(text_config)s::text::regconfig, left(i.text, 100000)) END
FROM unnest(%(ids)s::text[], %(doc_ids)s::text[], %(indexes)s::int4[], %(texts)s::text[], %(hashes)s::bytea[],
  %(metadata)s::jsonb[], %(payloads)s::jsonb[])
  AS i (id, doc_id, chunk_index, text, content_hash, metadata, payload)
LEFT JOIN LATERAL (
  SELECT true AS unchanged FROM pgrecall.chunks s
  WHERE s.tenant_id = %(tenant)s AND s.collection = %(collection)s AND s.id = i.id
    AND s.content_hash = i.content_hash
    AND s.doc_id IS NOT DISTINCT FROM i.doc_id AND s.chunk_index IS NOT DISTINCT FROM i.chunk_index
    AND s.metadata = i.metadata AND s.payload IS NOT DISTINCT FROM i.payload
  LIMIT 1 FOR NO KEY UPDATE) same ON true
WHERE same.unchanged IS NULL
ON CONFLICT (tenant_id, collection, id) DO UPDATE
SET doc_id = excluded.doc_id, chunk_index = excluded.chunk_index, text = excluded.text,
    content_hash = excluded.content_hash, metadata = excluded.metadata, payload = excluded.payload,
    text_search = excluded.text_search
RETURNING id
"""

# Unchanged vectors are left out like unchanged chunks, and need no lock, because their chunk is locked. A lock writes
# to the row's page: with locks an unchanged ingest of 10,000 rows logged 9 MB more (whole pages, after a checkpoint).
VECTORS = """
INSERT INTO pgrecall.chunk_vectors AS v (tenant_id, collection, chunk_id, space_id, embed_norm, embedding)
SELECT %(tenant)s, %(collection)s, i.id, %(space)s, i.norm, i.embedding
FROM unnest(%(ids)s::text[], %(norms)s::float4[], %(embeddings)s::halfvec[]) AS i (id, norm, embedding)
LEFT JOIN LATERAL (
  SELECT true AS unchanged FROM pgrecall.chunk_vectors s
  WHERE s.tenant_id = %(tenant)s AND s.collection = %(collection)s AND s.chunk_id = i.id AND s.space_id = %(space)s
    AND s.embedding = i.embedding AND s.embed_norm = i.norm
  LIMIT 1) same ON true
WHERE same.unchanged IS NULL
ON CONFLICT (tenant_id, collection, chunk_id, space_id) DO UPDATE
-- A changed vector leaves the graph (back to waiting) until maintenance takes it in again.
SET embedding = excluded.embedding, embed_norm = excluded.embed_norm, graph = excluded.graph
WHERE (v.embedding, v.embed_norm) IS DISTINCT FROM (excluded.embedding, excluded.embed_norm)
RETURNING chunk_id
"""

# A replacement deletes and writes: all rows that it affects are locked in one pass, by id. One condition on the id
# instead of an OR with doc_id, for which the planner reads the whole collection without statistics.
LOCK_REPLACED = """
WITH locked AS (
  SELECT id FROM pgrecall.chunks
  WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND id = ANY (%(ids)s::text[] || ARRAY (
    SELECT d.id FROM pgrecall.chunks d
    WHERE d.tenant_id = %(tenant)s AND d.collection = %(collection)s AND d.doc_id = %(doc_id)s))
  ORDER BY id COLLATE "C" FOR UPDATE)
SELECT count(*) FROM locked
"""

#: Those chunks without a given vector whose stored text is the same, and which have a stored vector.
KEPT = """
SELECT i.id
FROM unnest(%(ids)s::text[], %(hashes)s::bytea[]) AS i (id, content_hash)
JOIN LATERAL (
  SELECT FROM pgrecall.chunks c
  WHERE c.tenant_id = %(tenant)s AND c.collection = %(collection)s AND c.id = i.id AND c.content_hash = i.content_hash
  LIMIT 1) same ON true
JOIN LATERAL (
  SELECT FROM pgrecall.chunk_vectors v
  WHERE v.tenant_id = %(tenant)s AND v.collection = %(collection)s AND v.chunk_id = i.id AND v.space_id = (
    SELECT s.id FROM pgrecall.embed_spaces s
    WHERE s.provider = %(provider)s AND s.model = %(model)s AND s.dim = %(dim)s AND s.distance = %(distance)s)
  LIMIT 1) has_one ON true
"""
