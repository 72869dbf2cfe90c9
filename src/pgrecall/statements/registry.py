"""Tenants, spaces and collections."""

PROBE = """
SELECT (SELECT version_num FROM pgrecall.alembic_version), t.oid::int8
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE t.typname = 'halfvec' AND n.nspname = %(vector_schema)s
"""

#: Runs before a role is set: the schema of pgvector, whether the tables exist (a downgrade keeps the version table, but
#: no rights to read it), and whether this is a Citus cluster.
VECTOR_SCHEMA = """
SELECT n.nspname, e.extversion, EXISTS (
  -- Not to_regclass: a login that takes its rights only with SET ROLE may not look into the schema by name.
  SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
  WHERE s.nspname = 'pgrecall' AND c.relname = 'tenants'),
  EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus')
FROM (SELECT 1) one LEFT JOIN pg_catalog.pg_extension e ON e.extname = 'vector'
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
"""

# FOR SHARE: delete_tenant and a switch of the space update these rows, so they wait for current writers, and later
# writers see what they did. The lock has no measurable cost.
GUARD = """
SELECT t.erased_at, c.space_id, c.fingerprint, c.text_config, s.graph_generation, c.settings->'keys',
  c.next_space_id, s.provider, s.model, s.dim, s.distance
FROM pgrecall.tenants t JOIN pgrecall.collections c ON c.tenant_id = t.tenant_id
JOIN pgrecall.embed_spaces s ON s.id = c.space_id
WHERE t.tenant_id = %(tenant)s AND c.tenant_id = %(tenant)s AND c.name = %(collection)s
FOR SHARE OF t, c
"""

TENANT = "SELECT tenant_id, created_at, erased_at FROM pgrecall.tenants WHERE tenant_id = %(tenant)s"

TENANTS = "SELECT tenant_id, created_at, erased_at FROM pgrecall.tenants ORDER BY tenant_id"

# By the space's properties, not by a remembered number, which may have been dropped and given to another space.
ADD_COLLECTION = """
INSERT INTO pgrecall.collections (tenant_id, name, space_id, text_config, fingerprint, settings)
SELECT %(tenant)s, %(collection)s, s.id, %(text_config)s, %(fingerprint)s::float4[], %(settings)s::jsonb
FROM pgrecall.embed_spaces s
WHERE s.provider = %(provider)s AND s.model = %(model)s AND s.dim = %(dim)s AND s.distance = %(distance)s
ON CONFLICT DO NOTHING
"""

SET_FINGERPRINT = """
UPDATE pgrecall.collections SET fingerprint = %(fingerprint)s::float4[]
WHERE tenant_id = %(tenant)s AND name = %(collection)s AND fingerprint IS NULL
"""

COLLECTION = """
SELECT c.fingerprint, c.text_config, NOT c.settings ? 'text_pending', s.provider, s.model, s.dim, s.distance
FROM pgrecall.collections c JOIN pgrecall.embed_spaces s ON s.id = c.space_id
WHERE c.tenant_id = %(tenant)s AND c.name = %(collection)s
"""

COLLECTIONS = """
SELECT c.name, s.provider, s.model, s.dim, s.distance, c.text_config, c.created_at,
  (SELECT count(*) FROM pgrecall.documents d WHERE d.tenant_id = %(tenant)s AND d.collection = c.name),
  (SELECT count(*) FROM pgrecall.chunks k WHERE k.tenant_id = %(tenant)s AND k.collection = c.name),
  c.settings->'keys', NOT c.settings ? 'text_pending', (c.settings #>> '{graph,ef_search}')::int4,
  n.provider, n.model, n.dim, n.distance
FROM pgrecall.collections c JOIN pgrecall.embed_spaces s ON s.id = c.space_id
LEFT JOIN pgrecall.embed_spaces n ON n.id = c.next_space_id
WHERE c.tenant_id = %(tenant)s AND (%(name)s::text IS NULL OR c.name = %(name)s)
ORDER BY c.name
"""

# By name, not by a cast to regconfig, which would use the search path and fail with a database error.
KNOWN_TEXT_CONFIG = """
SELECT cfgname::text FROM pg_catalog.pg_ts_config c JOIN pg_catalog.pg_namespace n ON n.oid = c.cfgnamespace
WHERE n.nspname = 'pg_catalog' AND cfgname = %(text_config)s
"""

SPACE_ID = """
SELECT id FROM pgrecall.embed_spaces
WHERE provider = %(provider)s AND model = %(model)s AND dim = %(dim)s AND distance = %(distance)s
"""

SPACE_BY_ID = "SELECT provider, model, dim, distance FROM pgrecall.embed_spaces WHERE id = %(space)s"

# The registry is small and global. A lock, then the next number, so that ids have no gaps and need no sequence.
LOCK_SPACES = "SELECT pg_advisory_xact_lock(hashtextextended('pgrecall.embed_spaces', 0::int8))"

ADD_SPACE = """
INSERT INTO pgrecall.embed_spaces (id, provider, model, dim, distance)
SELECT coalesce(max(id), 0) + 1, %(provider)s, %(model)s, %(dim)s, %(distance)s FROM pgrecall.embed_spaces
ON CONFLICT (provider, model, dim, distance) DO NOTHING
"""

SPACES = """
SELECT s.id, s.provider, s.model, s.dim, s.distance, s.created_at FROM pgrecall.embed_spaces s ORDER BY s.id
"""

# Also counts collections that are being re-embedded to the space. A collection counts once.
SPACE_USE = """
SELECT space_id, sum(collections)::int8, sum(memories)::int8 FROM (
  SELECT u.space_id, 1 AS collections, 0 AS memories FROM pgrecall.collections c
  CROSS JOIN LATERAL unnest(ARRAY[c.space_id, c.next_space_id]) AS u (space_id)
  UNION ALL
  SELECT m.space_id, 0, 1 FROM pgrecall.memory_settings m
) used WHERE space_id IS NOT NULL GROUP BY space_id
"""

DROP_SPACE = "DELETE FROM pgrecall.embed_spaces WHERE id = %(space)s"
