"""The index records of an ingestion: when each key was last seen, and the group (source) that it belongs to."""

# now() is when the transaction began, so what a run writes is never older than the time that it read first.
TIME = "SELECT extract(epoch FROM now())::float8"

UPDATE = """
INSERT INTO pgrecall.index_records (tenant_id, collection, namespace, key, group_id)
SELECT %(tenant)s, %(collection)s, %(namespace)s, i.key, i.group_id
FROM unnest(%(keys)s::text[], %(groups)s::text[]) AS i (key, group_id)
ORDER BY i.key COLLATE "C"
ON CONFLICT (tenant_id, collection, namespace, key) DO UPDATE
SET updated_at = excluded.updated_at,
    group_id = CASE WHEN excluded.group_id IS NULL THEN index_records.group_id ELSE excluded.group_id END
"""

# A record counts only while its chunk exists. A chunk that was deleted outside of the ingestion, or by a run that was
# killed before it updated the record, is written again by the next run. LATERAL … LIMIT 1 forces lookups, even without
# statistics.
EXISTS = """
SELECT i.key FROM unnest(%(keys)s::text[]) AS i (key)
JOIN LATERAL (
  SELECT FROM pgrecall.index_records r
  WHERE r.tenant_id = %(tenant)s AND r.collection = %(collection)s AND r.namespace = %(namespace)s AND r.key = i.key
  LIMIT 1) recorded ON true
JOIN LATERAL (
  SELECT FROM pgrecall.chunks c
  WHERE c.tenant_id = %(tenant)s AND c.collection = %(collection)s AND c.id = i.key
  LIMIT 1) stored ON true
"""

LIST = """
SELECT r.key FROM pgrecall.index_records r
WHERE r.tenant_id = %(tenant)s AND r.collection = %(collection)s AND r.namespace = %(namespace)s
  AND (%(before)s::float8 IS NULL OR r.updated_at < to_timestamp(%(before)s::float8))
  AND (%(after)s::float8 IS NULL OR r.updated_at > to_timestamp(%(after)s::float8))
  AND (%(groups)s::text[] IS NULL OR r.group_id = ANY (%(groups)s::text[]))
ORDER BY r.key LIMIT %(limit)s
"""

DELETE = """
DELETE FROM pgrecall.index_records
WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND namespace = %(namespace)s
  AND key = ANY (%(keys)s::text[])
"""
