"""`pgrecall tenants`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from pgrecall.cli.session import Session, YesOption, command, table
from pgrecall.errors import ConfigurationError, NotFound

if TYPE_CHECKING:
    from pgrecall.types import CollectionInfo

app = typer.Typer(name="tenants", help="List, show, create and delete tenants.", no_args_is_help=True)

NameArgument: TypeAlias = Annotated[str, typer.Argument(metavar="TENANT", show_default=False)]


@command(app, "list")
def list_(session: Session) -> None:
    """List all tenants, including deleted ones. Needs the maintenance login."""
    with session.database() as database:
        try:
            found = database.list_tenants()
        except ConfigurationError as exc:
            raise ConfigurationError(
                f"this login may not list tenants ({exc}); pass the maintenance login: --maintenance-url"
            ) from exc
    rows = [(t.tenant_id, t.created_at, t.erased_at) for t in found]
    show = table(("tenant", "created", "deleted"), rows) if rows else "No tenants yet."
    session.emit([asdict(t) for t in found], show)


@command(app, "show")
def show(session: Session, name: NameArgument) -> None:
    """Show a tenant and its collections; exit 1 if it does not exist."""
    with session.tenant(name) as tenant:
        info = tenant.info()
        if info is None:
            raise NotFound(f"tenant {name!r} does not exist")
        found = tenant.list_collections()
    state = (
        f"deleted {info.erased_at:%Y-%m-%d %H:%M}"
        if info.erased_at
        else f"{len(found)} collection{'s' * (len(found) != 1)}"
    )
    session.emit(
        asdict(info) | {"collections": [asdict(c) for c in found]},
        f"{name}: created {info.created_at:%Y-%m-%d %H:%M}, {state}",
    )
    if found and not session.as_json:
        table(*collection_table(found))(session.stdout())


def collection_table(found: list[CollectionInfo]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Columns and rows of a table of collections."""
    rows: list[tuple[object, ...]] = [
        (c.name, c.documents, c.chunks, str(c.space), c.text_config, c.created_at) for c in found
    ]
    return ("collection", "documents", "chunks", "space", "full text", "created"), rows


@command(app, "create")
def create(
    session: Session,
    name: NameArgument,
    reopen: Annotated[
        bool, typer.Option("--reopen", help="Allow the id of a deleted tenant to be used again.")
    ] = False,
) -> None:
    """Register a tenant before its first write."""
    with session.database() as database:
        new = database.create_tenant(name, reopen=reopen)
    session.emit({"tenant": name, "created": new}, f"{name}: " + ("created" if new else "already exists"))


@command(app, "delete")
def delete(session: Session, name: NameArgument, yes: YesOption = False) -> None:
    """Delete a tenant with all its data; a tombstone refuses later writes to its id."""
    with session.database() as database:
        info = database.tenant_info(name)
        if info is None:
            raise NotFound(f"tenant {name!r} does not exist")
        if info.erased_at is None:
            session.confirm(f"This deletes all data of tenant {name!r}", yes=yes)
        report = dict(database.delete_tenant(name))
    gone = ", ".join(f"{count:,} {table.replace('_', ' ')}" for table, count in report.items() if count) or "nothing"
    session.emit({"tenant": name, "deleted": report}, f"{name}: deleted {gone}")
