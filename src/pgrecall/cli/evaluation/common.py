"""Options, checks and output that the commands of `pgrecall eval` share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from pgrecall.cli.embedding import load_embed
from pgrecall.cli.search import ModeChoice, parse_filter
from pgrecall.cli.session import plain, table
from pgrecall.errors import ConfigurationError, InvalidInput, NotFound
from pgrecall.extras import install_extra

if TYPE_CHECKING:
    from pgrecall.evaluation import CoreRetriever, EvalRun, EvalSet, Evaluations
    from pgrecall.evaluation.store import RunInfo
    from pgrecall.stores.database import Database
    from pgrecall.stores.tenant import Tenant

app = typer.Typer(name="eval", help="Measure retrieval: load, run, compare, report.", no_args_is_help=True)

RunArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or 'latest'.", show_default=False)
]
CollectionOption: TypeAlias = Annotated[
    str, typer.Option("--collection", "-c", help="The collection to search.", show_default=True)
]
ModeOption: TypeAlias = Annotated[
    ModeChoice, typer.Option("--mode", help="By meaning (dense), by words (sparse), or by both.")
]
ByOption: TypeAlias = Annotated[str, typer.Option("--by", help="What the judgements refer to: chunk or document.")]
FilterOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--filter", "-f", metavar="JSON", help="Filter on metadata, as in `pgrecall search`.", show_default=False
    ),
]
ConcurrencyOption: TypeAlias = Annotated[int, typer.Option("--concurrency", help="Queries in parallel.", min=1)]
EachTenantOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--each-tenant", help="Run each query in the tenant that it names, in the collection of the same name."
    ),
]
#: Stands for the newest run.
LATEST = "latest"
#: Metrics that fit into the table of runs.
SHOWN = ("ndcg@10", "recall@10", "mrr@10", "hit@1")


def evaluations_of(tenant: Tenant) -> Evaluations:
    """The tenant's evaluations. Raises ConfigurationError without the extra."""
    try:
        from pgrecall.evaluation import Evaluations
    except ImportError as exc:
        raise ConfigurationError(f"evaluation needs a package that is missing: {exc}; {install_extra('eval')}") from exc
    return Evaluations(tenant)


def named_run(kept: Evaluations, run: str) -> RunInfo:
    """A run by its id, or the latest. Raises NotFound."""
    if run != LATEST:
        return kept.run_info(run)
    runs = kept.runs(limit=1)
    if not runs:
        raise NotFound(f"tenant {kept.tenant_id!r} has no evaluation runs; start one: pgrecall eval run SET")
    return runs[0]


def found_run(kept: Evaluations, run: str) -> EvalRun:
    """A finished run by its id, or the latest. Raises: NotFound; InvalidInput if it is not finished."""
    from pgrecall.evaluation import load_run

    return load_run(kept, named_run(kept, run).run_id)


def retriever_for(
    database: Database,
    tenant: str,
    made: EvalSet,
    collection: str,
    embed: str | None,
    *,
    each_tenant: bool,
    mode: ModeChoice,
    by: str,
    where: str | None,
    needs_model: bool = True,
    **options: Any,
) -> CoreRetriever:
    """The retriever for the set's queries: the collection of this tenant, or of each tenant that a query names.

    Raises: InvalidInput, NotFound; EmbedSpaceMismatch, FingerprintMismatch if the model is not the collection's.
    """
    from pgrecall.evaluation import CoreRetriever
    from pgrecall.evaluation.retrievers import verify
    from pgrecall.operations.models.embedding import Embedder

    function = Embedder(load_embed(embed)) if needs_model else None  # whose fingerprint all stores share
    filters = None if where is None else parse_filter(where)
    opened = database.tenant(tenant)
    store: Any = opened.vectors(collection, embed=function)
    if each_tenant:
        if lacking := [q.id for q in made.queries if q.tenant is None]:
            raise InvalidInput(f"query {lacking[0]!r:.80} names no tenant, but --each-tenant needs one for every query")
        tenants = {name: database.tenant(name) for name in sorted({str(q.tenant) for q in made.queries})}
        if not any(one.collection_info(collection) for one in tenants.values()):
            raise NotFound(f"none of the {len(tenants):,} tenants named by the queries has a collection {collection!r}")
        store = {name: one.vectors(collection, embed=function) for name, one in tenants.items()}
    elif opened.collection_info(collection) is None:
        raise NotFound(f"tenant {opened.tenant_id!r} has no collection {collection!r}")
    for one in store.values() if each_tenant else [store]:
        verify(one)
    return CoreRetriever(store, function, mode.value, by, filters, options)  # type: ignore[arg-type]


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
    from pgrecall.evaluation.summary import reasons

    summary = finished.summary
    shown = table(
        ("metric", "mean", "95 % interval", "mean over tenants", "worst tenant"),
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
        for reason in reasons(finished.results):
            console.print(f"failed: {plain(reason)}", style="red", markup=False, highlight=False, soft_wrap=True)

    return show
