"""Runs each combination of a grid of settings, and finds the frontier of quality and latency."""

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
    """One combination of a grid: its settings, its run, its quality and latency."""

    settings: Mapping[str, Any]
    run: EvalRun
    quality: float
    latency_ms: float
    on_frontier: bool


#: The values to try, by the name of the setting.
Grid: TypeAlias = Mapping[str, Sequence[Any]]
#: A core store, a `CoreRetriever`, or a function that makes a retriever of settings.
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
    """Run every combination of a grid, and mark those on the frontier of quality and latency.

    A point is on the frontier unless another one is at least as good in both, and better in one. Points are returned
    in the order of the grid.

    Args:
        retriever: A core store or a `CoreRetriever`, whose settings are `mode`, `alpha` (the weight of the vector in a
            `Weighted` fusion) and arguments of `query`, such as `ef_search`; or a function ``retriever(**settings)``.
        eval_set: The queries and judgements.
        grid: A mapping from settings to the values to try, or several such mappings. The setting `top_k` is the depth
            at which a point is measured; it is not passed to a function.
        metric: The metric of the quality. Without a depth, it is measured at each point's largest depth; by default
            "recall".
        step: The step whose p50 is the latency; "total" if a retriever has no such step; by default "search".
        **options: Arguments of `evaluate`.

    Raises:
        InvalidInput: A setting is invalid. Settings are checked before the first run.
    """
    if metric.startswith("ann_recall"):
        options.setdefault("ann_recall", True)
    elif "scorers" not in options:
        Metric.of(metric)
    label = options.pop("label", None)
    # All retrievers are made before the first run, so that an invalid one is found early.
    every = [
        (settings, _retriever(retriever, settings, options), _depths(settings, options, metric))
        for some in ([grid] if isinstance(grid, str | Mapping) else grid)
        for settings in _combined(some)
    ]
    if not every:
        raise InvalidInput("the grid is empty; expected lists of values to try, such as {'mode': ['dense']}")
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
    # If every query failed, there is no latency, and the point is not on the frontier.
    return [
        replace(p, on_frontier=p.on_frontier and not any(_better(o, p) for o in found if o.on_frontier)) for p in found
    ]


#: The arguments of `evaluate` itself; its other options are those of the core store.
_EVALUATE = [p.name for p in inspect.signature(evaluate).parameters.values() if p.kind is p.KEYWORD_ONLY]


def _combined(grid: Grid) -> Iterator[dict[str, Any]]:
    listed = isinstance(grid, Mapping) and not any(
        isinstance(v, str) or not isinstance(v, Iterable) for v in grid.values()
    )
    if not listed:
        raise InvalidInput(
            f"a grid is {grid!r:.80}; expected a mapping of settings to lists, such as {{'mode': ['dense']}}"
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
    """The depths at which a point is measured, including that of the metric."""
    depths = depths_of(settings.get("top_k", options.get("top_k", DEPTHS)))
    _, at, depth = metric.partition("@")
    if not at:
        return depths
    k = whole_number(int(depth) if depth.isdecimal() else depth, f"the depth of metric {metric!r:.60}", 1)
    if k > depths[-1]:
        raise InvalidInput(
            f"metric {metric} needs {k} rows, but top_k is {depths[-1]}; omit @{k} to measure each point at its own "
            "depth"
        )
    return sorted({*depths, k})


def _better(one: Point, other: Point) -> bool:
    """Whether `one` is at least as good in both, and better in one."""
    mine, its = (one.quality, -one.latency_ms), (other.quality, -other.latency_ms)
    return mine != its and mine[0] >= its[0] and mine[1] >= its[1]
