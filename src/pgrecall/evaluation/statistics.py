"""Confidence intervals and significance tests of per-query scores.

All random draws come from `numpy.random.default_rng(seed)`, so the same seed gives the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]

#: Resamples of a bootstrap, and sign patterns of a randomisation test; with 10,000, p has a standard error below .005.
DRAWS = 10_000
#: Values in one block of draws, so that memory stays at some ten megabytes for any number of queries.
_BLOCK = 2_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its confidence interval at `level`."""

    mean: float
    low: float
    high: float
    level: float = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean of paired differences with its interval, and the p-value. The counts are of queries."""

    interval: Interval
    p: float
    better: int
    worse: int
    same: int


def bootstrap(scores: Sequence[float] | Floats, *, seed: int = 0, level: float = 0.95, draws: int = DRAWS) -> Interval:
    """The mean with its percentile bootstrap interval (Efron, 1979), by resampling queries.

    The interval of a single score is the score; without scores, mean and bounds are NaN.
    """
    return bootstrap_each(np.asarray(scores, dtype=np.float64)[None, :], seed=seed, level=level, draws=draws)[0]


def bootstrap_each(rows: Floats, *, seed: int = 0, level: float = 0.95, draws: int = DRAWS) -> list[Interval]:
    """`bootstrap` of each row of an array (measures, queries), all with the same resamples of the queries."""
    if rows.shape[1] < 2:
        means = rows[:, 0] if rows.shape[1] else np.full(len(rows), np.nan)
        return [Interval(float(mean), float(mean), float(mean), level) for mean in means]
    made = stats.bootstrap(
        (rows,),
        np.mean,
        axis=-1,
        confidence_level=level,
        n_resamples=draws,
        batch=max(1, _BLOCK // rows.size),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    means = rows.mean(axis=1)
    return [
        Interval(float(m), float(low), float(high), level)
        for m, low, high in zip(means, made.low, made.high, strict=True)
    ]


def paired(
    before: Sequence[float] | Floats, after: Sequence[float] | Floats, *, seed: int = 0, draws: int = DRAWS
) -> Difference:
    """The paired differences `after` minus `before`: mean, interval, and two-sided p by a sign-flip randomisation test.

    The null hypothesis is that each difference is equally likely with the opposite sign (Fisher, 1935; Smucker, Allan
    and Carterette, CIKM 2007). If at most `draws` sign patterns exist, all are used and p is exact. Otherwise p is
    (1 + patterns at least as extreme) / (1 + draws), which is never 0.
    """
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    p = 1.0
    if differences.any():
        p = stats.permutation_test(
            (differences,),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=draws,
            batch=max(1, _BLOCK // len(differences)),
            rng=np.random.default_rng(seed),
        ).pvalue
    return Difference(
        bootstrap(differences, seed=seed, draws=draws),
        float(p),
        int((differences > 0).sum()),
        int((differences < 0).sum()),
        int((differences == 0).sum()),
    )


@dataclass(frozen=True, slots=True)
class Macro:
    """The mean of the tenants' means, in which small tenants count as much as large ones; and the worst tenant."""

    mean: float
    worst: str
    worst_mean: float
    tenants: int


def macro(by_tenant: Mapping[str, Sequence[float] | Floats]) -> Macro | None:
    """The macro mean of scores grouped by tenant; None without scores. At a tie the worst is the first by name."""
    means = {tenant: float(np.mean(scores)) for tenant, scores in sorted(by_tenant.items()) if len(scores)}
    if not means:
        return None
    worst = min(means, key=lambda tenant: means[tenant])
    return Macro(float(np.mean(list(means.values()))), worst, means[worst], len(means))
