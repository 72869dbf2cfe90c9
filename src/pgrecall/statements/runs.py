"""Runs, their events and their evidence.

A writer locks the run's row, which numbers events and retrievals. So everything in a run has one order.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from pgrecall.filters import Filter, bind_values, compile_filter, shape
from pgrecall.schema import runs
from pgrecall.statements.compose import bound, compiled
from pgrecall.statements.tombstones import SUBJECT_NOT_ERASED

_COLUMNS = """
  r.run_id, r.state, r.status, r.state_version, r.subject, r.metadata, r.expires_at, r.created_at, r.updated_at"""

# An expired run counts as absent: it starts again at version 1, after its events and evidence were deleted.
PUT_NEW = "".join(
    (
        """
INSERT INTO pgrecall.runs AS r
  (tenant_id, run_id, subject, status, state, state_version, metadata, expires_at, created_at, updated_at)
SELECT %(tenant)s, %(run)s, %(subject)s, %(status)s, %(state)s::jsonb, 1, %(metadata)s::jsonb,
  coalesce(statement_timestamp() + %(ttl)s::interval, %(expires_at)s::timestamptz), statement_timestamp(),
  statement_timestamp()
WHERE EXISTS (SELECT FROM pgrecall.tenants t WHERE t.tenant_id = %(tenant)s AND t.erased_at IS NULL)""",
        SUBJECT_NOT_ERASED,
        """
ON CONFLICT (tenant_id, run_id) DO UPDATE
SET subject = coalesce(r.subject, excluded.subject), status = excluded.status, state = excluded.state,
    state_version = r.state_version + 1, metadata = excluded.metadata, expires_at = excluded.expires_at,
    updated_at = greatest(r.updated_at, excluded.updated_at)
WHERE (%(expected)s::int8 IS NULL OR r.state_version = %(expected)s::int8)
  AND (r.expires_at IS NULL OR r.expires_at > excluded.updated_at)
  AND (r.subject IS NULL OR excluded.subject IS NULL OR r.subject = excluded.subject)
RETURNING""",
        _COLUMNS,
    )
)

# The first of two times that is not NULL, without COALESCE, for Citus.
PUT_NEXT = "".join(
    (
        """
UPDATE pgrecall.runs r
SET subject = coalesce(r.subject, %(subject)s), status = %(status)s, state = %(state)s::jsonb,
    state_version = r.state_version + 1, metadata = %(metadata)s::jsonb,
    expires_at = (array_remove(
      ARRAY[statement_timestamp() + %(ttl)s::interval, %(expires_at)s::timestamptz], NULL))[1],
    updated_at = greatest(r.updated_at, statement_timestamp())
WHERE r.tenant_id = %(tenant)s AND r.run_id = %(run)s AND r.state_version = %(expected)s::int8
  AND (r.expires_at IS NULL OR r.expires_at > statement_timestamp())
  AND (r.subject IS NULL OR %(subject)s::text IS NULL OR r.subject = %(subject)s::text)""",
        SUBJECT_NOT_ERASED,
        "\nRETURNING",
        _COLUMNS,
    )
)

LOCK = """
SELECT r.state_version, r.subject, r.expires_at <= statement_timestamp() FROM pgrecall.runs r
WHERE r.tenant_id = %(tenant)s AND r.run_id = %(run)s FOR UPDATE
"""

# A run with only events or evidence so far.
ADD = """
INSERT INTO pgrecall.runs (tenant_id, run_id, status) VALUES (%(tenant)s, %(run)s, 'running') ON CONFLICT DO NOTHING
"""

GET = "".join(
    (
        "SELECT",
        _COLUMNS,
        """
FROM pgrecall.runs r WHERE r.tenant_id = %(tenant)s AND r.run_id = %(run)s
  AND (r.expires_at IS NULL OR r.expires_at > statement_timestamp())""",
    )
)

TOUCH = """
UPDATE pgrecall.runs r
SET next_seq = r.next_seq + 1, updated_at = greatest(r.updated_at, statement_timestamp()),
    expires_at = (array_remove(ARRAY[statement_timestamp() + %(ttl)s::interval, r.expires_at], NULL))[1]
WHERE r.tenant_id = %(tenant)s AND r.run_id = %(run)s
  AND (r.expires_at IS NULL OR r.expires_at > statement_timestamp())
