"""What the commands of `pgrecall eval` share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from pgrecall.cli.session import table
from pgrecall.errors import ConfigurationError, InvalidInput, NotFound

if TYPE_CHECKING:
    from pgrecall.evaluation import EvalRun, Evaluations
    from pgrecall.stores.tenant import Tenant

app = typer.Typer(name="eval", help="Measure retrieval: load, run, compare, report.", no_args_is_help=True)

RunArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or 'latest'.", show_default=False)
]
CollectionOption: TypeAlias = Annotated[
    str, typer.Option("--collection", "-c", help="Where to look.", show_default=True)
]
#: Metrics that a table has room for.
SHOWN = ("ndcg@10", "recall@10", "mrr@10", "hit@1")


def evaluations_of(tenant: Tenant) -> Evaluations:
    """The tenant's evaluations. Raises ConfigurationError without the extra."""
    try:
        from pgrecall.evaluation import Evaluations
    except ImportError as exc:
        raise ConfigurationError(f'evaluation needs the extra ({exc}): pip install "pgrecall[eval]"') from exc
    return Evaluations(tenant)


def found_run(kept: Evaluations, run: str) -> EvalRun:
    """A finished run by its id, or the latest. Raises NotFound."""
    from pgrecall.evaluation import load_run

    if run == "latest":
        runs = kept.runs(limit=1)
        if not runs:
            raise NotFound(f"tenant {kept.tenant_id!r} has no runs; make one: pgrecall eval run SET")
        run = runs[0].run_id
    return load_run(kept, run)


def from_json(text: str, option: str) -> Any:
    """The value of an option that is JSON. Raises InvalidInput."""
    try:
        return json.loads(text)
    except ValueError as exc:
        raise InvalidInput(f"{option} is not JSON: {exc}") from exc


def run_data(finished: EvalRun) -> dict[str, Any]:
    """A run as JSON."""
    return {
        "run_id": finished.run_id,
        "set": {"name": finished.set_name, "version": finished.set_version, "sha256": finished.set_sha256},
        "summary": finished.summary,
        "config": finished.config,
    }


def run_table(finished: EvalRun) -> Any:
    """A run's measures as a table."""
    from pgrecall.evaluation.metrics import in_order

    summary = finished.summary
    shown = table(
        ("metric", "mean", "95 % interval", "tenants' mean", "worst tenant"),
        [
            (
                name,
                f"{m['mean']:.4f}",
                f"{m['low']:.4f} – {m['high']:.4f}",
                f"{macro['mean']:.4f}" if (macro := summary["macro"].get(name)) else "–",
                f"{macro['worst']} ({macro['worst_mean']:.3f})" if macro else "–",
            )
            for name, m in ((n, summary["metrics"][n]) for n in in_order(summary["metrics"]))
        ],
    )
    latency = summary["latency"].get("total", {})

    def show(console: Any) -> None:
        console.print(f"run {finished.run_id}", style="bold", highlight=False)
        shown(console)
        console.print(
            f"{summary['queries']:,} queries, {summary['failed']:,} failed, {summary['empty']:,} empty, "
            f"{summary['foreign_rows']:,} rows of other tenants; "
            f"p50 {latency.get('p50', '–')} ms, p95 {latency.get('p95', '–')} ms",
            highlight=False,
        )

    return show
