"""Declared keys: the rows of `chunk_keys`, and how a filter is narrowed by them.

Comparisons of text are leakproof, so row-level security lets them use an index where metadata's own operators may not.
Whoever writes a chunk's keys holds the chunk's row; a chunk that goes takes them along by the foreign key.
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

# What a chunk `c` has for the keys of %(keys)s. An array's elements count as values of their own. `#>` finds all that
# the filters' chain of `->` does, and more where a key looks like an index: a row too many does no harm.
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

# A subquery for each row, not a join: without statistics a join could compare every row with every other.
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

# Chunks are locked by id as every writer locks them; what others write meanwhile, they enter themselves.
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

#: For whom writes: a declaration waits for those who hold it, so none of them can miss a key. The tenant's row too, and
#: first, as every writer: `delete_tenant` begins with it, and ends with the collections.
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

# SKIP LOCKED: who never waits can't deadlock with those who lock a chunk before its keys.
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

    A process may remember a key that was dropped since: the statement asks by itself, once, whether the keys are there,
    and takes every chunk of the collection where they are not. LIMIT 0 tells the planner that this costs little.
    """
    every = chunks.alias("every_chunk")
    here = (every.c.tenant_id == bound("tenant"), every.c.collection == bound("collection"))
    ids = _fewest(form)
    if form[0] == "every":
        # Of parts that find many none is read further than this where another one finds few.
        ids = sa.func.coalesce(_fewest(form, sa.literal_column("1000", sa.Integer)), ids)
    return sa.case((_ready(), ids), else_=_array(sa.select(every.c.id).where(*here)))


def few_ids(form: Sequence[Any], most: sa.ColumnElement[int]) -> sa.ColumnElement[Any]:
    """The ids of all chunks that may match, as an array, where they are fewer than `most`; else NULL."""
    return sa.case((_ready(), _fewest(form, most)))


def _fewest(form: Sequence[Any], most: sa.ColumnElement[int] | None = None) -> sa.ColumnElement[Any]:
    """Of a conjunction the part that finds the fewest, and of each next part no more than would be chosen.

    To read an entry costs a tenth of looking at its chunk, so the parts are not intersected. A part that is cut off at
    one more than the best so far is never taken for whole.
    """
    names = _names()
    parts = [(part, _select(part, names)) for part in (form[1:] if form[0] == "every" else [form])]
    first, *others = (select for _, select in sorted(parts, key=lambda part: part[0][1] != "="))
    found = sa.select(_array(first.limit(most)).label("ids"))
    for other in others:
        # OFFSET 0: drawn into the query around it, an array would be made once for each time it is named.
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
    """Whether the keys are declared and filled, asked once for the whole statement."""
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
        # True of every row; it is how a statement asks for the index on values (see schema).
        table.c.key >= sa.literal_column("0"),
        table.c.key == sa.cast(next(names), sa.SmallInteger),
    ]
    if tuple(form[1:]) == ("any",):
        # One lookup for each value, kept apart by OFFSET 0: without statistics Postgres 16 would read every entry of
        # the key and compare it with the list.
        sought = sa.func.unnest(sa.cast(next(names), ARRAY(sa.Text))).table_valued("value").render_derived()
        one = sa.select(table.c.chunk_id).where(*conditions, table.c.value == sought.c.value)
        found = one.offset(sa.literal_column("0")).lateral()
        return sa.select(found.c.chunk_id).select_from(sought.join(found, sa.true()))
    conditions += [table.c.value.bool_op(comparison)(sa.cast(next(names), sa.Text)) for comparison in form[1:]]
    return sa.select(table.c.chunk_id).where(*conditions)