RETURNING r.next_seq - 1, r.updated_at
"""

ADD_EVENT = """
INSERT INTO pgrecall.run_events (tenant_id, run_id, seq, kind, data, created_at)
VALUES (%(tenant)s, %(run)s, %(seq)s, %(kind)s, %(data)s::jsonb, %(now)s)
"""

EVENTS = """
SELECT e.seq, e.kind, e.data, e.created_at FROM pgrecall.run_events e
WHERE e.tenant_id = %(tenant)s AND e.run_id = %(run)s AND e.seq > %(after)s::int8
  AND (SELECT true FROM pgrecall.runs r WHERE r.tenant_id = %(tenant)s AND r.run_id = %(run)s
       AND (r.expires_at IS NULL OR r.expires_at > statement_timestamp()))
ORDER BY e.seq LIMIT %(limit)s::int8
"""

# The space's properties: as given, or those of the collection's active space.
ADD_RETRIEVAL = """
INSERT INTO pgrecall.run_retrievals
  (tenant_id, run_id, seq, collection, provider, model, dim, distance, query_hash, query_kind, created_at)
SELECT %(tenant)s, %(run)s, %(seq)s, %(collection)s, coalesce(%(provider)s::text, s.provider),
  coalesce(%(model)s::text, s.model), coalesce(%(dim)s::int4, s.dim), coalesce(%(distance)s::text, s.distance),
  %(query_hash)b::bytea, %(query_kind)s, %(now)s
FROM (SELECT 1) one LEFT JOIN LATERAL (
  SELECT s.provider, s.model, s.dim, s.distance
  FROM pgrecall.collections c JOIN pgrecall.embed_spaces s ON s.id = c.space_id
  WHERE c.tenant_id = %(tenant)s AND c.name = %(collection)s LIMIT 1) s ON true
RETURNING 1
"""

ADD_EVIDENCE = """
INSERT INTO pgrecall.run_evidence
  (tenant_id, run_id, seq, rank, chunk_id, doc_id, content_hash, score, distance)
SELECT %(tenant)s, %(run)s, %(seq)s, i.at - 1, i.chunk_id, i.doc_id, i.content_hash, i.score, i.distance
FROM unnest(%(chunks)s::text[], %(doc_ids)s::text[], %(hashes)s::bytea[], %(scores)s::float8[], %(distances)s::float8[])
  WITH ORDINALITY AS i (chunk_id, doc_id, content_hash, score, distance, at)
RETURNING 1
"""

EVIDENCE = """
SELECT t.seq, t.collection, t.provider, t.model, t.dim, t.distance, t.query_hash, t.query_kind, t.created_at,
  CASE WHEN own.provider IS NULL THEN 'gone'
    WHEN (own.provider, own.model, own.dim, own.distance) = (t.provider, t.model, t.dim, t.distance) THEN 'same'
    ELSE 'changed' END,
  e.rank, e.chunk_id, e.doc_id, e.content_hash, e.score, e.distance,
  CASE WHEN k.content_hash IS NULL THEN 'gone' WHEN k.content_hash = e.content_hash THEN 'same' ELSE 'changed' END
FROM pgrecall.run_retrievals t
LEFT JOIN LATERAL (
  SELECT s.provider, s.model, s.dim, s.distance
  FROM pgrecall.collections c JOIN pgrecall.embed_spaces s ON s.id = c.space_id
  WHERE c.tenant_id = %(tenant)s AND c.name = t.collection LIMIT 1) own ON true
LEFT JOIN pgrecall.run_evidence e
  ON e.tenant_id = %(tenant)s AND e.run_id = %(run)s AND e.seq = t.seq
LEFT JOIN LATERAL (
  SELECT k.content_hash FROM pgrecall.chunks k
  WHERE k.tenant_id = %(tenant)s AND k.collection = t.collection AND k.id = e.chunk_id LIMIT 1) k ON true
WHERE t.tenant_id = %(tenant)s AND t.run_id = %(run)s
  AND (SELECT true FROM pgrecall.runs r WHERE r.tenant_id = %(tenant)s AND r.run_id = %(run)s
       AND (r.expires_at IS NULL OR r.expires_at > statement_timestamp()))
