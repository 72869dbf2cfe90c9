"""`pgrecall collections`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypeAlias, cast

import typer

from pgrecall.cli.embedding import ConcurrencyOption, EmbedOption, load_embed
from pgrecall.cli.progress import progress
from pgrecall.cli.session import Session, TenantOption, YesOption, command, table
from pgrecall.cli.spaces import Distance as DistanceName
from pgrecall.cli.tenants import collection_table
from pgrecall.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from pgrecall.types import KeyType, ReembedResult

app = typer.Typer(
    name="collections",
    help="A tenant's collections: list, show, index, full text, another model, drop.",
    no_args_is_help=True,
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
    if found.ef_search is not None:
        columns, rows = (*columns, "ef_search"), [(*rows[0], found.ef_search)]
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


@command(app, "tune")
def tune(
    session: Session,
    name: NameArgument,
    tenant: TenantOption,
    recall: Annotated[float, typer.Option("--recall", help="What shall be found of the nearest, up to 1.")] = 0.99,
    k: Annotated[int, typer.Option("-k", help="How many nearest.")] = 10,
    queries: Annotated[int, typer.Option("--queries", help="How many stored vectors are asked.")] = 50,
    ef_search: Annotated[
        int | None, typer.Option("--ef-search", help="Measure nothing, use this one.", show_default=False)
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="By the collection's size again.")] = False,
) -> None:
    """Choose how far searches go into a large collection's graph: the least that finds enough, by measuring.

    Stored vectors are asked by the graph and exactly; its searches use what was chosen from now on. Exit 1 where even
    the most finds too little: the best was chosen then, and a denser graph would find more.
    """
    if reset or ef_search is not None:
        if reset and ef_search is not None:
            raise InvalidInput("say --ef-search or --reset, not both")
        with session.tenant(tenant) as opened:
            opened.set_ef_search(name, ef_search)
        how = "by its size" if ef_search is None else f"ef_search {ef_search}"
        session.emit({"tenant": tenant, "collection": name, "ef_search": ef_search}, f"{name}: searched with {how}")
        return
    with session.tenant(tenant) as opened:
        done = opened.tune(name, recall, k=k, queries=queries)
    data = {"tenant": tenant, "collection": name} | asdict(done) | {"met": done.met}
    if done.ef_search is None:
        session.emit(data, f"{name}: small enough to be searched exactly; there is nothing to choose")
        return
    rows = [
        (p.ef_search, f"{p.recall:.3f}", f"{p.p50_ms:.2f}", "chosen" if p.ef_search == done.ef_search else "")
        for p in done.tried
    ]
    session.emit(data, table(("ef_search", f"recall@{k}", "p50, ms", ""), rows))
    if not done.met:
        session.note(
            f"no ef_search finds {recall:g}; the best was chosen. A denser graph finds more: "
            "pgrecall spaces index SPACE --m 32 --ef-construction 256"
        )
        raise typer.Exit(1)


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


@command(app, "reembed")
def reembed(
    session: Session,
    name: NameArgument,
    tenant: TenantOption,
    provider: Annotated[
        str | None, typer.Option(help="The new model's, for example openai.", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option(help="For example text-embedding-3-large.", show_default=False)] = None,
    dim: Annotated[
        int | None, typer.Option(help="Its vectors' length; else its first vector's.", show_default=False)
    ] = None,
    distance: Annotated[DistanceName, typer.Option(help="How its vectors are compared.")] = DistanceName.cosine,
    embed: EmbedOption = None,
    concurrency: ConcurrencyOption = 1,
    batch: Annotated[int, typer.Option(help="Chunks read at once.")] = 500,
    no_switch: Annotated[
        bool, typer.Option("--no-switch", help="Stop before the switch, so that `maintain` builds the graph first.")
    ] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Give it up: drop the new vectors.")] = False,
) -> None:
    """Embed a collection anew by another model, --embed, while it is read and written; then it answers in that.

    The new vectors are made beside the old ones, which answer until the end; a sample of them is checked, and the
    collection switches at once. Killed on the way, it goes on where it stopped when it is called again. Writers go on
    with the old model until the switch, and must have the new one after it.
    """
    if cancel:
        with session.tenant(tenant) as opened:
            found = opened.collection(name)
            dropped = opened.cancel_reembed(name)
        under_way = found is not None and found.next_space is not None
        shown = f"{name}: {'given up' if under_way else 'nothing was under way'}, {dropped:,} vectors dropped"
        session.emit({"tenant": tenant, "collection": name, "cancelled": under_way, "dropped": dropped}, shown)
        return
    if provider is None or model is None:
        raise InvalidInput("say the new model: --provider and --model, and --embed for what calls it (or --cancel)")
    function = load_embed(embed)
    from pgrecall.types import EmbedModel

    new = EmbedModel(provider, model, distance.value)
    to = new if dim is None else new.space(dim)
    with session.tenant(tenant) as opened:
        found = opened.collection(name)
        with (
            _going_on(session),
            progress(session, f"embedding {name} anew", None if found is None else found.chunks) as report,
        ):
            done = opened.reembed(
                name,
                to,
                function,
                switch=not no_switch,
                batch=batch,
                embed_concurrency=concurrency,
                progress=lambda count, _: report(count),
            )
    session.emit({"tenant": tenant, "collection": name} | asdict(done), _reembedded(name, done))


@contextmanager
def _going_on(session: Session) -> Iterator[None]:
    """Say how what was interrupted goes on."""
    try:
        yield
    except KeyboardInterrupt:
        said = (
            "Interrupted; the vectors made so far are kept, and the old ones go on answering until the switch. "
            "The same command goes on; with --cancel instead it is given up."
        )
        session.stderr().print(said, highlight=False)
        raise


def _reembedded(name: str, done: ReembedResult) -> str:
    state = "answers in" if done.switched else "is ready to answer in"
    told = f"{name}: {done.chunks:,} chunks, {done.embedded:,} embedded now; {state} {done.space}"
    if done.found is not None:
        told += f"; of {done.sampled} sampled {done.found:.0%} find themselves"
    if done.dropped:
        told += f"; {done.dropped:,} old vectors dropped"
    return told if done.switched else f"{told}. To switch: the same without --no-switch"


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
