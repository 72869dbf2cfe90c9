"""`pgrecall collections`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypeAlias, cast

import typer

from pgrecall.cli.progress import progress
from pgrecall.cli.session import Session, TenantOption, YesOption, command, table
from pgrecall.cli.tenants import collection_table
from pgrecall.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from pgrecall.types import KeyType

app = typer.Typer(
    name="collections", help="A tenant's collections: list, show, index, full text, drop.", no_args_is_help=True
)

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
    columns, rows = collection_table([found])
    keys = [key_text(k.path, k.type) + ("" if k.ready else " (being filled)") for k in found.indexed_keys]
    shown = table((*columns, "indexed keys"), [(*rows[0], "\n".join(keys))]) if keys else table(columns, rows)
    session.emit(asdict(found), shown)


@command(app, "index-key")
def index_key(
    session: Session,
    name: NameArgument,
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY:TYPE",
            help="A key of the metadata, or a JSON list for a nested one; text, number or bool.",
            show_default=False,
        ),
    ],
    tenant: TenantOption,
    drop: Annotated[bool, typer.Option("--drop", help="Drop it: filters find the same without it.")] = False,
) -> None:
    """Let filters on a metadata key use an index, where nobody may be superuser (see `db tune`).

    For example lang:text, or '["author", "age"]:number'. What is there is entered in batches while others read and
    write; run it again where it was cut off. Every write of a chunk then pays for it.
    """
    path, kind = parse_key(key)
    shown = key_text(path, kind)
    with session.tenant(tenant) as opened:
        if drop:
            gone = opened.unindex_key(name, path, kind)
            result = {"tenant": tenant, "collection": name, "dropped": {"path": path, "type": kind}, "entries": gone}
            session.emit(result, f"{name}: {shown} is not indexed any more; {gone:,} entries deleted")
            return
        found = opened.collection(name)
        with progress(session, f"indexing {shown}", None if found is None else found.chunks) as report:
            done = opened.index_key(name, path, kind, progress=lambda count, _: report(count))
    session.emit({"tenant": tenant, "collection": name} | asdict(done), f"{name}: {shown} is indexed")


def parse_key(text: str) -> tuple[list[str], KeyType]:
    """What stands before and after the last colon. Raises InvalidInput."""
    key, colon, kind = text.rpartition(":")
    if not colon or not key:
        raise InvalidInput(f"{text!r:.80} is no KEY:TYPE; expected for example lang:text, or year:number")
    path = [key]
    if key.startswith("["):
        try:
            path = json.loads(key)
        except ValueError as exc:
            raise InvalidInput(f"{key!r:.80} is no JSON list of keys ({exc})") from exc
    return path, cast("KeyType", kind)


def key_text(path: Sequence[str], kind: str) -> str:
    """A key as `index-key` takes it."""
    plain = len(path) == 1 and not path[0].startswith("[")
    return f"{path[0] if plain else json.dumps(list(path), ensure_ascii=False)}:{kind}"


@command(app, "text")
def text(
    session: Session,
    name: NameArgument,
    tenant: TenantOption,
    config: Annotated[
        str | None,
        typer.Option("--config", help="The language: a text search configuration of Postgres.", show_default=False),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Keep no full text any more.")] = False,
) -> None:
    """Keep full text, for searches by words, of a collection that has rows; or in another language, or no more.

    Readers and writers go on meanwhile, and searches by words are refused until it is done. Interrupted, it goes on
    where it stopped when it is called again.
    """
    if off is (config is not None):
        raise InvalidInput("say --config with a language, such as english, or --off")
    with session.tenant(tenant) as opened:
        found = opened.collection(name)
        with progress(session, f"full text of {name}", None if found is None else found.chunks) as report:
            changed = opened.set_text_config(name, config, progress=lambda done, _: report(done))
    keeps = f"full text as {config}" if config else "no full text"
    data = {"tenant": tenant, "collection": name, "text_config": config, "changed": changed}
    session.emit(data, f"{name}: {keeps}, {changed:,} chunks changed")


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
