"""Erasure, export and sweeps of every table, from what the schema says about a row's subject and expiry."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from pgrecall.schema import ACTORS, DUE, PARTS, SCHEMA, SUBJECTS, TENANT_TABLES, TRAIL, chunk_keys, metadata
from pgrecall.statements.compose import bound, compiled

_ONE = sa.literal_column("1", sa.Integer)


def _table(name: str) -> sa.Table:
    return metadata.tables[f"{SCHEMA}.{name}"]


#: Tables that are deleted with a tenant, leaf first. Its row in `tenants` stays as tombstone; the trail is stripped.
TENANTS_OWN = tuple(t.name for t in TENANT_TABLES if t.name not in (TRAIL, "tenants"))
#: Tables with rows that are deleted with a subject, leaf first.
SUBJECTS_OWN = tuple(name for name in TENANTS_OWN if name in SUBJECTS or name in PARTS)

#: Entries of the trail that still name the subject, or (NULL) any actor.
UNSTRIPPED = """
SELECT count(*) FROM pgrecall.memory_events
WHERE tenant_id = %(tenant)s AND CASE WHEN %(subject)s::text IS NULL THEN actor IS NOT NULL
  ELSE subject = %(subject)s OR actor = %(subject)s END
"""

# The salt is stored nowhere: entries of one subject can still be grouped, but not linked to a person. Entries by the
# subject about someone else lose their actor only.
STRIP = """
WITH stripped AS MATERIALIZED (
  SELECT id, CASE WHEN %(subject)s::text IS NULL OR subject = %(subject)s
      THEN encode(sha256(%(salt)b::bytea || convert_to(subject, 'UTF8')), 'hex') ELSE subject END AS subject,
    CASE WHEN %(subject)s::text IS NULL OR subject = %(subject)s THEN NULL ELSE reason END AS reason
  FROM pgrecall.memory_events
  WHERE tenant_id = %(tenant)s AND CASE WHEN %(subject)s::text IS NULL THEN actor IS NOT NULL
    ELSE subject = %(subject)s OR actor = %(subject)s END)
UPDATE pgrecall.memory_events e SET subject = s.subject, actor = NULL, reason = s.reason
FROM stripped s WHERE e.tenant_id = %(tenant)s AND e.id = s.id
"""


def _of_subject(table: sa.Table) -> sa.ColumnElement[bool]:
    """Whether a row is the subject's, by its own column or as part of such a row."""
    if (column := SUBJECTS.get(table.name)) is not None:
        return table.c[column] == sa.cast(bound("subject"), sa.Text)
    part = PARTS[table.name]
    parent = _table(part.parent)
    theirs = sa.select(*(parent.c[name] for name in part.refers.values()))
    theirs = theirs.where(parent.c.tenant_id == bound("tenant"), _of_subject(parent))
    return sa.tuple_(*(table.c[name] for name in part.refers)).in_(theirs)


def _mine(table: sa.Table, *, subject: bool) -> list[sa.ColumnElement[bool]]:
    own = [table.c.tenant_id == bound("tenant")]
    if table is chunk_keys:  # true of every entry, so that its index on the tenant can be used (see schema)
        own.append(table.c.key >= sa.literal_column("0"))
    return [*own, _of_subject(table)] if subject else own


@cache
def delete(name: str, *, subject: bool) -> str:
    """Delete a table's rows of the tenant, or of the subject."""
    table = _table(name)
    return compiled(sa.delete(table).where(*_mine(table, subject=subject)))


@cache
def count(name: str, *, subject: bool) -> str:
    """Count a table's rows of the tenant, or of the subject."""
    table = _table(name)
    return compiled(sa.select(sa.func.count()).select_from(table).where(*_mine(table, subject=subject)))


@cache
def count_without_subject(name: str) -> str:
    """Count a table's rows of the tenant that name no subject."""
    table = _table(name)
    nobody = sa.func.coalesce(table.c[SUBJECTS[name]], sa.literal_column("''")) == sa.literal_column("''")
    return compiled(sa.select(sa.func.count()).select_from(table).where(*_mine(table, subject=False), nobody))


@cache
def rename_actor(name: str) -> str:
    """Replace the subject's name as the author of rows about others."""
    table = _table(name)
    column = table.c[ACTORS[name]]
    own = column == sa.cast(bound("subject"), sa.Text)
    return compiled(sa.update(table).values({column: bound("pseudonym")}).where(*_mine(table, subject=False), own))


