"""Differences between a live database and what `schema` declares.

Both sides are written as sentences of one fact each, and compared as sets. Alembic's own comparison does not cover
policies, grants, roles, storage, views, primary keys and check constraints.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import dialect
from sqlalchemy.schema import CreateIndex

from pgrecall import schema

_DIALECT: sa.Dialect = dialect()  # type: ignore[no-untyped-call]
_ROLES = [schema.APP_ROLE, schema.MAINTENANCE_ROLE]

_FACTS = """
WITH relation AS (
  SELECT c.*, relname = ANY (:tables) AS declared FROM pg_class c
  WHERE relnamespace = to_regnamespace('pgrecall') AND relkind NOT IN ('i', 'I', 't', 'c') AND NOT relispartition),
-- A partition of a declared table may have any shape, but nobody may use it: no rights, no policy, row security forced.
part AS (
  SELECT c.* FROM pg_class c JOIN pg_inherits h ON h.inhrelid = c.oid JOIN relation r ON r.oid = h.inhparent
  WHERE r.declared),
securable AS (
  SELECT relname AS name, relowner AS owner, coalesce(relacl, acldefault('r', relowner)) AS acl FROM relation
  UNION ALL SELECT relname, relowner, relacl FROM part WHERE relacl IS NOT NULL
  UNION ALL SELECT nspname, nspowner, coalesce(nspacl, acldefault('n', nspowner))
    FROM pg_namespace WHERE nspname = 'pgrecall'
  UNION ALL SELECT r.relname || '.' || a.attname, r.relowner, a.attacl
    FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid WHERE a.attacl IS NOT NULL)

SELECT CASE WHEN relkind IN ('r', 'p') THEN format('table %s: row security %s', relname, CASE
    WHEN NOT relrowsecurity THEN 'off' WHEN relforcerowsecurity THEN 'on, forced' ELSE 'on, not forced' END)
  WHEN relkind = 'v' THEN format('view %s (%s): %s', relname, array_to_string(reloptions, ', '),
    btrim(regexp_replace(pg_get_viewdef(oid, true), '\\s+', ' ', 'g')))
  ELSE format('relation %s of kind %s', relname, relkind) END
FROM relation

UNION ALL SELECT format('partition %s: row security not forced', relname) FROM part
WHERE NOT (relrowsecurity AND relforcerowsecurity)

UNION ALL SELECT format('column %s.%s: %s%s%s%s%s', r.relname, a.attname, format_type(a.atttypid, a.atttypmod),
  (SELECT format(' COLLATE "%s"', collname) FROM pg_collation
    WHERE oid = a.attcollation AND oid <> t.typcollation),
  CASE WHEN a.attnotnull THEN ' NOT NULL' END,
  CASE WHEN a.attgenerated <> '' THEN format(' GENERATED (%s)', pg_get_expr(d.adbin, d.adrelid))
    WHEN a.attidentity <> '' THEN ' IDENTITY' ELSE ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid) END,
  CASE WHEN a.attstorage <> t.typstorage THEN ' STORAGE ' || CASE a.attstorage
    WHEN 'm' THEN 'MAIN' WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' ELSE 'EXTENDED' END END)
FROM relation r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = a.attnum
WHERE r.declared

UNION ALL SELECT format('constraint %s on %s: %s', k.conname, r.relname, pg_get_constraintdef(k.oid, true))
FROM relation r JOIN pg_constraint k ON k.conrelid = r.oid
WHERE r.declared AND k.contype IN ('p', 'u', 'f', 'c', 'x')
  AND k.conparentid = 0 -- a foreign key to a partitioned table has a row for each of its partitions too

UNION ALL SELECT replace(pg_get_indexdef(i.indexrelid, 0, true), ' ON ONLY ', ' ON ')
FROM relation r JOIN pg_index i ON i.indrelid = r.oid JOIN pg_class x ON x.oid = i.indexrelid
WHERE r.declared AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND conrelid = r.oid)
  AND x.relname !~ '^chunk_vectors_graph_[0-9]+_[0-9]+(_p[0-9]+)?$'