ORDER BY t.seq, e.rank
"""

# Runs that were not updated since, except the `keep` newest of all; locked in the order of their ids.
PRUNABLE = """
SELECT r.run_id FROM pgrecall.runs r
WHERE r.tenant_id = %(tenant)s AND (%(before)s::timestamptz IS NULL OR r.updated_at < %(before)s::timestamptz)
  AND (%(age)s::interval IS NULL OR r.updated_at < statement_timestamp() - %(age)s::interval)
  AND (%(statuses)s::text[] IS NULL OR r.status = ANY (%(statuses)s::text[]))
  AND r.run_id NOT IN (
    SELECT n.run_id FROM pgrecall.runs n WHERE n.tenant_id = %(tenant)s
    ORDER BY n.updated_at DESC, n.run_id LIMIT %(keep)s::int8)
ORDER BY r.run_id LIMIT %(batch)s::int8 FOR UPDATE OF r SKIP LOCKED
"""

#: Leaf first. `runs` are the ids.
DELETE = {
    "evidence": """\
DELETE FROM pgrecall.run_evidence WHERE tenant_id = %(tenant)s AND run_id = ANY (%(runs)s::text[]) RETURNING true""",
    "retrievals": """\
DELETE FROM pgrecall.run_retrievals WHERE tenant_id = %(tenant)s AND run_id = ANY (%(runs)s::text[]) RETURNING true""",
    "events": """\
DELETE FROM pgrecall.run_events WHERE tenant_id = %(tenant)s AND run_id = ANY (%(runs)s::text[]) RETURNING true""",
    "runs": """\
DELETE FROM pgrecall.runs WHERE tenant_id = %(tenant)s AND run_id = ANY (%(runs)s::text[]) RETURNING true""",
}


@dataclass(frozen=True, slots=True)
class RunFilters:
    """Filters on a run's metadata and on its state. Two are equal if their SQL is equal."""

    metadata_shape: Hashable
    state_shape: Hashable
    metadata: Filter | None = field(compare=False)
    state: Filter | None = field(compare=False)

    @classmethod
    def of(cls, metadata: Filter | None, state: Filter | None) -> RunFilters:
        """The condition for these filters."""
        of_metadata, of_state = (None if tree is None else shape(tree) for tree in (metadata, state))
        return cls(of_metadata, of_state, metadata, state)

    def values(self) -> dict[str, Any]:
        """The parameters of the filters."""
        found = {} if self.metadata is None else bind_values(self.metadata, "m")
        return found if self.state is None else found | bind_values(self.state, "s")


@lru_cache(maxsize=256)
def listing(where: RunFilters) -> str:
    """Matching runs, the last updated first."""
    columns = (
        runs.c.run_id, runs.c.state, runs.c.status, runs.c.state_version, runs.c.subject, runs.c.metadata,
        runs.c.expires_at, runs.c.created_at, runs.c.updated_at,
    )  # fmt: skip
    return compiled(
        sa.select(*columns)
        .where(*_conditions(where))
        .order_by(runs.c.updated_at.desc(), runs.c.run_id)
        .limit(sa.cast(bound("limit"), sa.BigInteger))
        .offset(sa.cast(bound("offset"), sa.BigInteger))
    )


@lru_cache(maxsize=256)
def count(where: RunFilters) -> str:
    """Count the matching runs."""
    return compiled(sa.select(sa.func.count()).select_from(runs).where(*_conditions(where)))


def _conditions(where: RunFilters) -> list[sa.ColumnElement[bool]]:
    now = sa.func.statement_timestamp()
    conditions = [
        runs.c.tenant_id == bound("tenant"),
        sa.or_(runs.c.expires_at.is_(None), runs.c.expires_at > now),
        *(_equal_or_any(runs.c[name], name) for name in ("status", "subject")),
    ]
    if where.metadata is not None:
        conditions.append(compile_filter(where.metadata, runs.c.metadata, "m")[0])
    if where.state is not None:
        conditions.append(compile_filter(where.state, runs.c.state, "s")[0])
    return conditions


def _equal_or_any(column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[bool]:
    return sa.or_(sa.cast(bound(name), sa.Text).is_(None), column == sa.cast(bound(name), sa.Text))
