"""`pgrecall eval run|show|sweep|delete`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgrecall.cli.embedding import EmbedOption, load_embed
from pgrecall.cli.evaluation.common import (
    CollectionOption,
    RunArgument,
    app,
    evaluations_of,
    found_run,
    run_data,
    run_table,
)
from pgrecall.cli.progress import progress
from pgrecall.cli.search import parse_filter
from pgrecall.cli.session import Session, TenantOption, YesOption, command, table
from pgrecall.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    pass


@command(app, "run")
def run(
    session: Session,
    tenant: TenantOption,
    name: Annotated[str, typer.Argument(metavar="SET", help="An eval set's name.", show_default=False)],
    version: Annotated[int | None, typer.Option("--set-version", help="Else the newest.", show_default=False)] = None,
    collection: CollectionOption = "default",
    each_tenant: Annotated[
        bool, typer.Option("--each-tenant", help="Ask each query of the tenant that it names, in the same collection.")
    ] = False,
    mode: Annotated[str, typer.Option("--mode", help="dense, sparse or hybrid.")] = "dense",
    top_k: Annotated[str, typer.Option("--top-k", "-k", help="Depths to measure at.")] = "1,3,5,10",
    by: Annotated[str, typer.Option("--by", help="What judgements name: chunk or document.")] = "document",
    where: Annotated[str | None, typer.Option("--filter", "-f", metavar="JSON", show_default=False)] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", help="Queries under way at once.")] = 1,
    label: Annotated[str | None, typer.Option("--label", help="A name for people.", show_default=False)] = None,
    run_id: Annotated[
        str | None, typer.Option("--run", help="The run's id; one that was interrupted goes on.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    embed: EmbedOption = None,
) -> None:
    """Put every query of a set to a collection, and keep what came back with its measures.

    The question is embedded by --embed, which must be the collection's model.
    """
    with session.tenant(tenant) as opened:
        kept = evaluations_of(opened)
        from pgrecall.evaluation import CoreRetriever, evaluate

        made = kept.load_set(name, version)
        function = None if mode == "sparse" else load_embed(embed)
        filters = None if where is None else parse_filter(where)
        database = opened._database
        store: Any = opened.vectors(collection, embed=function)
        if each_tenant:
            if lacking := [q.id for q in made.queries if q.tenant is None]:
                raise InvalidInput(f"query {lacking[0]!r:.80} names no tenant, which --each-tenant goes by")
            stores = {
                q.tenant: database.tenant(str(q.tenant)).vectors(collection, embed=function) for q in made.queries
            }
            store = stores.__getitem__
        elif opened.collection(collection) is None:
            raise NotFound(f"tenant {tenant!r} has no collection {collection!r}")
        retriever = CoreRetriever(store, function, mode, by, filters)  # type: ignore[arg-type]
        with progress(session, f"asking {made.name}", len(made.queries)) as done:
            finished = evaluate(
                retriever,
                made,
                store=kept,
                top_k=_depths(top_k),
                concurrency=concurrency,
                progress=lambda count, _total: done(count),
                run_id=run_id,
                seed=seed,
                label=label,
            )
    session.emit(run_data(finished), run_table(finished))


def _depths(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as exc:
        raise InvalidInput(f"--top-k is {text!r}; expected depths such as 1,5,10") from exc


@command(app, "show")
def show_(session: Session, run: RunArgument, tenant: TenantOption) -> None:
    """A run's measures; with --json its configuration too."""
    with session.tenant(tenant) as opened:
        finished = found_run(evaluations_of(opened), run)
    session.emit(run_data(finished), run_table(finished))


@command(app, "sweep")
def sweep_(
    session: Session,
    tenant: TenantOption,
    name: Annotated[str, typer.Argument(metavar="SET", show_default=False)],
    grid: Annotated[
        list[str],
        typer.Option("--grid", "-g", metavar="KEY=A,B,…", help="mode, or an option of query.", show_default=False),
    ],
    collection: CollectionOption = "default",
    metric: Annotated[str, typer.Option("--metric", "-m")] = "recall@10",
    by: Annotated[str, typer.Option("--by")] = "document",
    embed: EmbedOption = None,
) -> None:
    """Run every combination of settings, and show which are worth having: none is better and as fast.

    For example: --grid mode=dense,sparse,hybrid --grid ef_search=40,100,400
    """
    with session.tenant(tenant) as opened:
        kept = evaluations_of(opened)
        from pgrecall.evaluation import CoreRetriever
        from pgrecall.evaluation.compare import sweep

        made, function = kept.load_set(name), load_embed(embed)
        store = opened.vectors(collection, embed=function)

        def retriever(mode: str = "dense", **options: Any) -> CoreRetriever:
            return CoreRetriever(store, function, mode, by, None, options)  # type: ignore[arg-type]

        points = sweep(retriever, made, dict(map(_grid, grid)), metric=metric, store=kept, label="sweep")
    rows = [
        (*map(str, p.settings.values()), f"{p.quality:.4f}", f"{p.latency_ms:.2f}", "●" * p.on_frontier, p.run.run_id)
        for p in points
    ]
    data = [
        {"settings": dict(p.settings), metric: p.quality, "p50_ms": p.latency_ms, "frontier": p.on_frontier,
         "run_id": p.run.run_id}
        for p in points
    ]  # fmt: skip
    session.emit(data, table((*points[0].settings, metric, "p50 ms", "frontier", "run"), rows))


def _grid(text: str) -> tuple[str, list[Any]]:
    key, equals, values = text.partition("=")
    if not (key and equals and values):
        raise InvalidInput(f"--grid is {text!r}; expected KEY=A,B,… such as mode=dense,hybrid")

    def value(part: str) -> Any:
        try:
            return json.loads(part)
        except ValueError:
            return part

    return key, [value(part) for part in values.split(",")]


@command(app, "delete")
def delete(session: Session, run: RunArgument, tenant: TenantOption, yes: YesOption = False) -> None:
    """Delete a run with its results."""
    with session.tenant(tenant) as opened:
        kept = evaluations_of(opened)
        info = kept.run_info(run)
        session.confirm(f"This deletes run {info.run_id} of set {info.set_name!r}", yes=yes)
        kept.delete_run(info.run_id)
    session.emit({"deleted": info.run_id}, f"{info.run_id}: deleted")
