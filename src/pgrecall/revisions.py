"""What revisions need in addition to Alembic's `op`: what must exist before they run, and how they see rows.

Released revisions call these functions, so their behaviour must not change.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import op
from psycopg import sql

#: Runs first on a connection with the owner's rights. If others may create in schema public (as on any server upgraded
#: from Postgres 14), a function of theirs that matches a call better than Postgres' own would run as the owner.
SAFE_PATH = "SET search_path = pg_catalog, pg_temp"

# What revisions need but can't own: the schema (which has Alembic's version table), two roles, which belong to the
# whole server, and pgvector. What exists is not created: IF NOT EXISTS would still require the right to create.
# What this login may not do is collected: one error lists everything that an administrator must run.
PREPARE = """
DO $$
DECLARE
  app CONSTANT text[] := ARRAY['pgrecall_app', 'pgrecall_maintenance'];
  wanted text[] := '{}';
  refused text[] := '{}';
  home text;
  made boolean;
  version text;
  item text;
BEGIN
  PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
  IF current_setting('server_version_num')::int < 160000 THEN
    RAISE EXCEPTION 'Postgres % is too old; pgrecall requires 16 or later', current_setting('server_version');
  END IF;
  IF to_regnamespace('pgrecall') IS NULL THEN
    wanted := wanted || format('CREATE SCHEMA pgrecall AUTHORIZATION %I', current_user);
  END IF;
  FOREACH item IN ARRAY app LOOP
    IF to_regrole(item) IS NULL THEN
      wanted := wanted || format(
        'CREATE ROLE %I NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION', item);
    END IF;
    -- Postgres gives the maker of a role ADMIN, but not SET: a plain CREATEROLE login grants it to itself.
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
        AND (to_regrole(item) IS NULL OR NOT pg_has_role(current_user, item, 'SET')) THEN
      wanted := wanted || format('GRANT %I TO %I WITH INHERIT FALSE, SET TRUE', item, current_user);
    END IF;
  END LOOP;
  IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'vector') THEN
    -- Named, because the first schema of a login's search path may be its own, or pgrecall's.
    wanted := wanted || 'CREATE EXTENSION vector SCHEMA public'::text;
  END IF;
  FOREACH item IN ARRAY wanted LOOP
    BEGIN
      EXECUTE item;
    EXCEPTION
      -- Another upgrade, perhaps of another database, made it meanwhile.
      WHEN duplicate_object OR duplicate_schema OR unique_violation THEN NULL;
      -- Undefined: the role that could not be made is the one to grant.
      WHEN insufficient_privilege OR undefined_object THEN refused := refused || item;
      WHEN invalid_schema_name THEN
        RAISE EXCEPTION 'this database has no schema public to install extension vector into'
          USING HINT = 'Choose a schema, then upgrade again: CREATE EXTENSION vector SCHEMA …;';
      WHEN undefined_file OR feature_not_supported THEN
        RAISE EXCEPTION 'extension vector is not available on this server'
          USING HINT = 'Install pgvector 0.7 or later for this Postgres, then upgrade again.';
    END;
  END LOOP;
  -- It may live in any schema: some hosts keep `extensions`.
  SELECT n.nspname, e.extversion INTO home, version
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector';
  IF string_to_array(substring(version from '^[0-9]+[.][0-9]+'), '.')::int[] < ARRAY[0, 7] THEN
    refused := refused || 'ALTER EXTENSION vector UPDATE'::text;
  END IF;
  home := coalesce(home, 'public');
  FOREACH item IN ARRAY app || current_user::text LOOP
    made := EXISTS (SELECT FROM pg_roles WHERE rolname = item);
    CONTINUE WHEN has_schema_privilege('public', home, 'USAGE')
      OR made AND has_schema_privilege(item, home, 'USAGE');
    item := format('GRANT USAGE ON SCHEMA %I TO %I', home, item);
    -- Asked before, because without the right to grant this would be a mere warning.
    IF made AND has_schema_privilege(home, 'USAGE WITH GRANT OPTION') THEN
      EXECUTE item;
    ELSE
      refused := refused || item;
    END IF;
  END LOOP;
  IF refused <> '{}' THEN
    RAISE EXCEPTION 'login % lacks rights that this upgrade requires', current_user
      USING HINT = format(E'An administrator must first run, in database %I:\\n%s;\\n', current_database(),
        array_to_string(refused, E';\\n'));
  END IF;
END $$
"""

# DDL must not wait long: queries that reach its table after it would wait behind it.
SETTINGS = """
SELECT pg_catalog.set_config('lock_timeout', '10s', true),
  pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
  -- On Citus: else what one statement does on a node's second connection would not be seen by the next.
  CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus')
    THEN pg_catalog.set_config('citus.multi_shard_modify_mode', 'sequential', true) END
"""

WITH_PGVECTOR = """
SELECT pg_catalog.set_config('search_path', pg_catalog.concat_ws(', ', 'pg_catalog',
  (SELECT pg_catalog.quote_ident(n.nspname) FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'), 'pg_temp'), true)
"""


def prepare() -> None:
    """Begin an upgrade: create what it needs.

    If the login may not create something, the error has the SQL that an administrator must run first.
    """
    op.execute(PREPARE)


def run(script: str) -> None:
    """Run statements, each ending with a semicolon and a newline. They name pgvector's types without a schema."""
    op.execute(WITH_PGVECTOR)
    for statement in filter(None, (part.strip() for part in script.split(";\n"))):
        op.execute(statement)
    op.execute(SETTINGS)  # another's operator could match Alembic's own comparisons of names better than Postgres' own


@contextmanager
def unforced(*tables: str) -> Iterator[None]:
    """Let the owner see these tables' rows within the block, in the revision's transaction.

    FORCE ROW LEVEL SECURITY also applies to the owner. Without this block an UPDATE would affect no row, and a new
    foreign key would be validated against none.
    """
    names = [sql.Identifier("pgrecall", table) for table in tables]
    for name in names:
        op.execute(sql.SQL("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY").format(name).as_string(None))
    yield
    for name in names:
        op.execute(sql.SQL("ALTER TABLE {} FORCE ROW LEVEL SECURITY").format(name).as_string(None))