# Export

#: Tables with data about a subject, parents first, the trail last.
EXPORTED = (*reversed(SUBJECTS_OWN), TRAIL)
_NOT_EXPORTED = sa.literal_column("ARRAY['tenant_id', 'text_search']", ARRAY(sa.Text))


def page_key(name: str) -> list[str]:
    """The columns that an export of a table pages by."""
    return [column.name for column in _table(name).primary_key if column.name != "tenant_id"]


@cache
def export(name: str, *, first: bool) -> str:
    """A page of the subject's rows: the key, then the row as JSON text. Later pages continue after a key."""
    table = _table(name)
    key = [table.c[column] for column in page_key(name)]
    subject = table.c.subject == sa.cast(bound("subject"), sa.Text) if name == TRAIL else _of_subject(table)
    whole = sa.func.to_jsonb(sa.literal_column(name)).op("-")(_NOT_EXPORTED)
    statement = sa.select(*key, sa.cast(whole, sa.Text)).where(table.c.tenant_id == bound("tenant"), subject)
    if not first:
        after = [sa.cast(bound(f"after_{column.name}"), _plain(column)) for column in key]
        statement = statement.where(sa.tuple_(*key) > sa.tuple_(*after))
    return compiled(statement.order_by(*key).limit(bound("limit")))


def _plain(column: sa.Column[Any]) -> Any:
    return sa.Text if isinstance(column.type, sa.Text) else column.type


# Sweeps


def _parts(name: str) -> Iterator[str]:
    """The tables of a table's parts, and of their parts, leaf first."""
    for child, part in PARTS.items():
        if part.parent == name:
            yield from _parts(child)
            yield child


def _due(table: sa.Table, column: str) -> sa.ColumnElement[bool]:
    return table.c[column] <= sa.func.statement_timestamp()


@cache
def tenants_due(name: str, column: str) -> str:
    """Tenants with rows that are due. It works across tenants, so only the maintenance role can run it."""
    table = _table(name)
    return compiled(sa.select(table.c.tenant_id).where(_due(table, column)).distinct())


@cache
def count_due(name: str, column: str) -> str:
    """Count a tenant's rows that are due."""
    table = _table(name)
    statement = sa.select(sa.func.count()).select_from(table)
    return compiled(statement.where(*_mine(table, subject=False), _due(table, column)))


@cache
def sweep(name: str, column: str) -> str:
    """Delete up to `batch` rows that are due, with their parts, skipping locked rows.

    Returns for each row its id and subject (NULLs if the table has no events), then the counts of its parts' tables in
    the order of `swept`. It is one statement, so that exactly the locked rows are deleted.
    """
    table = _table(name)
    key = [c for c in table.primary_key if c.name != "tenant_id"]
    due = (
        sa.select(*key)
        .where(*_mine(table, subject=False), _due(table, column))
        .order_by(table.c[column])
        .limit(bound("batch"))
        .with_for_update(skip_locked=True)
        .cte("due")
        .prefix_with("MATERIALIZED")
    )
    above: dict[str, sa.CTE] = {name: due}
    counts = []
    for child in reversed(list(_parts(name))):
        part, rows = PARTS[child], _table(child)
        parent = above[part.parent]
        joined = (rows.c[own] == parent.c[theirs] for own, theirs in part.refers.items())
        deletion = sa.delete(rows).where(rows.c.tenant_id == bound("tenant"), *joined)
        above[child] = deletion.returning(*(rows.c[c.name] for c in rows.primary_key)).cte(f"gone_{child}")
        counts.append(sa.select(sa.func.count()).select_from(above[child]).scalar_subquery())
    returned = (
        [table.c.id, table.c[SUBJECTS[name]]]
        if DUE[name][column] is not None
        else [sa.null().label("id"), sa.null().label("subject")]
    )
    same = (column == due.c[column.name] for column in key)
    gone = sa.delete(table).where(table.c.tenant_id == bound("tenant"), *same).returning(*returned).cte("gone")
    return compiled(sa.select(*gone.c, *counts))


def swept(name: str) -> list[str]:
    """The tables for which `sweep` returns counts, besides its own rows."""
    return list(reversed(list(_parts(name))))