UNION ALL SELECT format('index %s is INVALID', i.indexrelid::regclass)
FROM (SELECT oid FROM relation UNION ALL SELECT oid FROM part) r
JOIN pg_index i ON i.indrelid = r.oid JOIN pg_class x ON x.oid = i.indexrelid
WHERE NOT (i.indisvalid AND i.indisready AND i.indislive)
  -- A graph that is being built is INVALID too; maintenance drops what a failed build left behind.
  AND x.relname !~ '^chunk_vectors_graph_[0-9]+_[0-9]+(_p[0-9]+)?$'

UNION ALL SELECT format('trigger %s on %s', g.tgname, r.relname)
FROM relation r JOIN pg_trigger g ON g.tgrelid = r.oid WHERE NOT g.tgisinternal

UNION ALL SELECT format('%s policy %s on %s: %s to %s USING (%s) WITH CHECK (%s)',
  CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END, p.polname, r.relname,
  CASE p.polcmd WHEN '*' THEN 'ALL' WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
    ELSE 'DELETE' END,
  (SELECT string_agg(coalesce(o.rolname, 'PUBLIC'), ', ' ORDER BY o.rolname)
    FROM unnest(p.polroles) AS member LEFT JOIN pg_roles o ON o.oid = member),
  pg_get_expr(p.polqual, p.polrelid, true), pg_get_expr(p.polwithcheck, p.polrelid, true))
FROM (SELECT oid, relname FROM relation UNION ALL SELECT oid, relname FROM part) r
JOIN pg_policy p ON p.polrelid = r.oid

UNION ALL SELECT format('%s may %s on %s%s', coalesce(o.rolname, 'PUBLIC'), a.privilege_type, s.name,
  CASE WHEN a.is_grantable THEN ', and grant it' END)
FROM securable s, aclexplode(s.acl) a LEFT JOIN pg_roles o ON o.oid = a.grantee WHERE a.grantee <> s.owner

UNION ALL SELECT format('%s owns %s', o.rolname, s.name)
FROM securable s JOIN pg_roles o ON o.oid = s.owner WHERE o.rolname = ANY (:roles)

UNION ALL SELECT format('role %s: %s', rolname, concat_ws(' ',
  CASE WHEN rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END,
  CASE WHEN rolsuper THEN 'SUPERUSER' ELSE 'NOSUPERUSER' END,
  CASE WHEN rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END,
  CASE WHEN rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END,
  CASE WHEN rolcreaterole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END,
  CASE WHEN rolreplication THEN 'REPLICATION' ELSE 'NOREPLICATION' END))
FROM pg_roles WHERE rolname = ANY (:roles)

UNION ALL SELECT format('role %s is a member of %s', o.rolname, above.rolname)
FROM pg_auth_members m JOIN pg_roles o ON o.oid = m.member JOIN pg_roles above ON above.oid = m.roleid
WHERE o.rolname = ANY (:roles)
"""

_VECTOR_SCHEMA = """
SELECT quote_ident(n.nspname) || '.' FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'vector'
"""


_CITUS = "SELECT FROM pg_extension WHERE extname = 'citus'"


def differences(connection: sa.Connection) -> list[str]:
    """How the connected database differs from what this version declares; one sentence for each difference.

    Reads catalogs only, so any login may call it. Covers tables, columns and their storage, constraints, indexes (and
    whether they are INVALID), row security, policies, grants, views, triggers, and both roles with their attributes and
    memberships.
    """
    return compare(lambda statement, params: connection.exec_driver_sql(statement, params).all())


def compare(rows: Callable[[str, dict[str, Any]], Sequence[Any]]) -> list[str]:
    """As `differences`, with a function that runs a driver's statement and returns its rows."""
    home = next((name for (name,) in rows(_VECTOR_SCHEMA, {})), "public.")
    tables = [table.name for table in schema.metadata.sorted_tables]
    facts = str(sa.text(_FACTS).compile(dialect=_DIALECT))
    found = {_bare(fact, home) for (fact,) in rows(facts, {"tables": tables, "roles": _ROLES})}
    declared = {_bare(fact, home) for fact in _declared()}
    if rows(_CITUS, {}):  # Citus reaches its nodes as these roles, so either is right here; the doctor checks which
        found = {re.sub(r"^(role \w+:) LOGIN\b", r"\1 NOLOGIN", fact) for fact in found}
    return [
        *(f"missing: {fact}" for fact in sorted(declared - found)),
        *(f"unexpected: {fact}" for fact in sorted(found - declared)),
    ]


