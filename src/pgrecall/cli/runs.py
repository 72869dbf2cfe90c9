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
    name="runs", help="List, show and prune a tenant's runs; what their answers rested on.", no_args_is_help=True
)

RunArgument: TypeAlias = Annotated[str, typer.Argument(metavar="RUN_ID", show_default=False)]
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@command(app, "list")
def list_(
    session: Session,
    tenant: TenantOption,
    status: Annotated[str | None, typer.Option("--status", help="Of this status only.", show_default=False)] = None,
    subject: Annotated[str | None, typer.Option("--subject", "-s", help="Whose.", show_default=False)] = None,
    where: Annotated[
        str | None,
        typer.Option("--filter", "-f", metavar="JSON", help="On metadata, as in search.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="How many.")] = 100,
) -> None:
    """A tenant's runs, the last touched first."""
    from pgrecall.cli.search import parse_filter

    filters = None if where is None else parse_filter(where)
    with session.tenant(tenant) as opened:
        found = opened.runs().list(filters, status=status, subject=subject, limit=limit)
    rows = [(r.run_id, r.status, r.state_version, r.subject, r.updated_at, r.expires_at) for r in found]
    columns = ("run", "status", "version", "subject", "last write", "expires")
    session.emit([asdict(r) for r in found], table(columns, rows) if rows else f"{tenant} has no such runs.")


@command(app, "show")
def show(session: Session, run_id: RunArgument, tenant: TenantOption) -> None:
    """A run's state and its events; exit 1 where it does not exist."""
    with session.tenant(tenant) as opened:
        runs = opened.runs()
        run, events = _existing(runs, run_id), runs.events(run_id)
    data = asdict(run) | {"events": [asdict(e) for e in events]}
    state = json.dumps(run.state, indent=2, ensure_ascii=False)
    session.emit(data, f"{run_id}: {run.status}, version {run.state_version}\n{state}")
    if events and not session.as_json:
        rows = [(e.seq, e.created_at, e.kind, plain(json.dumps(e.data, ensure_ascii=False))) for e in events]
        table(("seq", "at", "event", "data"), rows)(session.stdout())


@command(app, "evidence")
def evidence(session: Session, run_id: RunArgument, tenant: TenantOption) -> None:
    """Which chunks a run was given, in which version and space, and what became of them; exit 1 where there is no run.

    "now" compares each chunk with what its collection holds today: same, changed, gone.
    """
    with session.tenant(tenant) as opened:
        runs = opened.runs()
        _existing(runs, run_id)
        found = runs.evidence(run_id)
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
    columns = ("retrieval", "at", "collection", "space", "rank", "chunk", "text's hash", "score", "now")
    session.emit([asdict(e) for e in found], table(columns, rows) if rows else f"{run_id} was given no chunks.")


@command(app, "prune")
def prune(
    session: Session,
    tenant: TenantOption,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="Such as 30d, 12h.", show_default=False)
    ] = None,
    keep_latest: Annotated[
        int | None, typer.Option("--keep-latest", help="Spare so many, whatever their age.", show_default=False)
    ] = None,
    yes: YesOption = False,
) -> None:
    """Delete runs that nothing touched for long, with their events and evidence."""
    age = None if older_than is None else _age(older_than)
    if age is None and keep_latest is None:
        raise InvalidInput("say which runs to delete: --older-than AGE, --keep-latest N, or both")
    with session.tenant(tenant) as opened:
        spared = "" if keep_latest is None else f", but for the latest {keep_latest:,}"
        old = "all runs" if older_than is None else f"the runs older than {older_than}"
        session.confirm(f"This deletes {old} of tenant {tenant!r}{spared}", yes=yes)
        gone = opened.runs().prune(age, keep_latest)
    session.emit({"tenant": tenant, "deleted": gone}, f"{tenant}: deleted {gone:,} runs")


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if not found:
        raise InvalidInput(f"--older-than is {text!r:.40}; expected a number and s, m, h, d or w, such as 30d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _existing(runs: PostgresRuns, run_id: str) -> RunState:
    run = runs.get(run_id)
    if run is None:
        raise NotFound(f"tenant {runs.tenant_id!r} has no run {run_id!r}")
    return run
