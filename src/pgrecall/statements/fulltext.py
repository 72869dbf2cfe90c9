"""Changing a collection's full text: on, off, or to another configuration.

During the change `collections.settings` has `text_pending`, with the last id that is done (`after`).
"""

#: Waits for current writers, whose FOR SHARE it conflicts with. Later writers use the new configuration.
HELD = """
SELECT text_config, settings -> 'text_pending' ->> 'after' FROM pgrecall.collections
WHERE tenant_id = %(tenant)s AND name = %(collection)s FOR NO KEY UPDATE
"""

BEGIN = """
UPDATE pgrecall.collections
SET text_config = %(text_config)s, settings = settings || '{"text_pending": {"after": ""}}'::jsonb
WHERE tenant_id = %(tenant)s AND name = %(collection)s
"""

LEFT = """
SELECT count(*) FROM pgrecall.chunks
WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND id > %(after)s
"""

#: Whether the collection is still being changed to this. The lock keeps that so until the batch is committed.
STILL = """
SELECT text_config IS NOT DISTINCT FROM %(text_config)s::text, settings ? 'text_pending' FROM pgrecall.collections
WHERE tenant_id = %(tenant)s AND name = %(collection)s FOR SHARE
"""

# Locked by id, like by every writer. The collection comes from the locked rows (see `reads._same`). Without a
# configuration to_tsvector is NULL.
BATCH = """
WITH picked AS MATERIALIZED (
  SELECT collection, id FROM pgrecall.chunks
  WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND id > %(after)s
  ORDER BY id COLLATE "C" LIMIT %(batch)s FOR NO KEY UPDATE),
made AS (
  UPDATE pgrecall.chunks c
  SET text_search = to_tsvector(%(text_config)s::text::regconfig, left(c.text, 100000))
  FROM picked p
  WHERE c.tenant_id = %(tenant)s AND c.collection = p.collection AND c.id = p.id
    AND ((c.text_search IS NULL) IS DISTINCT FROM (%(text_config)s::text IS NULL)
      OR c.text_search IS DISTINCT FROM to_tsvector(%(text_config)s::text::regconfig, left(c.text, 100000)))
  RETURNING 1)
SELECT (SELECT max(id COLLATE "C") FROM picked), (SELECT count(*) FROM picked), (SELECT count(*) FROM made)
"""

#: Where to continue after an interruption. Skipped while others lock the row: continuing earlier only repeats work.
REMEMBER = """
UPDATE pgrecall.collections SET settings = jsonb_set(settings, '{text_pending,after}', to_jsonb(%(after)s::text))
WHERE tenant_id = %(tenant)s AND name = (
  SELECT name FROM pgrecall.collections WHERE tenant_id = %(tenant)s AND name = %(collection)s
  FOR NO KEY UPDATE SKIP LOCKED)
"""

DONE = """
UPDATE pgrecall.collections SET settings = settings - 'text_pending'
WHERE tenant_id = %(tenant)s AND name = %(collection)s AND text_config IS NOT DISTINCT FROM %(text_config)s::text
"""
