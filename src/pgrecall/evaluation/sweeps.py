"""Grids of settings: each combination is run, and those worth having are the frontier of quality and latency."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from pgrecall.arguments import whole_number
from pgrecall.errors import InvalidInput
from pgrecall.evaluation.adapters import adapt
from pgrecall.evaluation.metrics import Metric
from pgrecall.evaluation.retrievers import CoreRetriever
from pgrecall.evaluation.runs import DEPTHS, EvalRun, depths_of, evaluate
from pgrecall.evaluation.sets import EvalSet
from pgrecall.hits import Weighted
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
        for some in ([grid] if isinstance(grid, str | Mapping) else grid)
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
        measured = metric if metric in run.summary["metrics"] else f"{metric}@{depths[-1]}"
        latency = run.summary["latency"]
        taken = latency.get(step) or latency.get("total") or {"p50": 0.0}
        found.append(Point(settings, run, run.mean(measured), taken["p50"], on_frontier=bool(latency)))
    # Where every query failed there is no latency, and nothing to be had.
    return [
        replace(p, on_frontier=p.on_frontier and not any(_better(o, p) for o in found if o.on_frontier)) for p in found
    ]


#: What `evaluate` takes for itself; the rest of its options are the core store's.
_EVALUATE = [p.name for p in inspect.signature(evaluate).parameters.values() if p.kind is p.KEYWORD_ONLY]


def _combined(grid: Grid) -> Iterator[dict[str, Any]]:
    listed = isinstance(grid, Mapping) and not any(
        isinstance(v, str) or not isinstance(v, Iterable) for v in grid.values()
    )
    if not listed:
        raise InvalidInput(
            f"a grid is {grid!r:.80}; expected settings with lists to try, such as {{'mode': ['dense']}}"
        )
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
    depths = depths_of(settings.get("top_k", options.get("top_k", DEPTHS)))
    _, at, depth = metric.partition("@")
    if not at:
        return depths
    k = whole_number(int(depth) if depth.isdecimal() else depth, f"the depth of metric {metric!r:.60}", 1)
    if k > depths[-1]:
        raise InvalidInput(
            f"metric {metric} counts {k} rows, and top_k is {depths[-1]}; leave out @{k} to measure each point at "
            "its own depth"
        )
    return sorted({*depths, k})


def _better(one: Point, other: Point) -> bool:
    """Whether `one` is as good in both, and better in one."""
    mine, its = (one.quality, -one.latency_ms), (other.quality, -other.latency_ms)
    return mine != its and mine[0] >= its[0] and mine[1] >= its[1]
