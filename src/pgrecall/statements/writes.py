"""Upserts: whole columns as binary arrays, unchanged rows left out before anything is computed or locked.

Rows come sorted by id in code point order, and the inserts keep that order, so that writers that meet take their
locks in the same order: documents, then chunks, then vectors, each by id.
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

# Documents that chunks name and nobody described: a row must exist, and one that does keeps its provenance.
NAMED_DOCUMENTS = """
INSERT INTO pgrecall.documents (tenant_id, collection, id)
SELECT %(tenant)s, %(collection)s, i.id FROM unnest(%(ids)s::text[]) AS i (id)
WHERE NOT EXISTS (
  SELECT FROM pgrecall.documents d
  WHERE d.tenant_id = %(tenant)s AND d.collection = %(collection)s AND d.id = i.id)
ORDER BY i.id COLLATE "C"
ON CONFLICT DO NOTHING
"""

LOCK_DOCUMENT = """
SELECT FROM pgrecall.documents
WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND id = %(doc_id)s FOR NO KEY UPDATE
"""

# Left-joined to the primary key by LATERAL … LIMIT 1, not NOT EXISTS: without statistics the planner would hash the
# tenant's whole collection for each batch.
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
  LIMIT 1) same ON true
WHERE same.unchanged IS NULL
ORDER BY i.id COLLATE "C"
ON CONFLICT (tenant_id, collection, id) DO UPDATE
SET doc_id = excluded.doc_id, chunk_index = excluded.chunk_index, text = excluded.text,
    content_hash = excluded.content_hash, metadata = excluded.metadata, payload = excluded.payload,
    text_search = excluded.text_search
RETURNING id
"""

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
ORDER BY i.id COLLATE "C"
ON CONFLICT (tenant_id, collection, chunk_id, space_id) DO UPDATE
-- A changed vector leaves the graph (back to waiting) until maintenance takes it in again.
SET embedding = excluded.embedding, embed_norm = excluded.embed_norm, graph = excluded.graph
RETURNING chunk_id
"""

#: Of chunks that come without a vector: those whose stored text is the same and which have one.
KEPT = """
SELECT i.id
FROM unnest(%(ids)s::text[], %(hashes)s::bytea[]) AS i (id, content_hash)
JOIN pgrecall.chunks c ON c.tenant_id = %(tenant)s AND c.collection = %(collection)s AND c.id = i.id
  AND c.content_hash = i.content_hash
JOIN pgrecall.chunk_vectors v ON v.tenant_id = %(tenant)s AND v.collection = %(collection)s AND v.chunk_id = i.id
  AND v.space_id = %(space)s
"""

# Chunks before their vectors, in the order of every other writer: taken the other way round, a delete and an upsert
# of one chunk would deadlock.
LOCK_STALE = """
WITH locked AS (
  SELECT id FROM pgrecall.chunks
  WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND doc_id = %(doc_id)s
    AND id <> ALL (%(ids)s::text[])
  ORDER BY id COLLATE "C" FOR UPDATE)
SELECT count(*) FROM locked
"""

DELETE_STALE = """
DELETE FROM pgrecall.chunks
WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND doc_id = %(doc_id)s AND id <> ALL (%(ids)s::text[])
"""
