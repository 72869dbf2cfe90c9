"""`pgrecall eval compare|report|gate`."""

from __future__ import annotations

import math
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pgrecall.cli.evaluation.common import (
    RunArgument,
    app,
    evaluations_of,
    found_run,
)
from pgrecall.cli.session import Exit, Session, TenantOption, command, table
from pgrecall.errors import InvalidInput


@command(app, "compare")
def compare_(
    session: Session,
    before: RunArgument,
    after: RunArgument,
    tenant: TenantOption,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", "-m", help="Compare these metrics; repeat it for several. Default: all.", show_default=False
        ),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", help="Show the N queries that changed most, in each direction.", metavar="N", min=0)
    ] = 5,
) -> None:
    """Compare two runs of the same eval set, paired by query."""
    with session.tenant(tenant) as opened:
        kept = evaluations_of(opened)
        from pgrecall.evaluation.comparison import compare

        old, new = found_run(kept, before), found_run(kept, after)
        made = compare(old, new, metric, top=top)
        texts = {q.id: q.text for q in kept.load_set(new.set_name, new.set_version).queries}

    def show(console: Any) -> None:
        table(
            ("metric", "difference", "95 % interval", "p", "better", "worse", "same"),
            [
                (n, f"{d.interval.mean:+.4f}", f"{d.interval.low:+.4f} … {d.interval.high:+.4f}", f"{d.p:.4f}",
                 d.better, d.worse, d.same)
                for n, d in made.differences.items()
            ],
        )(console)  # fmt: skip
        for title, moved in (("worse", made.regressions), ("better", made.improvements)):
            if moved:
                rows = [(m.query_id, f"{m.before:.3f} → {m.after:.3f}", texts.get(m.query_id)) for m in moved]
                table((title, next(iter(made.differences)), "query"), rows)(console)

    session.emit(asdict(made), show)


@command(app, "report")
def report_(
    session: Session,
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN…", help="One run, or several to compare.", show_default=False)
    ],
    tenant: TenantOption,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")] = Path(
        "report.html"
    ),
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection", "-c", help="Show texts of this collection with the worst queries.", show_default=False
        ),
    ] = None,
    worst: Annotated[int, typer.Option("--worst", help="Number of worst queries to show in full.", min=0)] = 20,
    open_it: Annotated[bool, typer.Option("--open", help="Open the report in the browser.")] = False,
) -> None:
    """Write an HTML report: metrics with intervals, tenants, curves, latencies, worst queries, configuration."""
    with session.database() as database:
        kept = evaluations_of(database.tenant(tenant))
        from pgrecall.evaluation.report import report

        found = [found_run(kept, run) for run in runs]
        made = kept.load_set(found[-1].set_name, found[-1].set_version)

        def texts(of: str | None, ids: Sequence[str]) -> Mapping[str, str]:
            holder = database.tenant(of or tenant)
            assert collection is not None
            return {chunk.id: chunk.text for chunk in holder.vectors(collection).get(list(ids))}

        html = report(found, made, worst=worst, texts=None if collection is None else texts)
    try:
        output.write_text(html, encoding="utf-8")
    except OSError as exc:
        raise InvalidInput(f"could not write {output}: {exc.strerror}") from exc
    session.emit({"file": str(output), "runs": [r.run_id for r in found]}, f"{output}: {len(html) / 1e6:.1f} MB")
    if open_it:
        webbrowser.open(output.resolve().as_uri())


@command(app, "gate")
def gate(
    session: Session,
    run: RunArgument,
    tenant: TenantOption,
    least: Annotated[
        list[str] | None,
        typer.Option(
            "--min",
            metavar="METRIC=VALUE",
            help="Fail if the metric's mean is lower; repeat it for several metrics.",
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="RUN",
            help="Fail if a metric is significantly worse than in this run.",
            show_default=False,
        ),
    ] = None,
    p: Annotated[float, typer.Option("--p", help="The significance level for --against.", min=0, max=1)] = 0.05,
) -> None:
    """Exit 1 if a run is not good enough, for continuous integration. Example: --min ndcg@10=0.8 --against RUN

    A run with failed queries or rows of other tenants never passes.
    """
    if not least and against is None:
        raise InvalidInput("the gate has no condition; pass --min METRIC=VALUE, --against RUN, or both")
    minima = [_least(text) for text in least or []]
    with session.tenant(tenant) as opened:
        kept = evaluations_of(opened)
        from pgrecall.evaluation.comparison import compare

        finished = found_run(kept, run)
        problems = [
            f"{finished.summary[key]:,} {what}"
            for key, what in (("failed", "queries failed"), ("foreign_rows", "rows of other tenants"))
            if finished.summary[key]
        ]
        for name, wanted in minima:
            if finished.mean(name) < wanted:
                problems.append(f"{name} is {finished.mean(name):.4f}, below {wanted}")
        if against is not None:
            for name, d in compare(found_run(kept, against), finished).differences.items():
                if d.interval.mean < 0 and d.p < p:
                    problems.append(f"{name} fell by {-d.interval.mean:.4f} (p {d.p:.4f})")
    session.emit(
        {"run_id": finished.run_id, "passed": not problems, "problems": problems}, "\n".join(problems) or "passed"
    )
    if problems:
        raise typer.Exit(Exit.NO)


def _least(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        wanted = float(value)
    except ValueError:
        wanted = math.nan
    if not math.isfinite(wanted):  # nothing is below nan: such a gate would always pass
        raise InvalidInput(f"--min is {text!r}; expected METRIC=VALUE such as ndcg@10=0.8")
    return name, wanted
