"""Reading facts: by id, by identity, by conditions, by words and by vector. Expired and forgotten facts are left out.

Searches are composed by SQLAlchemy, because they have filters. Each shape is compiled once.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from pgvector.sqlalchemy import HALFVEC
from sqlalchemy.dialects.postgresql import ARRAY

from pgrecall.facts import Order
from pgrecall.filters import Filter, bind_values, compile_filter, shape
from pgrecall.schema import fact_vectors, memory_facts
from pgrecall.statements.compose import bound, compiled
from pgrecall.statements.facts import made
from pgrecall.statements.fusion import reciprocal_rank
from pgrecall.statements.search import OPERATORS
from pgrecall.statements.words import asked_words
from pgrecall.types import Distance

#: In the order in which `operations/memory/read.py` reads them.
_COLUMNS = (
    "id", "namespace", "subject", "kind", "key", "value", "text", "source", "confidence", "actor", "valid_from",
    "valid_to", "supersedes_id", "ttl", "ttl_refresh", "expires_at", "created_at",
)  # fmt: skip
_ROW = ", ".join(f"f.{name}" for name in _COLUMNS)
_READABLE = "f.deleted_at IS NULL AND (f.expires_at > statement_timestamp()) IS NOT FALSE"

BY_ID = made(
    """
SELECT $ROW FROM pgrecall.memory_facts f
WHERE f.tenant_id = %(tenant)s AND f.id = %(id)s AND $READABLE
""",
    ROW=_ROW,
    READABLE=_READABLE,
)

#: The live facts of these identities, each with the identity's number.
BY_KEYS = made(
    """
SELECT $ROW, i.n FROM $IDENTITIES
JOIN LATERAL (
  SELECT * FROM pgrecall.memory_facts f WHERE $SAME AND f.valid_to IS NULL AND $READABLE LIMIT 1) f ON true
""",
    ROW=_ROW,
    READABLE=_READABLE,
)

HISTORY = made(
    """
SELECT $ROW FROM $IDENTITIES
JOIN LATERAL (SELECT * FROM pgrecall.memory_facts f WHERE $SAME AND $VERSIONS AND $READABLE OFFSET 0) f ON true
ORDER BY f.valid_from DESC LIMIT %(limit)s OFFSET %(offset)s
""",
    ROW=_ROW,
    READABLE=_READABLE,
)

# `*` in a pattern matches any one label. Labels are never NULL, and lengths are compared first.
NAMESPACES = """
SELECT namespace FROM (
  SELECT DISTINCT f.namespace[1:coalesce(%(depth)s::int4, cardinality(f.namespace))] AS namespace
  FROM pgrecall.memory_facts f
  WHERE f.tenant_id = %(tenant)s AND f.valid_to IS NULL AND f.deleted_at IS NULL AND f.namespace <> '{}'
    AND (f.expires_at > statement_timestamp()) IS NOT FALSE
    AND NOT EXISTS (
      SELECT FROM jsonb_array_elements(%(patterns)s::jsonb) AS p (pattern)
      WHERE cardinality(f.namespace) < jsonb_array_length(p.pattern -> 'path') OR EXISTS (
        SELECT FROM jsonb_array_elements_text(p.pattern -> 'path') WITH ORDINALITY AS l (label, n)
        WHERE l.label <> '*' AND l.label <> f.namespace[l.n::int4 + CASE WHEN (p.pattern -> 'suffix')::bool
          THEN cardinality(f.namespace) - jsonb_array_length(p.pattern -> 'path') ELSE 0 END]))) found
ORDER BY namespace LIMIT %(limit)s OFFSET %(offset)s
"""

EVENTS = """
SELECT id, at, action, target_id, subject, actor, reason, detail FROM pgrecall.memory_events
WHERE tenant_id = %(tenant)s AND (%(subject)s::text IS NULL OR subject = %(subject)s)
  AND (%(target_id)s::text IS NULL OR target_id = %(target_id)s)
  AND (%(actions)s::text[] IS NULL OR action = ANY (%(actions)s::text[]))
  AND (%(by)s::text IS NULL OR actor = %(by)s)
  AND (%(since)s::timestamptz IS NULL OR at >= %(since)s) AND (%(until)s::timestamptz IS NULL OR at < %(until)s)
  AND id COLLATE "C" > %(after)s
ORDER BY id COLLATE "C" LIMIT %(limit)s OFFSET %(offset)s
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """Which facts: all conditions are ANDed. Two are equal if their SQL is equal."""

    by_subject: bool = False
    by_kinds: bool = False
    by_key: bool = False
    by_namespace: bool = False
    as_of: bool = False
    shape: Hashable = None
    tree: Filter | None = field(default=None, compare=False)

    @classmethod
    def of(cls, filters: Filter | None, **by: bool) -> Facts:
        """The conditions for these parts."""
        return cls(**by, shape=None if filters is None else shape(filters), tree=filters)


def filter_values(which: Facts) -> dict[str, Any]:
    """The parameters of the filter."""
    return {} if which.tree is None else bind_values(which.tree)


