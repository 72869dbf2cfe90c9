"""Reports one or several runs as one self-contained HTML file."""

from __future__ import annotations

import base64
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

from pgrecall.errors import ConfigurationError, InvalidInput
from pgrecall.evaluation.comparison import compare
from pgrecall.evaluation.metrics import in_order
from pgrecall.evaluation.runs import EvalRun
from pgrecall.evaluation.sets import EvalQuery, EvalSet
from pgrecall.evaluation.store import Result
from pgrecall.extras import install_extra

#: Returns the texts of ids of a tenant, which the section "Worst queries" shows.
Texts = Callable[[str | None, Sequence[str]], Mapping[str, str]]

#: How many characters of a text are shown.
SHOWN = 240


def report(
    runs: Sequence[EvalRun],
    eval_set: EvalSet,
    *,
    title: str | None = None,
    main: str | None = None,
    worst: int = 20,
    texts: Texts | None = None,
) -> str:
    """Make a report of runs on one set, as the text of an HTML file. The last run is compared with the first.

    Args:
        runs: The runs, oldest first.
        eval_set: The set that they ran on.
        title: The title. By default the names of the set and of the last run.
        main: The metric by which queries and tenants are ranked. By default the first of the summary, which is
            nDCG at the largest depth.
        worst: How many of the worst queries are shown in full; by default 20.
        texts: Returns the texts of a tenant's ids, as a mapping. The report shows the beginning of each.

    Raises:
        InvalidInput: There is no run, a run is on other data, or the last run does not have the metric `main`.
        ConfigurationError: The extra `eval` is not installed.
    """
    try:
        import jinja2

        from pgrecall.evaluation import charts
    except ImportError as exc:
        raise ConfigurationError(f"a report needs a package that is missing: {exc}; {install_extra('eval')}") from exc
    if not runs:
        raise InvalidInput("runs is empty; expected at least one run")
    if wrong := [run.run_id for run in runs if run.set_sha256 != eval_set.sha256]:
        raise InvalidInput(f"run {wrong[0]} is on other data than the set {eval_set.name!r}; expected runs on that set")
    metrics = _columns(runs)
    main = main or metrics[0]
    last = runs[-1]
    last.mean(main)  # raises if the run does not have the metric
    plots = [
        ("Measures by depth", charts.svg(charts.metric_curves(runs), width=11, height=3.4)),
        ("Latency", charts.svg(charts.latency_histogram(runs))),
    ]
    if len(runs) > 1:
        points, step = _points(runs, main)
        plots.append((f"{main} against latency", charts.svg(charts.frontier(points, main, step))))
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(resources.files(__package__).joinpath("report.html.j2").read_text("utf-8"))
    return template.render(
        title=title or f"{eval_set.name}: {charts.named(last)}",
        queries=len(eval_set.queries),
        set_name=eval_set.name,
        set_version=last.set_version,
        set_sha256=eval_set.sha256,
        kind=eval_set.kind,
        source=eval_set.source,
        licence=eval_set.licence,
        metrics=metrics,
        main=main,
        runs=[_summary(run, charts.named(run)) for run in runs],
        comparison=_comparison(runs, metrics, charts.named) if len(runs) > 1 else None,
        plots=[{"title": name, "data": base64.b64encode(made.encode()).decode()} for name, made in plots],
        tenants=sorted(last.summary["tenants"].items(), key=lambda item: (item[1].get(main, 0), item[0])),
        macro=[(name, last.summary["macro"][name]) for name in (main,) if name in last.summary["macro"]],
        worst=_worst(last, eval_set, main, worst, texts),
    )


def _columns(runs: Sequence[EvalRun]) -> list[str]:
    """The metrics of the table: each measure at its largest depth, and those without a depth."""
    deepest: dict[str, str] = {}
    for name in (name for run in runs for name in run.summary["metrics"]):
        measure, _, k = name.partition("@")
        held = deepest.get(measure, "@0").partition("@")[2]
        if not k or int(k) >= int(held or 0):
            deepest[measure] = name
    return in_order(deepest.values())


def _points(runs: Sequence[EvalRun], main: str) -> tuple[list[tuple[str, float, float, bool]], str]:
    """The points of the frontier, and the step whose latency they show: "search" if every run has it, else "total"."""
    from pgrecall.evaluation.charts import named

    step = "search" if all("search" in run.summary["latency"] for run in runs) else "total"
    found = [(named(r), r.mean(main), r.summary["latency"].get(step, {"p50": 0.0})["p50"]) for r in runs]
    return [(*p, not any(o[1] >= p[1] and o[2] <= p[2] and o[1:] != p[1:] for o in found)) for p in found], step


def _summary(run: EvalRun, name: str) -> dict[str, Any]:
    latency = run.summary["latency"].get("total", {})
    return {
        "id": run.run_id,
        "name": name,
        "metrics": run.summary["metrics"],
        "p50": f"{latency['p50']:.1f}" if latency else "–",
        "p95": f"{latency['p95']:.1f}" if latency else "–",
        "failed": run.summary["failed"],
        "empty": run.summary["empty"],
        "foreign": run.summary["foreign_rows"],
        "config": json.dumps(run.config, indent=2, ensure_ascii=False),
    }


def _comparison(runs: Sequence[EvalRun], metrics: Sequence[str], named: Callable[[EvalRun], str]) -> dict[str, Any]:
    first, last = runs[0], runs[-1]
    shared = [m for m in metrics if m in first.summary["metrics"] and m in last.summary["metrics"]]
    made = compare(first, last, shared)
    return {"before": named(first), "after": named(last), "rows": list(made.differences.items())}


def _worst(run: EvalRun, eval_set: EvalSet, main: str, count: int, texts: Texts | None) -> list[dict[str, Any]]:
    queries = {query.id: query for query in eval_set.queries}
    ranked = sorted(
        (r for r in run.results if r.metrics.get(main, 1.0) < 1), key=lambda r: (r.metrics[main], r.query_id)
    )
    return [_shown(result, queries[result.query_id], main, texts) for result in ranked[:count]]


def _shown(result: Result, query: EvalQuery, main: str, texts: Texts | None) -> dict[str, Any]:
    wanted = {i: grade for i, grade in query.judged.items() if grade > 0}
    ids = list(dict.fromkeys([row["id"] for row in result.retrieved] + list(wanted)))
    held = {} if texts is None else texts(query.tenant, ids)
    ranks = {row["id"]: rank for rank, row in reversed(list(enumerate(result.retrieved, 1)))}

    def text(of: str) -> str | None:
        return None if of not in held else textwrap.shorten(held[of], SHOWN, placeholder=" …")

    return {
        "id": query.id,
        "text": query.text,
        "tenant": query.tenant,
        "score": result.metrics[main],
        "error": result.error,
        "retrieved": [
            {"id": r["id"], "score": r.get("score"), "grade": query.judged.get(r["id"], 0), "text": text(r["id"])}
            for r in result.retrieved
        ],
        "wanted": [{"id": i, "grade": grade, "rank": ranks.get(i), "text": text(i)} for i, grade in wanted.items()],
    }
