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
from pgrecall.cli.spaces import DistanceChoice
from pgrecall.cli.tenants import collection_table
from pgrecall.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from pgrecall.types import KeyType, ReembedResult

app = typer.Typer(
    name="collections",
    help="List, show, index, re-embed and drop a tenant's collections.",
    no_args_is_help=True,
)

NameArgument: TypeAlias = Annotated[str, typer.Argument(metavar="COLLECTION", show_default=False)]


@command(app, "list")
def list_(session: Session, tenant: TenantOption) -> None:
    """List a tenant's collections with their spaces and counts; exit 1 if the tenant does not exist."""
    with session.tenant(tenant) as opened:
        found = opened.list_collections()
        if not found and opened.info() is None:
            raise NotFound(f"tenant {tenant!r} does not exist")
    show = table(*collection_table(found)) if found else f"{tenant} has no collections."
    session.emit([asdict(c) for c in found], show)


@command(app, "show")
def show(session: Session, name: NameArgument, tenant: TenantOption) -> None:
    """Show a collection; exit 1 if it does not exist."""
    with session.tenant(tenant) as opened:
        found = opened.collection_info(name)
    if found is None:
        raise NotFound(f"tenant {tenant!r} has no collection {name!r}")
    columns, rows = collection_table([found])
    if found.ef_search is not None:
        columns, rows = (*columns, "ef_search"), [(*rows[0], found.ef_search)]
    keys = [key_text(k.path, k.type) + ("" if k.ready else " (being built)") for k in found.indexed_keys]
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
            help="A metadata key, or a JSON list for a nested key; the type is text, number or bool.",
            show_default=False,
        ),
    ],
    tenant: TenantOption,
    drop: Annotated[
        bool, typer.Option("--drop", help="Drop the index; filters give the same results without it.")
    ] = False,
) -> None:
    """Index a metadata key, so that filters on it are fast without a superuser's `db tune`.

    For example lang:text, or '["author", "age"]:number'. Stored chunks are indexed in batches while others read and
    write. If the command is interrupted, run it again. The index makes every write of a chunk slower.
    """
    path, kind = parse_key(key)
    shown = key_text(path, kind)
    with session.tenant(tenant) as opened:
        if drop:
            gone = opened.unindex_key(name, path, kind)
            result = {"tenant": tenant, "collection": name, "dropped": {"path": path, "type": kind}, "entries": gone}
            session.emit(result, f"{name}: dropped the index on {shown} with {gone:,} entries")
            return
        found = opened.collection_info(name)
        with progress(session, f"indexing {shown}", None if found is None else found.chunks) as report:
            done = opened.index_key(name, path, kind, progress=lambda count, _: report(count))
    session.emit({"tenant": tenant, "collection": name} | asdict(done), f"{name}: indexed {shown}")


@command(app, "tune")
def tune(
    session: Session,
    name: NameArgument,
    tenant: TenantOption,
    recall: Annotated[
        float, typer.Option("--recall", help="Target recall, up to 1: the share of the nearest chunks to find.")
    ] = 0.99,
    k: Annotated[int, typer.Option("-k", help="Nearest chunks per query: the k of recall@k.")] = 10,
    queries: Annotated[int, typer.Option("--queries", help="Stored vectors to query with.")] = 50,
    ef_search: Annotated[
        int | None, typer.Option("--ef-search", help="Set this value without measuring.", show_default=False)
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Return to the default, by the collection's size.")] = False,
) -> None:
    """Measure and set the smallest ef_search that reaches the target recall in a large collection.

    Stored vectors are searched for through the graph and exactly, and the results compared. Later searches of the
    collection use the chosen value. If no value reaches the target, the best one is set and the exit code is 1; a
    denser graph would find more.
    """
    if reset or ef_search is not None:
        if reset and ef_search is not None:
            raise InvalidInput("--ef-search and --reset were both given; pass one of them")
        with session.tenant(tenant) as opened:
            opened.set_ef_search(name, ef_search)
        how = "the default, by its size" if ef_search is None else ef_search
        session.emit({"tenant": tenant, "collection": name, "ef_search": ef_search}, f"{name}: ef_search is now {how}")
        return
    with session.tenant(tenant) as opened:
        done = opened.tune(name, recall, k=k, queries=queries)
    data = {"tenant": tenant, "collection": name} | asdict(done) | {"met": done.met}
    if done.ef_search is None:
        session.emit(data, f"{name}: small enough for exact search, so there is nothing to tune")
        return
    rows = [
        (p.ef_search, f"{p.recall:.3f}", f"{p.p50_ms:.2f}", "chosen" if p.ef_search == done.ef_search else "")
        for p in done.tried
    ]
    session.emit(data, table(("ef_search", f"recall@{k}", "p50, ms", ""), rows))
    if not done.met:
        session.note(
            f"no ef_search reaches a recall of {recall:g}, so the best one was set. A denser graph finds more: "
            "pgrecall spaces index SPACE --m 32 --ef-construction 256"
        )
        raise typer.Exit(1)


def parse_key(text: str) -> tuple[list[str], KeyType]:
    """The path and the type before and after the last colon. Raises InvalidInput."""
    key, colon, kind = text.rpartition(":")
    if not colon or not key:
        raise InvalidInput(f"{text!r:.80} is not KEY:TYPE; expected for example lang:text or year:number")
    path = [key]
    if key.startswith("["):
        try:
            path = json.loads(key)
        except ValueError as exc:
            raise InvalidInput(f"{key!r:.80} is not a JSON list of keys: {exc}") from exc
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
        typer.Option(
            "--config", help="The language: a Postgres text search configuration, such as english.", show_default=False
        ),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Remove full-text search.")] = False,
) -> None:
    """Add full-text search to an existing collection, change its language, or remove it.

    Reads and writes continue meanwhile; sparse and hybrid searches are refused until it is done. If the command is
    interrupted, run it again: it continues where it stopped.
    """
    if off is (config is not None):
        raise InvalidInput("--config and --off were both given, or neither; pass one, for example --config english")
    with session.tenant(tenant) as opened:
        found = opened.collection_info(name)
        with progress(session, f"updating full text of {name}", None if found is None else found.chunks) as report:
            changed = opened.set_text_config(name, config, progress=lambda done, _: report(done))
    keeps = f"full-text search in {config}" if config else "no full-text search"
    data = {"tenant": tenant, "collection": name, "text_config": config, "changed": changed}
    session.emit(data, f"{name}: {keeps}, {changed:,} chunks changed")


