"""`pgrecall eval run|show|sweep|delete`."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from pgrecall.cli.embedding import EmbedOption
from pgrecall.cli.evaluation.common import (
    LATEST,
    ByOption,
    CollectionOption,
    ConcurrencyOption,
    EachTenantOption,
    FilterOption,
    ModeOption,
    RunArgument,
    app,
    evaluations_of,
    found_run,
    named_run,
    retriever_for,
    run_data,
    run_table,
)
from pgrecall.cli.progress import progress
from pgrecall.cli.search import EF_SEARCH, ModeChoice
from pgrecall.cli.session import Session, TenantOption, YesOption, command, plain, table
from pgrecall.errors import InvalidInput


@command(app, "run")
def run(
    session: Session,
    tenant: TenantOption,
    name: Annotated[str, typer.Argument(metavar="SET", help="An eval set's name.", show_default=False)],
    version: Annotated[
        int | None, typer.Option("--set-version", help="The set's version. Default: the newest.", show_default=False)
    ] = None,
    collection: CollectionOption = "default",
    each_tenant: EachTenantOption = False,
    mode: ModeOption = ModeChoice.dense,
    top_k: Annotated[
        str, typer.Option("--top-k", "-k", help="The values of k to measure at, such as 1,5,10.")
    ] = "1,3,5,10",
    by: ByOption = "document",
    where: FilterOption = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Scan the whole collection instead of using its graph.")
    ] = False,
    ef_search: Annotated[int | None, typer.Option(help=EF_SEARCH, show_default=False)] = None,
    ann_recall: Annotated[
        bool, typer.Option("--ann-recall", help="Also compare each result with an exact search.")
    ] = False,
    concurrency: ConcurrencyOption = 1,
    label: Annotated[
        str | None, typer.Option("--label", help="A readable name for the run.", show_default=False)
    ] = None,
    run_id: Annotated[
        str | None,
        typer.Option("--run", help="The run's id; an interrupted run of this id is continued.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap intervals.")] = 0,
    embed: EmbedOption = None,
) -> None:
    """Run every query of an eval set against a collection, and store the results and metrics.

    Queries are embedded by --embed, which must be the collection's model. Exit 1 if every query failed.
    """
    if run_id == LATEST:
        raise InvalidInput(f"--run is {run_id!r}, which stands for the newest run; pass the id of the run to continue")
    with session.database() as database:
        kept = evaluations_of(database.tenant(tenant))
        from pgrecall.evaluation import evaluate
        from pgrecall.evaluation.store import new_run_id

        made = kept.load_set(name, version)
        options = {option: value for option, value in (("exact", exact), ("ef_search", ef_search)) if value}
        retriever = retriever_for(
            database, tenant, made, collection, embed,
            each_tenant=each_tenant, mode=mode, by=by, where=where,
            needs_model=mode is not ModeChoice.sparse, **options,
        )  # fmt: skip
        run_id = run_id or new_run_id()
        with resumable(session, run_id), progress(session, f"running {made.name}", len(made.queries)) as done:
            finished = evaluate(
                retriever,
                made,
                store=kept,
                top_k=_depths(top_k),
                ann_recall=ann_recall,
                concurrency=concurrency,
                progress=lambda count, _total: done(count),
                run_id=run_id,
                seed=seed,
                label=label,
            )
    session.emit(run_data(finished), run_table(finished))
    if finished.summary["failed"] == finished.summary["queries"]:  # only failures: nothing was measured
        raise typer.Exit(1)


@contextmanager
def resumable(session: Session, run_id: str) -> Iterator[None]:
    """After an interrupt, print how to continue the run."""
    try:
        yield
    except KeyboardInterrupt:
        said = f"Interrupted. Results so far are stored; to continue, run the same command with --run {run_id}"
        session.stderr().print(said, highlight=False)
        raise


def _depths(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as exc:
        raise InvalidInput(f"--top-k is {text!r}; expected whole numbers such as 1,5,10") from exc


@command(app, "show")
def show_(session: Session, run: RunArgument, tenant: TenantOption) -> None:
    """Show a run's metrics; with --json, its configuration too."""
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
        typer.Option(
            "--grid",
            "-g",
            metavar="KEY=A,B,…",
            help="Values to try for ef_search, top_k, mode, alpha or another option of query; several are combined.",
            show_default=False,
        ),
    ],
    collection: CollectionOption = "default",
    each_tenant: EachTenantOption = False,
    metric: Annotated[
        str,
        typer.Option("--metric", "-m", help="For example ndcg@10 or ann_recall; without @k, at each point's top_k."),
    ] = "recall",
    exact: Annotated[bool, typer.Option("--exact", help="Also run an exact search.")] = False,
    by: ByOption = "document",
    where: FilterOption = None,
    concurrency: ConcurrencyOption = 1,
    embed: EmbedOption = None,
) -> None:
    """Run every combination of settings, and mark the Pareto frontier: no other is both better and as fast.

    Examples: --grid ef_search=20,40,100,400 --exact --metric ann_recall, or --grid alpha=0.3,0.5,0.7
    """
    named = [_grid(text) for text in grid]
    settings = dict(named)
    if len(settings) < len(named):
        raise InvalidInput("--grid names a setting twice; pass all its values in one option: KEY=A,B,…")
    with session.database() as database:
        kept = evaluations_of(database.tenant(tenant))
        from pgrecall.evaluation import sweep
        from pgrecall.evaluation.summary import reasons

        made = kept.load_set(name)
        words_only = settings.get("mode") == ["sparse"] and not exact
        mode = ModeChoice.sparse if words_only else ModeChoice.dense
        retriever = retriever_for(
            database, tenant, made, collection, embed,
            each_tenant=each_tenant, mode=mode, by=by, where=where, needs_model=not words_only,
        )  # fmt: skip
        grids = [settings, *([{"exact": [True]}] if exact else [])]
        runs = sum(math.prod(map(len, some.values())) for some in grids)
        count = itertools.count(1)
        with progress(session, f"running {made.name}", runs * len(made.queries)) as done:
            points = sweep(
                retriever,
                made,
                grids,
                metric=metric,
                store=kept,
                label="sweep",
                concurrency=concurrency,
                progress=lambda _count, _total: done(next(count)),
            )
    keys = list(dict.fromkeys(key for point in points for key in point.settings))
    rows = [
        (
            *(str(p.settings.get(key, "")) for key in keys),
            f"{p.quality:.4f}",
            f"{p.latency_ms:.2f}",
            "●" * p.on_frontier,
            p.run.run_id,
        )
        for p in points
    ]
    data = [
        {"settings": dict(p.settings), metric: p.quality, "p50_ms": p.latency_ms, "frontier": p.on_frontier,
         "failed": p.run.summary["failed"], "run_id": p.run.run_id}
        for p in points
    ]  # fmt: skip
    shown = table((*keys, metric, "p50 ms", "frontier", "run"), rows)

    def show(console: Any) -> None:
        shown(console)
        for point in points:
            for reason in reasons(point.run.results, 1):
                console.print(f"run {point.run.run_id}: failed: {plain(reason)}", style="red", markup=False,
                              highlight=False, soft_wrap=True)  # fmt: skip

    session.emit(data, show)


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
    """Delete a run and its results."""
    with session.tenant(tenant) as opened:
        kept = evaluations_of(opened)
        info = named_run(kept, run)
        session.confirm(f"This deletes run {info.run_id} of set {info.set_name!r}", yes=yes)
        kept.delete_run(info.run_id)
    session.emit({"deleted": info.run_id}, f"{info.run_id}: deleted")