def _bare(fact: str, home: str) -> str:
    """The sentence without schema names, which Postgres prints or omits depending on the session's search path."""
    return re.sub(rf"(?<![\w'\"])({schema.SCHEMA}\.|{re.escape(home)})", "", fact)


def _declared() -> Iterator[str]:
    tenant_tables = {table.name for table in schema.TENANT_TABLES}
    for table in schema.metadata.sorted_tables:
        secured = table.name in tenant_tables
        yield f"table {table.name}: row security {'on, forced' if secured else 'off'}"
        yield from map(_column, table.columns)
        yield from map(_constraint, table.constraints)
        yield from map(_index, table.indexes)
        for name, (role, condition) in schema.policies(table.name).items() if secured else ():
            rule = f"USING ({condition}) WITH CHECK ({condition})"
            yield f"permissive policy {name} on {table.name}: ALL to {role} {rule}"
    yield "table alembic_version: row security off"
    for view, query in schema.VIEWS.items():
        yield f"view {view} (security_invoker=true): {query}"
    for securable, grants in schema.GRANTS.items():
        for role, privileges in grants.items():
            yield from (f"{role} may {privilege} on {securable}" for privilege in privileges)
    for role in _ROLES:
        yield f"role {role}: NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION"


def _column(column: sa.Column[Any]) -> str:
    kind, *collation = column.type.compile(_DIALECT).partition(" COLLATE ")
    fact = f"column {column.table.name}.{column.name}: {kind.lower()}{''.join(collation)}"
    fact += "" if column.nullable else " NOT NULL"
    if column.computed is not None:
        fact += f" GENERATED ({column.computed.sqltext})"
    elif isinstance(column.server_default, sa.DefaultClause):
        fact += f" DEFAULT {column.server_default.arg}"
    storage = schema.STORAGE.get((column.table.name, column.name))
    return f"{fact} STORAGE {storage}" if storage else fact


def _constraint(constraint: sa.Constraint) -> str:
    table = constraint.table.name
    match constraint:
        case sa.CheckConstraint():
            text = f"CHECK ({constraint.sqltext})"
        case sa.ForeignKeyConstraint():
            there = ", ".join(element.column.name for element in constraint.elements)
            text = f"FOREIGN KEY ({', '.join(constraint.column_keys)})"
            text += f" REFERENCES {constraint.referred_table.name}({there})"
            text += f" ON DELETE {constraint.ondelete}" if constraint.ondelete else ""
        case sa.PrimaryKeyConstraint() | sa.UniqueConstraint():
            kind = "UNIQUE" if isinstance(constraint, sa.UniqueConstraint) else "PRIMARY KEY"
            text = f"{kind} ({', '.join(_printed(column.name) for column in constraint.columns)})"
        case _:
            raise TypeError(f"no comparison for constraint {constraint!r}")
    return f"constraint {constraint.name or f'{table}_pkey'} on {table}: {text}"


def _printed(name: str) -> str:
    """A column's name as Postgres prints it in a key: keywords are quoted, even if they need no quotes."""
    return f'"{name}"' if name == "position" else name


def _index(index: sa.Index) -> str:
    text = str(CreateIndex(index).compile(dialect=_DIALECT))
    return text if " USING " in text else text.replace(" (", " USING btree (", 1)
