"""`pgrecall runs`."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from pgrecall.cli.session import Session, TenantOption, YesOption, command, plain, table
from pgrecall.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from pgrecall.runs import RunState
    from pgrecall.stores.runs import PostgresRuns

app = typer.Typer(
    name="runs", help="List, show and prune a tenant's runs, and show their evidence.", no_args_is_help=True
)

RunArgument: TypeAlias = Annotated[str, typer.Argument(metavar="RUN_ID", show_default=False)]
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@command(app, "list")
def list_(
    session: Session,
    tenant: TenantOption,
    status: Annotated[
        str | None, typer.Option("--status", help="Only runs with this status.", show_default=False)
    ] = None,
    subject: Annotated[
        str | None, typer.Option("--subject", "-s", help="Only runs of this subject: a user's id.", show_default=False)
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--filter", "-f", metavar="JSON", help="Filter on metadata, as in `pgrecall search`.", show_default=False
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="Runs at most.")] = 100,
) -> None:
    """List a tenant's runs, most recently written first."""
    from pgrecall.cli.search import parse_filter

    filters = None if where is None else parse_filter(where)
    with session.tenant(tenant) as opened:
        found = opened.runs().list_runs(filters, status=status, subject=subject, limit=limit)
    rows = [(r.run_id, r.status, r.state_version, r.subject, r.updated_at, r.expires_at) for r in found]
    columns = ("run", "status", "version", "subject", "last write", "expires")
    session.emit([asdict(r) for r in found], table(columns, rows) if rows else f"{tenant} has no matching runs.")


@command(app, "show")
def show(session: Session, run_id: RunArgument, tenant: TenantOption) -> None:
    """Show a run's state and events; exit 1 if the run does not exist."""
    with session.tenant(tenant) as opened:
        runs = opened.runs()
        run, events = _existing(runs, run_id), runs.list_events(run_id)
    data = asdict(run) | {"events": [asdict(e) for e in events]}
    state = json.dumps(run.state, indent=2, ensure_ascii=False)
    session.emit(data, f"{run_id}: {run.status}, version {run.state_version}\n{state}")
    if events and not session.as_json:
        rows = [(e.seq, e.created_at, e.kind, plain(json.dumps(e.data, ensure_ascii=False))) for e in events]
        table(("seq", "at", "event", "data"), rows)(session.stdout())


@command(app, "evidence")
def evidence(session: Session, run_id: RunArgument, tenant: TenantOption) -> None:
    """Show the chunks that a run's searches returned; exit 1 if the run does not exist.

    The column "now" compares each chunk with its collection today: same, changed or gone.
    """
    with session.tenant(tenant) as opened:
        runs = opened.runs()
        _existing(runs, run_id)
        found = runs.list_evidence(run_id)
    rows = [
        (
            e.seq,
            e.created_at,
            e.collection,
            str(e.space),
            c.rank,
            c.chunk_id,
            c.content_hash[:12],
            f"{c.score:.3f}",
            c.now,
        )
        for e in found
        for c in e.chunks
    ]
    columns = ("retrieval", "at", "collection", "space", "rank", "chunk", "text hash", "score", "now")
    session.emit([asdict(e) for e in found], table(columns, rows) if rows else f"{run_id} has no evidence.")


@command(app, "prune")
def prune(
    session: Session,
    tenant: TenantOption,
    older_than: Annotated[
        str | None,
        typer.Option(
            "--older-than",
            metavar="AGE",
            help="Only runs last written before this age, such as 30d or 12h.",
            show_default=False,
        ),
    ] = None,
    keep_latest: Annotated[
        int | None,
        typer.Option(
            "--keep-latest", help="Keep the N most recently written runs, whatever their age.", show_default=False
        ),
    ] = None,
    yes: YesOption = False,
) -> None:
    """Delete runs that were not written for some time, with their events and evidence."""
    age = None if older_than is None else _age(older_than)
    if age is None and keep_latest is None:
        raise InvalidInput("no condition was given; pass --older-than AGE, --keep-latest N, or both")
    with session.tenant(tenant) as opened:
        spared = "" if keep_latest is None else f", except the latest {keep_latest:,}"
        old = "all runs" if older_than is None else f"all runs older than {older_than}"
        session.confirm(f"This deletes {old} of tenant {tenant!r}{spared}", yes=yes)
        gone = opened.runs().prune(age, keep_latest)
    session.emit({"tenant": tenant, "deleted": gone}, f"{tenant}: deleted {gone:,} runs")


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if not found:
        raise InvalidInput(f"--older-than is {text!r:.40}; expected a number followed by s, m, h, d or w, such as 30d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _existing(runs: PostgresRuns, run_id: str) -> RunState:
    run = runs.get(run_id)
    if run is None:
        raise NotFound(f"tenant {runs.tenant_id!r} has no run {run_id!r}")
    return run