def _matching(which: Facts) -> list[sa.ColumnElement[bool]]:
    f = memory_facts.c
    now = sa.func.statement_timestamp()
    conditions = [f.tenant_id == bound("tenant"), f.deleted_at.is_(None), (f.expires_at > now).is_not(sa.false())]
    if which.as_of:
        then = sa.cast(bound("as_of"), sa.TIMESTAMP(timezone=True))
        conditions += [
            f.valid_from > sa.literal_column("'-infinity'::timestamptz"),
            f.valid_from <= then,
            (f.valid_to > then).is_not(sa.false()),
            (f.expires_at > then).is_not(sa.false()),
        ]
    else:
        conditions.append(f.valid_to.is_(None))
    if which.by_subject:
        conditions.append(f.subject == sa.cast(bound("subject"), sa.Text))
    if which.by_kinds:
        conditions.append(f.kind == sa.any_(sa.cast(bound("kinds"), ARRAY(sa.Text))))
    if which.by_key:
        conditions.append(f.key == sa.cast(bound("key"), sa.Text))
    if which.by_namespace:
        # In code point order, the arrays with this prefix are exactly those from the prefix up to the prefix with the
        # successor of its last label: a range, for which an index can be used.
        conditions.append(f.namespace != sa.literal_column("'{}'::text[]"))
        conditions.append(f.namespace >= sa.cast(bound("prefix"), ARRAY(sa.Text)))
        conditions.append(f.namespace < sa.cast(bound("beyond"), ARRAY(sa.Text)))
    if which.tree is not None:
        conditions.append(compile_filter(which.tree, f.value)[0])
    return conditions


def _number(name: str) -> sa.ColumnElement[int]:
    return sa.cast(bound(name), sa.BigInteger)


def _newest(source: Any) -> list[sa.ColumnElement[Any]]:
    return [source.valid_from.desc(), source.id.desc()]


def _in_order(order: Order, source: Any, score: sa.ColumnElement[Any] | None) -> list[sa.ColumnElement[Any]]:
    if order == "confidence":
        return [source.confidence.desc().nulls_last(), *_newest(source)]
    return [score.desc(), *_newest(source)] if order == "relevance" and score is not None else _newest(source)


@lru_cache(maxsize=512)
def listing(which: Facts, order: Order) -> str:
    """Matching facts in this order. Without a query, relevance means recency."""
    columns = [memory_facts.c[name] for name in _COLUMNS]
    statement = sa.select(*columns, sa.null().label("score")).where(*_matching(which))
    statement = statement.order_by(*_in_order(order, memory_facts.c, None))
    return compiled(statement.limit(_number("limit")).offset(_number("offset")))


def _by_words(which: Facts) -> tuple[sa.Select[Any], list[sa.CTE]]:
    """Facts whose text matches, with their rank, and the CTEs that the statement needs."""
    query = asked_words()
    asked = sa.select(query.c.query).scalar_subquery()
    f = memory_facts.c
    score = sa.cast(sa.func.ts_rank_cd(f.text_search, asked), sa.Double).label("score")
    found = sa.select(f.id, f.valid_from, score).where(*_matching(which), f.text_search.bool_op("@@")(asked))
    return found, [query]


def _by_vector(which: Facts, distance: Distance) -> sa.Select[Any]:
    """Facts with the similarity of their most similar field."""
    f, v = memory_facts.c, fact_vectors.c
    apart = v.embedding.op(OPERATORS[distance], return_type=sa.Float())(sa.cast(bound("query"), HALFVEC))
    best = (
        sa.select(sa.func.min(apart).label("distance"))
        .where(v.tenant_id == bound("tenant"), v.fact_id == f.id, v.space_id == bound("space"))
        .lateral("best")
    )
    one = sa.literal_column("1", sa.Float)
    score = {"cosine": one - best.c.distance, "ip": -best.c.distance, "l2": one / (one + best.c.distance)}[distance]
    found = sa.select(f.id, f.valid_from, score.label("score")).join(best, sa.true()).where(*_matching(which))
    return found.where(best.c.distance.is_not(None))


def _best(found: sa.Select[Any], name: str, most: str) -> sa.CTE:
    """The `most` facts with the highest scores."""
    inner = found.subquery()
    ranked = sa.select(inner.c.id, inner.c.valid_from, inner.c.score)
    ranked = ranked.order_by(inner.c.score.desc(), *_newest(inner.c)).limit(_number(most))
    return ranked.cte(name).prefix_with("MATERIALIZED")


@lru_cache(maxsize=512)
def relevant(which: Facts, order: Order, *, words: bool, distance: Distance | None) -> str:
    """The facts most relevant to words, to a vector, or to both by the sum of their reciprocal ranks.

    `limit` and `offset` select by relevance; `order` sorts the selected facts. A fusion takes `fetch` facts of each
    side.
    """
    before: list[sa.CTE] = []
    sides = []
    if words:
        found, before = _by_words(which)
        sides.append(found)
    if distance is not None:
        sides.append(_by_vector(which, distance))
    if len(sides) == 1:
        inner = sides[0].subquery()
    else:
        ranks = []
        for name, side in zip(("by_words", "by_vector"), sides, strict=True):
            side_best = _best(side, name, "fetch")
            rank = sa.func.row_number().over(order_by=[side_best.c.score.desc(), *_newest(side_best.c)])
            ranks.append(sa.select(side_best.c.id, side_best.c.valid_from, reciprocal_rank(rank).label("share")))
        both = sa.union_all(*ranks).subquery()
        fused = sa.select(both.c.id, both.c.valid_from, sa.func.sum(both.c.share).label("score"))
        inner = fused.group_by(both.c.id, both.c.valid_from).subquery()
    near = (
        sa.select(inner.c.id, inner.c.score)
        .order_by(inner.c.score.desc(), *_newest(inner.c))
        .limit(_number("limit"))
        .offset(_number("offset"))
        .cte("near")
        .prefix_with("MATERIALIZED")
    )
    f = memory_facts.c
    fact = (
        sa.select(*(f[name] for name in _COLUMNS))
        .where(f.tenant_id == bound("tenant"), f.id == near.c.id)
        .limit(sa.literal_column("1"))
        .lateral("fact")
    )
    statement = sa.select(*fact.c, near.c.score).select_from(near.join(fact, sa.true()))
    return compiled(statement.add_cte(*before).order_by(*_in_order(order, fact.c, near.c.score)))
