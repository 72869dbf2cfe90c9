"""`pgrecall subjects`: export or erase everything that is stored about one user."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from pgrecall.cli.facts import ActorOption, ReasonOption
from pgrecall.cli.session import Session, TenantOption, YesOption, command, table

app = typer.Typer(
    name="subjects", help="Export or erase everything that is stored about one user.", no_args_is_help=True
)

SubjectArgument: TypeAlias = Annotated[str, typer.Argument(metavar="SUBJECT", show_default=False)]


@command(app, "export")
def export(
    session: Session,
    subject: SubjectArgument,
    tenant: TenantOption,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write. Default: stdout.", dir_okay=False)
    ] = None,
) -> None:
    """Write a user's facts with their versions and vectors, chats, runs and audit trail as JSON lines."""
    count = 0
    with session.tenant(tenant) as opened:
        lines = opened.export_subject(subject)
        if output is None:
            for line in lines:
                typer.echo(line)
            return
        with output.open("w", encoding="utf-8") as file:
            for count, line in enumerate(lines):  # noqa: B007 -- the first line is the header, so this counts rows
                file.write(line + "\n")
    session.emit({"subject": subject, "rows": count, "file": str(output)}, f"{count:,} rows written to {output}")


@command(app, "reopen")
def reopen(
    session: Session, subject: SubjectArgument, tenant: TenantOption, actor: ActorOption, reason: ReasonOption = None
) -> None:
    """Lift the tombstone of an erased user, so that data about the user can be stored again."""
    with session.tenant(tenant) as opened:
        lifted = opened.reopen_subject(subject, actor=actor, reason=reason)
    session.emit(
        {"subject": subject, "reopened": lifted}, f"{subject}: " + ("reopened" if lifted else "was not erased")
    )


@command(app, "erase")
def erase(
    session: Session,
    subject: SubjectArgument,
    tenant: TenantOption,
    actor: ActorOption,
    reason: ReasonOption = None,
    yes: YesOption = False,
) -> None:
    """Permanently delete everything about a user and verify it; a tombstone refuses later writes.

    Needs the maintenance login.
    """
    session.confirm(f"This permanently deletes everything that tenant {tenant!r} stores about {subject!r}", yes=yes)
    with session.tenant(tenant) as opened:
        report = opened.erase_subject(subject, actor=actor, reason=reason)
    rows = [(n, c, report.remaining.get(n), report.without_subject.get(n)) for n, c in report.items()]
    data = {
        "subject": subject,
        "deleted": dict(report),
        "remaining": dict(report.remaining),
        "without_subject": dict(report.without_subject),
        "events": report.events,
    }
    session.emit(data, table(("table", "deleted", "remaining", "rows without a subject"), rows))
    session.note(f"{report.events:,} events of the audit trail keep only ids and salted hashes")
