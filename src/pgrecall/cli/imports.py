"""`pgrecall import`: an export of ours, and what other libraries kept in Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pgrecall.cli import files
from pgrecall.cli.progress import progress
from pgrecall.cli.session import Session, TenantOption, command
from pgrecall.errors import InvalidInput

if TYPE_CHECKING:
    from pgrecall.imports.source import Imported, Source
    from pgrecall.imports.vectors import Only, Table
    from pgrecall.stores.tenant import Tenant
    from pgrecall.types import Distance, EmbedModel


class _Files(TyperGroup):
    """Where no other command is named, what follows is a file: `pgrecall import handbook.jsonl`."""

    default = "file"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not set(args) & {*self.commands, "--help", "-h"}:
            args = [self.default, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="import",
    cls=_Files,
    help="Read an export back, or bring over what another library keeps in Postgres.",
    no_args_is_help=True,
)
command(app, "file")(files.import_)

FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="URL", help="The other library's database; else this one.", show_default=False),
]
SchemaOption = Annotated[str, typer.Option("--schema", help="The schema of its tables.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only count.")]


@command(app, "langchain-postgres")
def langchain_postgres(
    session: Session,
    table: Annotated[
        str, typer.Argument(help="A PGVectorStore's table, or langchain_pg_embedding.", show_default=False)
    ],
    tenant: TenantOption,
    model: Annotated[str, typer.Option(metavar="PROVIDER/MODEL", help="What made the vectors.", show_default=False)],
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Into this one; else the table's name.", show_default=False)
    ] = None,
    pgvector_collection: Annotated[
        str | None, typer.Option(help="Of langchain_pg_embedding, this collection.", show_default=False)
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="KEY=VALUE", help="Only rows with this metadata: a tenant's.", show_default=False),
    ] = None,
    distance: Annotated[str, typer.Option(help="How vectors are compared: cosine, l2 or ip.")] = "cosine",
    text_config: Annotated[
        str | None, typer.Option(help="Keep full text too, such as english.", show_default=False)
    ] = None,
    source: FromOption = None,
    schema: SchemaOption = "public",
    questions: Annotated[int, typer.Option(help="Afterwards ask both so many times, and compare.")] = 20,
    dry_run: DryRunOption = False,
) -> None:
    """Bring a vector table of langchain-postgres into a collection: ids, texts, metadata, vectors as they are.

    Interrupted, run it again: what is there is left alone. Then the ten nearest of some rows are compared in both;
    exit 1 where fewer than 98 of 100 are the same.
    """
    from pgrecall.imports import vectors

    chosen, made = _only(only), _model(model, _distance(distance))
    into = collection or pgvector_collection or table
    with session.tenant(tenant) as opened, _source(session, source, schema) as peer:
        rows = vectors.table(peer, table, collection=pgvector_collection, only=chosen)
        result = _load(session, opened, rows, into, made, text_config, questions, dry_run)
    _report(session, {"tenant": tenant, "collection": into}, f"{tenant}/{into}", "chunks", result)
    _exit_unless_the_same(result)


@command(app, "llamaindex-postgres")
def llamaindex_postgres(
    session: Session,
    table: Annotated[
        str, typer.Argument(help="A PGVectorStore's table; its data_ may be left out.", show_default=False)
    ],
    tenant: TenantOption,
    model: Annotated[str, typer.Option(metavar="PROVIDER/MODEL", help="What made the vectors.", show_default=False)],
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Into this one; else the table's name.", show_default=False)
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="KEY=VALUE", help="Only rows with this metadata: a tenant's.", show_default=False),
    ] = None,
    distance: Annotated[str, typer.Option(help="How vectors are compared: cosine, l2 or ip.")] = "cosine",
    text_config: Annotated[
        str | None, typer.Option(help="Keep full text too, such as english.", show_default=False)
    ] = None,
    source: FromOption = None,
    schema: SchemaOption = "public",
    questions: Annotated[int, typer.Option(help="Afterwards ask both so many times, and compare.")] = 20,
    dry_run: DryRunOption = False,
) -> None:
    """Bring a vector table of LlamaIndex's PGVectorStore into a collection: nodes, their sources, vectors as they are.

    Interrupted, run it again: what is there is left alone. Then the ten nearest of some nodes are compared in both;
    exit 1 where fewer than 98 of 100 are the same. Needs the package llama-index-pgrecall.
    """
    from pgrecall.imports import llamaindex

    into = collection or table.removeprefix("data_")
    with session.tenant(tenant) as opened, _source(session, source, schema) as peer:
        rows = llamaindex.table(peer, table, only=_only(only))
        result = _load(session, opened, rows, into, _model(model, _distance(distance)), text_config, questions, dry_run)
    _report(session, {"tenant": tenant, "collection": into}, f"{tenant}/{into}", "nodes", result)
    _exit_unless_the_same(result)


@command(app, "llamaindex-chat")
def llamaindex_chat(
    session: Session,
    table: Annotated[str, typer.Argument(help="A PostgresChatStore's table, or Memory's.", show_default=False)],
    tenant: TenantOption,
    source: FromOption = None,
    schema: SchemaOption = "public",
    dry_run: DryRunOption = False,
) -> None:
    """Bring a chat store of LlamaIndex into a tenant's chats, key by key.

    Interrupted, run it again. Needs the package llama-index-pgrecall, which reads LlamaIndex's messages.
    """
    from pgrecall.imports import llamaindex

    with (
        session.tenant(tenant) as opened,
        _source(session, source, schema) as peer,
        progress(session, f"importing {table}", None) as done,
    ):
        result = llamaindex.load_chats(opened, peer, table, dry_run=dry_run, progress=lambda number, _: done(number))
    _report(session, {"tenant": tenant, "table": table}, f"{tenant}: {table}", "messages", result)


@command(app, "langchain-history")
def langchain_history(
    session: Session,
    table: Annotated[str, typer.Argument(help="A PostgresChatMessageHistory's table.", show_default=False)],
    tenant: TenantOption,
    source: FromOption = None,
    schema: SchemaOption = "public",
    dry_run: DryRunOption = False,
) -> None:
    """Bring a chat table of langchain-postgres into a tenant's chats, session by session.

    Interrupted, run it again. Needs the package langchain-pgrecall, which reads LangChain's messages.
    """
    from pgrecall.imports import chats

    with (
        session.tenant(tenant) as opened,
        _source(session, source, schema) as peer,
        progress(session, f"importing {table}", None) as done,
    ):
        result = chats.load(opened, peer, table, dry_run=dry_run, progress=lambda number, _: done(number))
    _report(session, {"tenant": tenant, "table": table}, f"{tenant}: {table}", "messages", result)


@command(app, "langgraph-store")
def langgraph_store(
    session: Session,
    tenant: TenantOption,
    table: Annotated[str, typer.Option("--table", help="The store's table.")] = "store",
    model: Annotated[
        str | None,
        typer.Option(metavar="PROVIDER/MODEL", help="Bring its vectors too, which this made.", show_default=False),
    ] = None,
    source: FromOption = None,
    schema: SchemaOption = "public",
    dry_run: DryRunOption = False,
) -> None:
    """Bring LangGraph's long-term memory (PostgresStore) into a tenant's facts.

    Interrupted, run it again: items whose value is there are left alone. Without --model items come without vectors.
    """
    from pgrecall.imports import store

    made = None if model is None else _model(model)
    with (
        session.tenant(tenant) as opened,
        _source(session, source, schema) as peer,
        progress(session, f"importing {table}", None) as done,
    ):
        result = store.load(
            opened, peer, table=table, model=made, dry_run=dry_run, progress=lambda number, _: done(number)
        )
    _report(session, {"tenant": tenant, "table": table}, f"{tenant}: {table}", "items", result)


def _load(
    session: Session,
    opened: Tenant,
    rows: Table,
    into: str,
    model: EmbedModel,
    text_config: str | None,
    questions: int,
    dry_run: bool,
) -> Imported:
    """Bring a vector table over, telling how far it is."""
    from pgrecall.imports import vectors

    with progress(session, f"importing {into}", rows.count()) as done:
        return vectors.load(
            opened,
            rows,
            into,
            model,
            text_config=text_config,
            dry_run=dry_run,
            questions=questions,
            progress=lambda number, _: done(number),
        )


def _exit_unless_the_same(result: Imported) -> None:
    if result.same < 0.98 * result.compared:
        raise typer.Exit(1)


def _only(only: str | None) -> Only | None:
    from pgrecall.imports.vectors import Only

    key, equals, value = (only or "").partition("=")
    if only and not equals:
        raise InvalidInput(f"--only is {only!r}; expected KEY=VALUE")
    return Only(key, value) if only else None


def _distance(distance: str) -> Distance:
    if distance not in ("cosine", "l2", "ip"):
        raise InvalidInput(f"--distance is {distance!r}; expected cosine, l2 or ip")
    return distance  # type: ignore[return-value]


def _model(model: str, distance: Distance = "cosine") -> EmbedModel:
    from pgrecall.types import EmbedModel

    provider, _, name = model.partition("/")
    if not name:
        raise InvalidInput(f"--model is {model!r}; expected PROVIDER/MODEL, such as openai/text-embedding-3-small")
    return EmbedModel(provider, name, distance)


@contextmanager
def _source(session: Session, url: str | None, schema: str) -> Iterator[Source]:
    """The other library's database; this one as its owner, who sees everyone's tables, where none is named."""
    from pgrecall.imports.source import opened

    with ExitStack() as stack:
        where = url or stack.enter_context(session.owner()).url
        yield stack.enter_context(opened(where, schema))


def _report(session: Session, data: dict[str, Any], where: str, what: str, result: Imported) -> None:
    counts = {"found": result.found, "written": result.written, "unchanged": result.unchanged}
    told = f"{where}: {result.found:,} {what} found"
    if not result.dry_run:
        told += f", {result.written:,} written, {result.unchanged:,} there already"
    if result.compared:
        counts |= {"same": result.same, "compared": result.compared}
        told += f"; of {result.compared:,} nearest {result.same:,} are the same in both"
    session.emit(data | counts | {"dry_run": result.dry_run}, told)
