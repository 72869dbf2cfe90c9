"""The document store of an ingestion: entries by id, with their hash and the document that they came from.

Rows are sorted by id, so that concurrent writers take their locks in the same order.
"""

# An existing row keeps what the call does not set: setting only a hash keeps the payload, and the other way round.
PUT = """
INSERT INTO pgrecall.docstore AS d (tenant_id, collection, id, hash, ref_doc_id, metadata, payload, position)
SELECT %(tenant)s, %(collection)s, i.id, i.hash, i.ref_doc_id, i.metadata, i.payload, i.position
FROM unnest(%(ids)s::text[], %(hashes)s::text[], %(ref_doc_ids)s::text[], %(metadata)s::jsonb[], %(payloads)s::jsonb[],
  %(positions)s::int4[]) AS i (id, hash, ref_doc_id, metadata, payload, position)
ORDER BY i.id COLLATE "C"
ON CONFLICT (tenant_id, collection, id) DO UPDATE
SET hash = coalesce(excluded.hash, d.hash), ref_doc_id = coalesce(excluded.ref_doc_id, d.ref_doc_id),
    metadata = coalesce(excluded.metadata, d.metadata), payload = coalesce(excluded.payload, d.payload)
WHERE (d.hash, d.ref_doc_id, d.metadata, d.payload) IS DISTINCT FROM (
  coalesce(excluded.hash, d.hash), coalesce(excluded.ref_doc_id, d.ref_doc_id),
  coalesce(excluded.metadata, d.metadata), coalesce(excluded.payload, d.payload))
"""

#: Those of these ids that have a payload, locked as by a writer.
HELD = """
SELECT id FROM pgrecall.docstore
WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND id = ANY (%(ids)s::text[]) AND payload IS NOT NULL
ORDER BY id COLLATE "C" FOR UPDATE
"""

GET = """
SELECT id, hash, ref_doc_id, metadata, payload FROM pgrecall.docstore
WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND id = ANY (%(ids)s::text[])
"""

LIST = """
SELECT id, hash, ref_doc_id, metadata, payload FROM pgrecall.docstore
WHERE tenant_id = %(tenant)s AND collection = %(collection)s
ORDER BY created_at, position, id COLLATE "C"
"""

HASHES = """
SELECT id, hash FROM pgrecall.docstore
WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND hash IS NOT NULL
  AND (%(ids)s::text[] IS NULL OR id = ANY (%(ids)s::text[]))
ORDER BY created_at, position, id COLLATE "C"
"""

#: Entries by their source document. CHUNKS_OF: the collection's chunks by theirs.
ENTRIES_OF = """
SELECT ref_doc_id, id, metadata FROM pgrecall.docstore
WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND ref_doc_id IS NOT NULL
  AND (%(ids)s::text[] IS NULL OR ref_doc_id = ANY (%(ids)s::text[]))
ORDER BY created_at, position, id COLLATE "C"
"""

CHUNKS_OF = """
SELECT c.doc_id, c.id, document.metadata
FROM pgrecall.chunks c
JOIN LATERAL (
  SELECT d.metadata FROM pgrecall.documents d
  WHERE d.tenant_id = %(tenant)s AND d.collection = %(collection)s AND d.id = c.doc_id LIMIT 1) document ON true
WHERE c.tenant_id = %(tenant)s AND c.collection = %(collection)s AND c.doc_id IS NOT NULL
  AND (%(ids)s::text[] IS NULL OR c.doc_id = ANY (%(ids)s::text[]))
ORDER BY c.chunk_index, c.created_at, c.id COLLATE "C"
"""

#: Deletes entries by id; returns the documents that they came from.
DELETE = """
WITH locked AS MATERIALIZED (
  SELECT id FROM pgrecall.docstore
  WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND id = ANY (%(ids)s::text[])
  ORDER BY id COLLATE "C" FOR UPDATE)
DELETE FROM pgrecall.docstore d USING locked
WHERE d.tenant_id = %(tenant)s AND d.collection = %(collection)s AND d.id = locked.id
RETURNING d.ref_doc_id
"""

#: Deletes those of these documents' own entries that no other entry came from.
DELETE_LEFT_ALONE = """
DELETE FROM pgrecall.docstore d
WHERE d.tenant_id = %(tenant)s AND d.collection = %(collection)s AND d.id = ANY (%(ids)s::text[]) AND NOT EXISTS (
  SELECT FROM pgrecall.docstore o
  WHERE o.tenant_id = %(tenant)s AND o.collection = %(collection)s AND o.ref_doc_id = d.id)
"""

#: Deletes a document: its own entry, and those that came from it.
DELETE_DOCUMENT = """
WITH locked AS MATERIALIZED (
  SELECT id FROM pgrecall.docstore
  WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND id = ANY (%(ids)s::text[] || ARRAY (
    SELECT o.id FROM pgrecall.docstore o
    WHERE o.tenant_id = %(tenant)s AND o.collection = %(collection)s AND o.ref_doc_id = ANY (%(ids)s::text[])))
  ORDER BY id COLLATE "C" FOR UPDATE),
gone AS (
  DELETE FROM pgrecall.docstore d USING locked
  WHERE d.tenant_id = %(tenant)s AND d.collection = %(collection)s AND d.id = locked.id RETURNING 1)
SELECT count(*) FROM gone
"""
