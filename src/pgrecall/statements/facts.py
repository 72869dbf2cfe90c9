"""Facts: puts, and the changes of a fact's versions. A fact is looked up by its whole identity, with an index.

Identities are passed as arrays. A namespace, itself an array, is passed as literal text, because unnest needs arrays of
one length. `OFFSET 0` and `LIMIT 1` force single lookups: without statistics the planner would read the whole tenant.
"""

from __future__ import annotations

from string import Template

#: Identities as rows `i`.
IDENTITIES = """
unnest(%(subjects)s::text[], %(kinds)s::text[], %(keys)s::text[], %(namespaces)s::text[])
  WITH ORDINALITY AS i (subject, kind, key, namespace, n)"""

#: Whether `f` has the identity `i`.
SAME = """f.tenant_id = %(tenant)s AND f.subject = i.subject AND f.kind = i.kind AND f.key = i.key
    AND f.namespace = i.namespace::text[]"""

#: True of every row. The index of versions is partial on it, so only statements with this condition can use it.
VERSIONS = "f.valid_from > '-infinity'::timestamptz"


def made(statement: str, **more: str) -> str:
    """A statement from the parts above, each at its $NAME. All of them are texts of this package."""
    return Template(statement).substitute(IDENTITIES=IDENTITIES, SAME=SAME, VERSIONS=VERSIONS, **more)


SETTINGS = """
SELECT m.text_config, m.fingerprint, m.space_id, s.provider, s.model, s.dim, s.distance
FROM pgrecall.memory_settings m LEFT JOIN pgrecall.embed_spaces s ON s.id = m.space_id
WHERE m.tenant_id = %(tenant)s
"""

ADD_SETTINGS = """
INSERT INTO pgrecall.memory_settings (tenant_id, text_config) SELECT %(tenant)s, %(text_config)s
ON CONFLICT DO NOTHING
"""

# By the space's properties, not by a remembered number, which may have been dropped and given to another space.
SET_SPACE = """
UPDATE pgrecall.memory_settings SET fingerprint = %(fingerprint)s::float4[], space_id = (
  SELECT s.id FROM pgrecall.embed_spaces s
  WHERE s.provider = %(provider)s AND s.model = %(model)s AND s.dim = %(dim)s AND s.distance = %(distance)s)
WHERE tenant_id = %(tenant)s AND space_id IS NULL
"""

SET_FINGERPRINT = """
UPDATE pgrecall.memory_settings SET fingerprint = %(fingerprint)s::float4[]
WHERE tenant_id = %(tenant)s AND fingerprint IS NULL
"""

# A tenant's identities share 256 locks, taken in order. Two writers of one identity meet at the same lock, and a large
# batch can't fill the server's lock table. The lock is a statement of its own, so that the next one sees what the other
# writer did.
LOCK = "SELECT pg_advisory_xact_lock(l) FROM unnest(%(locks)s::int8[]) AS u (l)"

#: For each identity, under its lock: the time, the live version, the newest version's time, versions beyond `keep`.
HEADS = made("""
SELECT clock_timestamp(), live.id, live.created_at, live.expires_at <= clock_timestamp(), newest.valid_from, ARRAY (
  SELECT f.id FROM pgrecall.memory_facts f
  WHERE %(keep)s::int8 IS NOT NULL AND $SAME AND $VERSIONS AND f.deleted_at IS NULL
  ORDER BY f.valid_from DESC OFFSET %(keep)s::int8)
FROM $IDENTITIES
LEFT JOIN LATERAL (
  SELECT f.id, f.created_at, f.expires_at FROM pgrecall.memory_facts f
  WHERE $SAME AND f.valid_to IS NULL AND f.deleted_at IS NULL LIMIT 1) live ON true
LEFT JOIN LATERAL (
  SELECT f.valid_from FROM pgrecall.memory_facts f
  WHERE $SAME AND $VERSIONS ORDER BY f.valid_from DESC LIMIT 1) newest ON true
ORDER BY i.n
""")

CLOSE = """
UPDATE pgrecall.memory_facts SET valid_to = %(at)s::timestamptz
WHERE tenant_id = %(tenant)s AND id = ANY (%(ids)s::text[])
"""

DELETE_VECTORS = "DELETE FROM pgrecall.fact_vectors WHERE tenant_id = %(tenant)s AND fact_id = ANY (%(ids)s::text[])"

DELETE = "DELETE FROM pgrecall.memory_facts WHERE tenant_id = %(tenant)s AND id = ANY (%(ids)s::text[])"

