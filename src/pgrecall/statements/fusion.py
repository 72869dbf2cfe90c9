"""The SQL of fusion: what a result of one side adds to the score of a fused result (see `pgrecall.hits`)."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pgrecall.hits import RANK_CONSTANT
from pgrecall.statements.compose import divided

#: The published constant, as a literal.
PUBLISHED: Any = sa.literal_column(f"{RANK_CONSTANT:.0f}", sa.Integer)


def reciprocal_rank(rank: Any, k: Any = PUBLISHED) -> Any:
    """``1 / (k + rank)``: reciprocal rank fusion sums it over the sides (Cormack, Clarke and Büttcher, SIGIR 2009)."""
    return divided(sa.literal_column("1::float8"), k + rank)


def min_max(score: Any, low: Any, high: Any) -> Any:
    """The score normalized from 0 (the side's lowest) to 1 (its highest); 1 if these are equal."""
    spread = sa.func.nullif(high - low, sa.literal_column("0"))
    return sa.func.coalesce(divided(score - low, spread), sa.literal_column("1"))
