"""`pgrecall collections`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, TypeAlias

import typer

from pgrecall.cli.session import Session, TenantOption, YesOption, command, table
from pgrecall.cli.tenants import collection_table
from pgrecall.errors import NotFound

app = typer.Typer(name="collections", help="List, show and drop a tenant's collections.", no_args_is_help=True)

NameArgument: TypeAlias = Annotated[str, typer.Argument(metavar="COLLECTION", show_default=False)]


@command(app, "list")
def list_(session: Session, tenant: TenantOption) -> None:
    """A tenant's collections, with their spaces and counts; exit 1 where there is no such tenant."""
    with session.tenant(tenant) as opened:
        found = opened.collections()
        if not found and opened._database.tenant_info(tenant) is None:
            raise NotFound(f"tenant {tenant!r} does not exist")
    show = table(*collection_table(found)) if found else f"{tenant} has no collections."
    session.emit([asdict(c) for c in found], show)


@command(app, "show")
def show(session: Session, name: NameArgument, tenant: TenantOption) -> None:
    """One collection; exit 1 where it does not exist."""
    with session.tenant(tenant) as opened:
        found = opened.collection(name)
    if found is None:
        raise NotFound(f"tenant {tenant!r} has no collection {name!r}")
    session.emit(asdict(found), table(*collection_table([found])))


@command(app, "drop")
def drop(session: Session, name: NameArgument, tenant: TenantOption, yes: YesOption = False) -> None:
    """Delete a collection with everything in it."""
    with session.tenant(tenant) as opened:
        found = opened.collection(name)
        if found is None:
            raise NotFound(f"tenant {tenant!r} has no collection {name!r}")
        holds = f"{found.documents:,} documents and {found.chunks:,} chunks"
        session.confirm(f"This deletes collection {name!r} of tenant {tenant!r} with {holds}", yes=yes)
        report = dict(opened.drop_collection(name))
    gone = ", ".join(f"{count:,} {table}" for table, count in report.items())
    session.emit({"tenant": tenant, "collection": name, "deleted": report}, f"{name}: deleted {gone}")