INSERT = """
INSERT INTO pgrecall.memory_facts (tenant_id, id, namespace, subject, kind, key, value, text, source, confidence, actor,
  valid_from, supersedes_id, ttl, ttl_refresh, expires_at, text_search, created_at)
SELECT %(tenant)s, i.id, i.namespace::text[], i.subject, i.kind, i.key, i.value, i.text, i.source,
  i.confidence::float8, %(actor)s, %(at)s::timestamptz, i.supersedes_id, i.ttl::float8, i.ttl_refresh = 't',
  -- The prefix keeps the worst text below tsvector's limit of 1 MB; the text itself is stored whole.
  i.expires_at::timestamptz, to_tsvector(%(text_config)s::text::regconfig, left(i.text, 100000)),
  i.created_at::timestamptz
FROM unnest(%(ids)s::text[], %(namespaces)s::text[], %(subjects)s::text[], %(kinds)s::text[], %(keys)s::text[],
  %(values)s::jsonb[], %(texts)s::text[], %(sources)s::text[], %(confidences)s::text[], %(supersedes)s::text[],
  %(ttls)s::text[], %(refreshes)s::text[], %(expires)s::text[], %(created)s::text[])
  AS i (id, namespace, subject, kind, key, value, text, source, confidence, supersedes_id, ttl, ttl_refresh, expires_at,
    created_at)
RETURNING 1
"""

INSERT_VECTORS = """
INSERT INTO pgrecall.fact_vectors (tenant_id, fact_id, field, space_id, embed_norm, embedding)
SELECT %(tenant)s, i.fact_id, i.field, %(space)s, i.norm, i.embedding
FROM unnest(%(fact_ids)s::text[], %(fields)s::text[], %(norms)s::float4[], %(embeddings)s::halfvec[])
  AS i (fact_id, field, norm, embedding)
RETURNING 1
"""

EVENTS = """
INSERT INTO pgrecall.memory_events (tenant_id, id, at, action, target_id, subject, actor, reason, detail)
SELECT %(tenant)s, i.id, %(at)s::timestamptz, i.action, i.target_id, nullif(i.subject, ''), %(actor)s, %(reason)s,
  i.detail
FROM unnest(%(event_ids)s::text[], %(actions)s::text[], %(targets)s::text[], %(event_subjects)s::text[],
  %(details)s::jsonb[]) AS i (id, action, target_id, subject, detail)
RETURNING 1
"""

#: The identity that an id or a key refers to. `which`: live, forgotten (and not purged), or any version.
NAMED = made("""
SELECT DISTINCT f.subject, f.kind, f.key, f.namespace FROM pgrecall.memory_facts f
WHERE f.tenant_id = %(tenant)s AND (%(id)s::text IS NULL OR f.id = %(id)s)
  AND (%(key)s::text IS NULL OR f.key = %(key)s)
  AND (%(subject)s::text IS NULL OR f.subject = %(subject)s) AND (%(kind)s::text IS NULL OR f.kind = %(kind)s)
  AND (%(namespace)s::text IS NULL OR f.namespace = %(namespace)s::text[])
  AND CASE %(which)s WHEN 'live' THEN f.deleted_at IS NULL AND (f.expires_at > clock_timestamp()) IS NOT FALSE
      AND (%(id)s::text IS NOT NULL OR f.valid_to IS NULL)
    WHEN 'forgotten' THEN f.purge_at > clock_timestamp() ELSE true END
  AND $VERSIONS
ORDER BY f.subject, f.kind, f.key, f.namespace LIMIT 20
""")

#: Every version of each identity, and the time, under its lock.
CHAINS = made("""
SELECT i.n, v.id, v.valid_to IS NULL, v.deleted_at, v.expires_at <= clock_timestamp(), v.purge_at, clock_timestamp(),
  v.valid_from
FROM $IDENTITIES
JOIN LATERAL (SELECT * FROM pgrecall.memory_facts f WHERE $SAME AND $VERSIONS OFFSET 0) v ON true
ORDER BY i.n, v.valid_from
""")

FORGET = """
UPDATE pgrecall.memory_facts SET deleted_at = %(at)s::timestamptz, purge_at = %(purge_at)s::timestamptz
WHERE tenant_id = %(tenant)s AND id = ANY (%(ids)s::text[])
"""

RESTORE = """
UPDATE pgrecall.memory_facts SET deleted_at = NULL, purge_at = NULL
WHERE tenant_id = %(tenant)s AND id = ANY (%(ids)s::text[])
"""

NOW = "SELECT clock_timestamp()"

# The ttl that a read restarts. In UTC: timestamptz plus an interval is not immutable, because days differ in length.
REFRESH = """
UPDATE pgrecall.memory_facts
SET expires_at = timezone('UTC', timezone('UTC', statement_timestamp()) + ttl * '1 second'::interval)
WHERE tenant_id = %(tenant)s AND id = ANY (%(ids)s::text[]) AND expires_at > statement_timestamp()
  AND ttl IS NOT NULL
"""
