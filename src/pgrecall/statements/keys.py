"""Declared keys: the rows of `chunk_keys`, and how they narrow a filter.

Comparisons of text are LEAKPROOF, so they can use an index under row-level security, unlike the operators on metadata.
A writer of a chunk's keys holds the chunk's row. Deleting a chunk deletes its keys by the foreign key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from pgrecall.filters.keys import Lookup
from pgrecall.schema import chunk_keys, chunks, collections
from pgrecall.statements.compose import bound

# The values of a chunk `c` for the keys in %(keys)s. An array's elements are values of their own. `#>` finds everything
# that the filters' chain of `->` finds, and more if a key looks like an index; additional rows do no harm.
VALUES = """
  SELECT d.number, CASE d.type
    WHEN 'number' THEN CASE WHEN f.f < 0
      THEN '0' || translate(encode(float8send(f.f), 'hex'), '0123456789abcdef', 'fedcba9876543210')
      ELSE '1' || encode(float8send(f.f), 'hex') END
    ELSE left(e.v #>> '{}', 200) END AS value
  FROM jsonb_to_recordset(%(keys)s::jsonb) AS d (number int2, path text[], type text)
  CROSS JOIN LATERAL (SELECT c.metadata #> d.path AS v) AS at
  CROSS JOIN LATERAL (SELECT at.v UNION ALL
    SELECT jsonb_array_elements(at.v) WHERE jsonb_typeof(at.v) = 'array') AS e (v)
  CROSS JOIN LATERAL (SELECT CASE WHEN jsonb_typeof(e.v) = 'number' THEN (e.v #>> '{}')::numeric END) AS n (n)
  CROSS JOIN LATERAL (SELECT
    CASE WHEN abs(n.n) < 1e-300 THEN 0 ELSE least(greatest(n.n, -1e300), 1e300) END::float8) AS f (f)
  WHERE jsonb_typeof(e.v) = CASE d.type WHEN 'text' THEN 'string' WHEN 'bool' THEN 'boolean' ELSE 'number' END
"""

# A subquery for each row instead of a join: without statistics a join could compare every pair of rows.
DELETE_STALE = """
DELETE FROM pgrecall.chunk_keys k
WHERE k.tenant_id = %(tenant)s AND k.collection = %(collection)s AND k.chunk_id = ANY (%(ids)s::text[])
  AND k.value <> ALL (ARRAY (SELECT w.value
    FROM pgrecall.chunks c CROSS JOIN LATERAL (<values>) w
    WHERE c.tenant_id = %(tenant)s AND c.collection = %(collection)s AND c.id = k.chunk_id AND w.number = k.key))
""".replace("<values>", VALUES)

ADD = """
INSERT INTO pgrecall.chunk_keys (tenant_id, collection, chunk_id, key, value)
SELECT %(tenant)s, %(collection)s, c.id, w.number, w.value
FROM unnest(%(ids)s::text[]) AS i (id)
CROSS JOIN LATERAL (
  SELECT s.id, s.metadata FROM pgrecall.chunks s
  WHERE s.tenant_id = %(tenant)s AND s.collection = %(collection)s AND s.id = i.id LIMIT 1) c
CROSS JOIN LATERAL (<values>) w
ON CONFLICT DO NOTHING
""".replace("<values>", VALUES)

# Chunks are locked by id, like by every writer. Concurrent writers enter the keys of their own chunks.
BACKFILL = """
WITH page AS MATERIALIZED (
  SELECT s.id, s.metadata FROM pgrecall.chunks s
  WHERE s.tenant_id = %(tenant)s AND s.collection = %(collection)s AND s.id COLLATE "C" > %(after)s
  ORDER BY s.id COLLATE "C" LIMIT %(batch)s FOR NO KEY UPDATE),
added AS (
  INSERT INTO pgrecall.chunk_keys (tenant_id, collection, chunk_id, key, value)
  SELECT %(tenant)s, %(collection)s, c.id, w.number, w.value FROM page c CROSS JOIN LATERAL (<values>) w
  ON CONFLICT DO NOTHING)
SELECT count(*), max(id COLLATE "C") FROM page
""".replace("<values>", VALUES)

#: For writers: a declaration waits for those that hold this lock, so no writer misses a key. The tenant's row is locked
#: first, like by every writer, because `delete_tenant` begins with it and ends with the collections.
HOLD = """
SELECT c.settings->'keys'
FROM pgrecall.tenants t JOIN pgrecall.collections c ON c.tenant_id = t.tenant_id
WHERE t.tenant_id = %(tenant)s AND c.tenant_id = %(tenant)s AND c.name = %(collection)s
FOR SHARE OF t, c
"""

LOCK = """
SELECT settings FROM pgrecall.collections
WHERE tenant_id = %(tenant)s AND name = %(collection)s FOR NO KEY UPDATE
"""

SET = """
UPDATE pgrecall.collections SET settings = %(settings)s::jsonb WHERE tenant_id = %(tenant)s AND name = %(collection)s
"""

DECLARED = """
SELECT settings->'keys' FROM pgrecall.collections WHERE tenant_id = %(tenant)s AND name = %(collection)s
"""

CHUNKS = "SELECT count(*) FROM pgrecall.chunks WHERE tenant_id = %(tenant)s AND collection = %(collection)s"

# SKIP LOCKED: a statement that never waits can't deadlock with writers, which lock a chunk before its keys.
FORGET = """
WITH picked AS MATERIALIZED (
  SELECT collection, chunk_id, key, value FROM pgrecall.chunk_keys
  WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND key >= 0 AND key = %(number)s::int2
  LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
DELETE FROM pgrecall.chunk_keys k USING picked p
WHERE k.tenant_id = %(tenant)s AND k.collection = p.collection AND k.chunk_id = p.chunk_id AND k.key = p.key
  AND k.value = p.value
"""

LEFT = """
SELECT EXISTS (SELECT FROM pgrecall.chunk_keys
  WHERE tenant_id = %(tenant)s AND collection = %(collection)s AND key >= 0 AND key = %(number)s::int2)
"""


def bind_values(found: Lookup) -> dict[str, object]:
    """The parameters of a lookup's SQL."""
    ready = ",".join(f'{{"number":{number},"ready":true}}' for number in sorted(found.numbers))
    named: dict[str, object] = {f"key{at}": value for at, value in enumerate(found.values)}
    return named | {"keys_ready": f'{{"keys":[{ready}]}}'}


def every_id(form: Sequence[Any]) -> sa.ColumnElement[Any]:
    """The ids of all chunks that may match, as an array.

    A process may have cached a key that was dropped since. The statement checks once whether the keys exist, and takes
    every chunk of the collection if they don't. LIMIT 0 tells the planner that this costs little.
    """
    every = chunks.alias("every_chunk")
    here = (every.c.tenant_id == bound("tenant"), every.c.collection == bound("collection"))
    ids = _fewest(form)
    if form[0] == "every":
        # If another part finds fewer than this, no part is read further than this.
        ids = sa.func.coalesce(_fewest(form, sa.literal_column("1000", sa.Integer)), ids)
    return sa.case((_ready(), ids), else_=_array(sa.select(every.c.id).where(*here)))


def few_ids(form: Sequence[Any], most: sa.ColumnElement[int]) -> sa.ColumnElement[Any]:
    """The ids of all chunks that may match, as an array, if there are fewer than `most`; else NULL."""
    return sa.case((_ready(), _fewest(form, most)))


def _fewest(form: Sequence[Any], most: sa.ColumnElement[int] | None = None) -> sa.ColumnElement[Any]:
    """The part of a conjunction that finds the fewest ids. Each next part is read no further than it could be chosen.

    Reading an entry costs a tenth of reading its chunk, so the parts are not intersected. A part is cut off at one more
    than the best so far, so an incomplete part is never chosen.
    """
    names = _names()
    parts = [(part, _select(part, names)) for part in (form[1:] if form[0] == "every" else [form])]
    first, *others = (select for _, select in sorted(parts, key=lambda part: part[0][1] != "="))
    found = sa.select(_array(first.limit(most)).label("ids"))
    for other in others:
        # OFFSET 0: without it the planner would inline the subquery, and compute the array at each reference.
        best = found.offset(sa.literal_column("0")).subquery()
        size = sa.func.cardinality(best.c.ids)
        more = _array(other.limit(size + sa.literal_column("1"))).label("more")
        both = sa.select(best.c.ids, more).offset(sa.literal_column("0")).subquery()
        fewer = sa.func.cardinality(both.c.more) < sa.func.cardinality(both.c.ids)
        found = sa.select(sa.case((fewer, both.c.more), else_=both.c.ids).label("ids"))
    if most is not None:
        best = found.offset(sa.literal_column("0")).subquery()
        found = sa.select(best.c.ids).where(sa.func.cardinality(best.c.ids) < most)
    return found.scalar_subquery()


def _array(select: Any) -> sa.ColumnElement[Any]:
    return sa.func.array(select.scalar_subquery(), type_=ARRAY(sa.Text))


def _names() -> Iterator[sa.BindParameter[Any]]:
    return (bound(f"key{at}") for at in count())


def _ready() -> sa.ScalarSelect[Any]:
    """Whether the keys are declared and filled; evaluated once for the statement."""
    wanted = collections.c.settings.bool_op("@>")(sa.cast(bound("keys_ready"), JSONB))
    here = (collections.c.tenant_id == bound("tenant"), collections.c.name == bound("collection"))
    return sa.select(sa.exists().where(*here, wanted)).scalar_subquery()


def _select(form: Sequence[Any], names: Iterator[sa.BindParameter[Any]]) -> Any:
    if form[0] != "key":
        parts = [_select(part, names) for part in form[1:]]
        return sa.intersect(*parts) if form[0] == "every" else sa.union_all(*parts)
    table = chunk_keys.alias()
    conditions = [
        table.c.tenant_id == bound("tenant"),
        table.c.collection == bound("collection"),
        # True of every row; only statements with this condition can use the index on values (see schema).
        table.c.key >= sa.literal_column("0"),
        table.c.key == sa.cast(next(names), sa.SmallInteger),
    ]
    if tuple(form[1:]) == ("any",):
        # One lookup for each value, which OFFSET 0 enforces: without statistics Postgres 16 would read every entry of
        # the key and compare it with the list.
        sought = sa.func.unnest(sa.cast(next(names), ARRAY(sa.Text))).table_valued("value").render_derived()
        one = sa.select(table.c.chunk_id).where(*conditions, table.c.value == sought.c.value)
        found = one.offset(sa.literal_column("0")).lateral()
        return sa.select(found.c.chunk_id).select_from(sought.join(found, sa.true()))
    conditions += [table.c.value.bool_op(comparison)(sa.cast(next(names), sa.Text)) for comparison in form[1:]]
    return sa.select(table.c.chunk_id).where(*conditions)
