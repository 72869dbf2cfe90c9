"""Grids of settings: each combination is run, and those worth having are the frontier of quality and latency."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from pgrecall.errors import InvalidInput
from pgrecall.evaluation.adapters import adapt
from pgrecall.evaluation.metrics import Metric
from pgrecall.evaluation.retrievers import CoreRetriever
from pgrecall.evaluation.runs import DEPTHS, EvalRun, evaluate
from pgrecall.evaluation.sets import EvalSet
from pgrecall.hits import Weighted
from pgrecall.operations.chunks import whole_number
from pgrecall.stores.vectors import PostgresVectorStore


@dataclass(frozen=True, slots=True)
class Point:
    """One combination of a grid: its settings, its run, and where it stands."""

    settings: Mapping[str, Any]
    run: EvalRun
    quality: float
    latency_ms: float
    on_frontier: bool


#: Settings to try, by name; of several grids each is run.
Grid: TypeAlias = Mapping[str, Sequence[Any]]
#: What is asked: a core store, alone or with what it is asked with, or a function that makes a retriever of settings.
Source: TypeAlias = PostgresVectorStore | CoreRetriever | Callable[..., Any]


def sweep(
    retriever: Source,
    eval_set: EvalSet,
    grid: Grid | Sequence[Grid],
    *,
    metric: str = "recall",
    step: str = "search",
    **options: Any,
) -> list[Point]:
    """Run every combination of `grid`, or of each of several, and mark those that are worth having.

    `retriever` is a core store or a `CoreRetriever`, whose settings are `mode`, `alpha` (the vector's share in a fusion
    by scores) and what its `query` takes, such as `ef_search` and `exact`; or a function that makes a retriever of
    settings, ``retriever(**settings)``. `top_k` is never passed to it: it is the depth that the point is measured at.
    `options` go to `evaluate`. A `metric` without a depth is taken at each point's greatest one.

    A point is on the frontier where none has a better mean of `metric` at the same or a lower p50 of `step` (``total``
    for retrievers that know no steps). Points come in the grid's order. Raises: InvalidInput.
    """
    if metric.startswith("ann_recall"):
        options.setdefault("ann_recall", True)
    elif "scorers" not in options:
        Metric.of(metric)
    label = options.pop("label", None)
    # All are made before the first is run: what one of them can't be asked should not cost the others' time.
    every = [
        (settings, _retriever(retriever, settings, options), _depths(settings, options, metric))
        for some in ([grid] if isinstance(grid, Mapping) else grid)
        for settings in _combined(some)
    ]
    if not every:
        raise InvalidInput("the grid is empty; expected settings with the values to try, such as {'mode': ['dense']}")
    if isinstance(retriever, PostgresVectorStore):
        options = {name: value for name, value in options.items() if name in _EVALUATE}
    found = []
    for settings, asked, depths in every:
        name = " ".join(f"{key}={value}" for key, value in settings.items())
        name = f"{label}: {name}" if label else name
        run = evaluate(asked, eval_set, **{**options, "label": name, "top_k": depths})
        measured = metric if metric in run.summary["metrics"] else f"{metric}@{max(depths)}"
        latency = run.summary["latency"]
        taken = latency.get(step, latency.get("total", {"p50": 0.0}))["p50"]
        found.append((settings, run, run.mean(measured), taken))
    return [Point(*point, on_frontier=not any(_better(other, point) for other in found)) for point in found]


#: What `evaluate` takes for itself; the rest of its options are the core store's.
_EVALUATE = [p.name for p in inspect.signature(evaluate).parameters.values() if p.kind is p.KEYWORD_ONLY]


def _combined(grid: Grid) -> Iterator[dict[str, Any]]:
    if grid:
        yield from (dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values()))


def _retriever(source: Source, settings: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    own = {name: value for name, value in settings.items() if name != "top_k"}
    if not isinstance(source, PostgresVectorStore | CoreRetriever):
        return source(**own)
    if "alpha" in own:
        own = {"mode": "hybrid", **own, "fusion": Weighted(own["alpha"])}
        del own["alpha"]
    if isinstance(source, CoreRetriever):
        mode = own.pop("mode", source.mode)
        return replace(source, mode=mode, options={**source.options, **own})
    return adapt(source, **{name: value for name, value in options.items() if name not in _EVALUATE} | own)


def _depths(settings: Mapping[str, Any], options: Mapping[str, Any], metric: str) -> list[int]:
    """The depths that a point is measured at, the metric's among them."""
    given = settings.get("top_k", options.get("top_k", DEPTHS))
    depths = {whole_number(k, "top_k", 1) for k in (given if isinstance(given, list | tuple) else [given])}
    _, at, depth = metric.partition("@")
    if not at:
        return sorted(depths)
    k = whole_number(int(depth) if depth.isdecimal() else depth, f"the depth of metric {metric!r:.60}", 1)
    if k > max(depths, default=k):
        raise InvalidInput(
            f"metric {metric} counts {k} rows, and top_k is {max(depths)}; leave out @{k} to measure each point at "
            "its own depth"
        )
    return sorted(depths | {k})


def _better(one: tuple[Any, Any, float, float], other: tuple[Any, Any, float, float]) -> bool:
    """Whether `one` is as good in both, and better in one."""
    return one[2] >= other[2] and one[3] <= other[3] and (one[2], one[3]) != (other[2], other[3])
