"""What `doctor` reads: catalogs and statistics, which any login may read."""

#: Whether the database is marked as development, by a setting of its own that dumps do not include.
DEVELOPMENT = """
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
  WHERE d.datname = current_database() AND s.setrole = 0
    AND 'pgrecall.environment=development' = ANY (s.setconfig))
"""

SERVER = """
SELECT current_setting('server_version'), current_setting('server_version_num')::int,
  version() LIKE '%%64-bit%%', e.extversion, a.default_version, n.nspname,
  EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus'), current_database()::text,
  d.datcollversion, pg_catalog.pg_database_collation_actual_version(d.oid)
FROM pg_catalog.pg_database d
LEFT JOIN pg_catalog.pg_extension e ON e.extname = 'vector'
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
LEFT JOIN pg_catalog.pg_available_extensions a ON a.name = 'vector'
WHERE d.datname = current_database()
"""

#: Whether the version table exists, looked up by name: the login may lack the right to use the schema.
MIGRATED = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
  WHERE s.nspname = 'pgrecall' AND c.relname = 'alembic_version')
"""

REVISION = "SELECT version_num FROM pgrecall.alembic_version"

ROW_SECURITY = """
SELECT c.relname::text, c.relrowsecurity, c.relforcerowsecurity
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'pgrecall' AND c.relkind IN ('r', 'p') AND EXISTS (
  SELECT FROM pg_catalog.pg_attribute a
  WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped)
ORDER BY c.relname
"""

ROLES = """
SELECT r.rolname::text,
  r.rolcanlogin, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolcreatedb, r.rolreplication,
  ARRAY (SELECT g.rolname::text
    FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
    WHERE m.member = r.oid ORDER BY 1),
  (SELECT n.nspname::text FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'vector' AND NOT has_schema_privilege(r.oid, n.oid, 'USAGE'))
FROM pg_catalog.pg_roles r WHERE r.rolname = ANY (%(roles)s) ORDER BY r.rolname
"""

# SET ROLE depends on the login, so these check session_user. ADMIN counts too, because it can grant itself SET.
LOGIN = """
SELECT l.rolname::text, l.rolsuper, l.rolbypassrls, l.rolreplication,
  coalesce((SELECT pg_has_role(l.oid, r.oid, 'SET')
    FROM pg_catalog.pg_roles r WHERE r.rolname = %(app)s), false),
  coalesce((SELECT pg_has_role(l.oid, r.oid, 'SET')
    FROM pg_catalog.pg_roles r WHERE r.rolname = %(maintenance)s), false),
  coalesce((SELECT pg_has_role(l.oid, r.oid, 'USAGE, SET, SET WITH ADMIN OPTION')
    FROM pg_catalog.pg_roles r WHERE r.rolname = %(maintenance)s), false),
  ARRAY (SELECT DISTINCT o.rolname::text
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
    WHERE n.nspname = 'pgrecall' AND pg_has_role(l.oid, o.oid, 'USAGE, SET, SET WITH ADMIN OPTION')),
  -- Each of these can make itself a superuser, or read the tables' files.
  ARRAY (SELECT r.rolname::text FROM pg_catalog.pg_roles r
    WHERE r.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files')
      AND pg_has_role(l.oid, r.oid, 'USAGE, SET, SET WITH ADMIN OPTION') ORDER BY 1)
FROM pg_catalog.pg_roles l WHERE l.rolname = session_user
"""

LEAKPROOF = """
SELECT proleakproof FROM pg_catalog.pg_proc WHERE oid = 'pg_catalog.jsonb_contains(jsonb, jsonb)'::regprocedure
"""

# Across all tenants, as the maintenance role.
WITHOUT_KEYS = """
SELECT c.tenant_id, c.name, k.chunks
FROM (SELECT tenant_id, collection, count(*) AS chunks FROM pgrecall.chunks GROUP BY tenant_id, collection
  HAVING count(*) > %(most)s) k
JOIN pgrecall.collections c ON c.tenant_id = k.tenant_id AND c.name = k.collection
WHERE NOT c.settings @> '{"keys": [{"ready": true}]}' ORDER BY k.chunks DESC, c.tenant_id, c.name
"""

INVALID_INDEXES = """
SELECT c.relname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'pgrecall' AND NOT i.indisvalid
  -- A graph that is being built looks so; who builds it holds maintenance's lock.
  AND NOT (c.relname ~ '^chunk_vectors_graph_[0-9]+_[0-9]+(_p[0-9]+)?$' AND EXISTS (
    SELECT FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_database d ON d.oid = l.database
    WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.objsubid = 1
      AND (l.classid::int8 << 32) | l.objid::int8 = hashtextextended('pgrecall.graphs', 0::int8)))
ORDER BY 1
"""

TABLES = """
SELECT c.relname::text, greatest(c.reltuples, 0)::int8, s.n_live_tup, s.n_dead_tup,
  pg_catalog.pg_total_relation_size(c.oid), coalesce(s.last_analyze, s.last_autoanalyze) IS NOT NULL
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid
WHERE n.nspname = 'pgrecall' AND c.relkind = 'r' ORDER BY 1
"""

# numbackends rather than pg_stat_activity, which hides others' connections from a plain login.
METRICS = """
SELECT (SELECT sum(numbackends)::int FROM pg_catalog.pg_stat_database),
  current_setting('max_connections')::int,
  pg_catalog.pg_database_size(current_database()),
  (SELECT extract(epoch FROM max(clock_timestamp() - xact_start))::float8 FROM pg_catalog.pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()),
  (SELECT extract(epoch FROM max(clock_timestamp() - prepared))::float8 FROM pg_catalog.pg_prepared_xacts
    WHERE database = current_database())
"""
