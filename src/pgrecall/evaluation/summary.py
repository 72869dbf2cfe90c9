"""Summarises the results of a run: means with intervals, tenants, latencies, and counts of failures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from pgrecall.evaluation.sets import EvalSet
from pgrecall.evaluation.statistics import Floats, Interval, bootstrap_each, macro

if TYPE_CHECKING:
    from pgrecall.evaluation.store import Result

#: Resamples of the intervals.
DRAWS = 2_000


def summed_up(eval_set: EvalSet, results: Sequence[Result], seed: int) -> dict[str, Any]:
    """Summarise results, which are in the order of the set's queries, as JSON.

    ``metrics`` has each mean with its 95 % bootstrap interval, ``unscored`` the number of queries without a score,
    ``macro`` the mean over tenants and the worst tenant, ``tenants`` the means of each tenant, and ``latency`` the
    percentiles in milliseconds by step. Failed queries count as 0; latencies do not include them.
    """
    names = list(dict.fromkeys(name for result in results for name in result.metrics))
    scores = np.array([[result.metrics.get(name, np.nan) for result in results] for name in names])
    intervals = _intervals(scores, seed)
    by_tenant: defaultdict[str, list[int]] = defaultdict(list)
    for place, query in enumerate(eval_set.queries):
        if query.tenant is not None:
            by_tenant[query.tenant].append(place)
    answered = [result for result in results if result.error is None]
    return {
        "queries": len(results),
        "failed": len(results) - len(answered),
        "empty": sum(not result.retrieved for result in answered),
        "foreign_rows": sum(result.foreign_rows for result in results),
        "rows": sum(len(result.retrieved) for result in results),
        "metrics": {name: asdict(interval) for name, interval in zip(names, intervals, strict=True)},
        "unscored": {
            name: int(missing) for name, row in zip(names, scores, strict=True) if (missing := np.isnan(row).sum())
        },
        "macro": {
            name: asdict(made)
            for row, name in enumerate(names)
            if (made := macro({tenant: _given(scores[row, places]) for tenant, places in by_tenant.items()}))
        },
        "tenants": {
            tenant: {
                "queries": len(places),
                **{n: float(given.mean()) for r, n in enumerate(names) if len(given := _given(scores[r, places]))},
            }
            for tenant, places in sorted(by_tenant.items())
        },
        "latency": _latencies(answered),
    }


def reasons(results: Sequence[Result], most: int = 3) -> list[str]:
    """The most frequent errors of queries, each with its count and the first such query."""
    first: dict[str, str] = {}
    for result in results:
        if result.error is not None:
            first.setdefault(result.error, result.query_id)
    counted = Counter(result.error for result in results if result.error is not None)
    return [f"{times:,} × {error} (query {first[error]})" for error, times in counted.most_common(most)]


def _given(row: Floats) -> Floats:
    return row[~np.isnan(row)]


def _intervals(scores: Floats, seed: int) -> list[Interval]:
    """The interval of each row; a row with gaps is resampled on its own, without them."""
    whole = [not np.isnan(row).any() for row in scores]
    together = iter(bootstrap_each(scores[whole], seed=seed, draws=DRAWS) if any(whole) else [])
    return [
        next(together) if complete else bootstrap_each(_given(row)[None, :], seed=seed, draws=DRAWS)[0]
        for row, complete in zip(scores, whole, strict=True)
    ]


def _latencies(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    steps: defaultdict[str, list[float]] = defaultdict(list)
    for result in results:
        for step, milliseconds in result.latency.items():
            steps[step].append(milliseconds)
    return {
        step: {name: round(float(np.percentile(taken, q)), 3) for name, q in (("p50", 50), ("p95", 95), ("p99", 99))}
        for step, taken in steps.items()
    }
