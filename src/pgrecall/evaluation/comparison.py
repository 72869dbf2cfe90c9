"""Compares two runs, paired by query, with confidence intervals and p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pgrecall.errors import InvalidInput
from pgrecall.evaluation.runs import EvalRun
from pgrecall.evaluation.statistics import Difference, paired


@dataclass(frozen=True, slots=True)
class Moved:
    """A query whose score changed."""

    query_id: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs compared: the difference of each metric, and the queries that changed most in the first metric."""

    before: str
    after: str
    differences: Mapping[str, Difference]
    regressions: tuple[Moved, ...]
    improvements: tuple[Moved, ...]


def compare(
    before: EvalRun, after: EvalRun, metrics: Sequence[str] | None = None, *, top: int = 10, seed: int = 0
) -> Comparison:
    """Compare two runs on the same data, paired by query.

    Args:
        before: The run to compare with.
        after: The run to compare.
        metrics: Names of metrics, such as "ndcg@10". By default all that both runs have.
        top: How many regressions and improvements to list; by default 10.
        seed: The seed of the resampling; by default 0.

    Raises:
        InvalidInput: The runs are on different data, or do not share a metric.
    """
    if before.set_sha256 != after.set_sha256:
        raise InvalidInput(
            f"run {before.run_id} is on {_set(before)} and run {after.run_id} on {_set(after)}; expected runs on the "
            "same data"
        )
    shared = [name for name in before.summary["metrics"] if name in after.summary["metrics"]]
    chosen = shared if metrics is None else list(metrics)
    if not chosen or set(chosen) - set(shared):
        asked = ", ".join(chosen) or "any metric"
        raise InvalidInput(f"the runs do not share {asked}; expected one of: {', '.join(shared) or 'none'}")
    old, new = ({r.query_id: r.metrics for r in run.results} for run in (before, after))
    moved = [Moved(i, old[i][chosen[0]], new[i][chosen[0]]) for i in old if chosen[0] in old[i] and chosen[0] in new[i]]
    worse = sorted((m for m in moved if m.after < m.before), key=lambda m: (m.after - m.before, m.query_id))
    better = sorted((m for m in moved if m.after > m.before), key=lambda m: (m.before - m.after, m.query_id))
    both = {name: [i for i in old if name in old[i] and name in new[i]] for name in chosen}
    return Comparison(
        before.run_id,
        after.run_id,
        {n: paired([old[i][n] for i in ids], [new[i][n] for i in ids], seed=seed) for n, ids in both.items()},
        tuple(worse[:top]),
        tuple(better[:top]),
    )


def _set(run: EvalRun) -> str:
    version = "" if run.set_version is None else f" version {run.set_version}"
    return f"{run.set_name!r}{version} (sha256 {run.set_sha256[:12]}…)"