@command(app, "reembed")
def reembed(
    session: Session,
    name: NameArgument,
    tenant: TenantOption,
    provider: Annotated[
        str | None, typer.Option(help="The new model's provider, for example openai.", show_default=False)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The new model, for example text-embedding-3-large.", show_default=False)
    ] = None,
    dim: Annotated[
        int | None,
        typer.Option(help="Dimensions of its vectors. Default: those of its first vector.", show_default=False),
    ] = None,
    distance: Annotated[DistanceChoice, typer.Option(help="How its vectors are compared.")] = DistanceChoice.cosine,
    embed: EmbedOption = None,
    concurrency: ConcurrencyOption = 1,
    batch: Annotated[int, typer.Option(help="Chunks read at a time.")] = 500,
    no_switch: Annotated[
        bool, typer.Option("--no-switch", help="Stop before the switch, so that `maintain` can build the graph first.")
    ] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the re-embedding and drop the new vectors.")] = False,
) -> None:
    """Re-embed a collection with another model (--embed) while it stays in use, then switch to the new vectors.

    The new vectors are stored next to the old ones, which serve searches until the switch. A sample is checked before
    the collection switches in one step. If the command is interrupted, run it again: it continues where it stopped.
    Writers use the old model until the switch and must use the new one after it.
    """
    if cancel:
        with session.tenant(tenant) as opened:
            found = opened.collection_info(name)
            dropped = opened.cancel_reembed(name)
        under_way = found is not None and found.next_space is not None
        state = "re-embedding cancelled" if under_way else "no re-embedding was in progress"
        shown = f"{name}: {state}, {dropped:,} vectors dropped"
        session.emit({"tenant": tenant, "collection": name, "cancelled": under_way, "dropped": dropped}, shown)
        return
    if provider is None or model is None:
        raise InvalidInput("the new model is missing; pass --provider, --model and --embed, or --cancel")
    function = load_embed(embed)
    from pgrecall.types import EmbedModel

    new = EmbedModel(provider, model, distance.value)
    to = new if dim is None else new.space(dim)
    with session.tenant(tenant) as opened:
        found = opened.collection_info(name)
        with (
            _resumable(session),
            progress(session, f"re-embedding {name}", None if found is None else found.chunks) as report,
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
def _resumable(session: Session) -> Iterator[None]:
    """After an interrupt, print how to continue."""
    try:
        yield
    except KeyboardInterrupt:
        said = (
            "Interrupted. The new vectors stored so far are kept, and searches still use the old ones. "
            "Run the same command to continue, or with --cancel to give up."
        )
        session.stderr().print(said, highlight=False)
        raise


def _reembedded(name: str, done: ReembedResult) -> str:
    state = "switched to" if done.switched else "ready to switch to"
    text = f"{name}: {done.chunks:,} chunks, {done.embedded:,} embedded now; {state} {done.space}"
    if done.found is not None:
        text += f"; {done.found:.0%} of {done.sampled} sampled chunks find themselves"
    if done.dropped:
        text += f"; {done.dropped:,} old vectors dropped"
    return text if done.switched else f"{text}. To switch, run it again without --no-switch"


@command(app, "drop")
def drop(session: Session, name: NameArgument, tenant: TenantOption, yes: YesOption = False) -> None:
    """Delete a collection with all its documents and chunks."""
    with session.tenant(tenant) as opened:
        found = opened.collection_info(name)
        if found is None:
            raise NotFound(f"tenant {tenant!r} has no collection {name!r}")
        holds = f"{found.documents:,} documents and {found.chunks:,} chunks"
        session.confirm(f"This deletes collection {name!r} of tenant {tenant!r} with {holds}", yes=yes)
        report = dict(opened.drop_collection(name))
    gone = ", ".join(f"{count:,} {table}" for table, count in report.items())
    session.emit({"tenant": tenant, "collection": name, "deleted": report}, f"{name}: deleted {gone}")
