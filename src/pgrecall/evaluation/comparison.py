"""Comparing runs: paired, query by query, with an interval and a p."""

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
    """`after` against `before`: the difference of each metric, and the queries that moved most in the first of them."""

    before: str
    after: str
    differences: Mapping[str, Difference]
    regressions: tuple[Moved, ...]
    improvements: tuple[Moved, ...]


def compare(
    before: EvalRun, after: EvalRun, metrics: Sequence[str] | None = None, *, top: int = 10, seed: int = 0
) -> Comparison:
    """Paired differences of two runs on the same data; the metrics that both have where none are named.

    Raises: InvalidInput where the runs are on different data, or share no such metric.
    """
    if before.set_sha256 != after.set_sha256:
        raise InvalidInput(
            f"run {before.run_id} is on {_set(before)}, run {after.run_id} on {_set(after)}; only runs on the same "
            "data can be compared"
        )
    shared = [name for name in before.summary["metrics"] if name in after.summary["metrics"]]
    chosen = shared if metrics is None else list(metrics)
    if not chosen or set(chosen) - set(shared):
        asked = ", ".join(chosen) or "any metric"
        raise InvalidInput(f"the runs don't share {asked}; they share {', '.join(shared) or 'none'}")
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
