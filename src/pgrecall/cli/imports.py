"""`pgrecall import`: a pgrecall export, or the tables of another library."""

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
    from pgrecall.imports.source import ForeignDatabase, Imported
    from pgrecall.imports.vectors import Only, Table
    from pgrecall.stores.tenant import Tenant
    from pgrecall.types import Distance, EmbedModel


class _ImportGroup(TyperGroup):
    """Without a command's name, the argument is a file: `pgrecall import handbook.jsonl`."""

    default = "file"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and not set(args) & {*self.commands, "--help", "-h"}:
            args = [self.default, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="import",
    cls=_ImportGroup,
    help="Import an export, or data that another library stored in Postgres.",
    no_args_is_help=True,
)
command(app, "file")(files.import_)

FromOption = Annotated[
    str | None,
    typer.Option("--from", metavar="URL", help="The other library's database. Default: this one.", show_default=False),
]
SchemaOption = Annotated[str, typer.Option("--schema", help="The schema of the other library's tables.")]
QueriesOption = Annotated[
    int, typer.Option("--queries", help="Afterwards, compare the nearest rows of N stored ones in both.", metavar="N")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Count only; write nothing.")]


@command(app, "langchain-postgres", renamed={"--questions": "--queries"})
def langchain_postgres(
    session: Session,
    table: Annotated[
        str, typer.Argument(help="A PGVectorStore's table, or langchain_pg_embedding.", show_default=False)
    ],
    tenant: TenantOption,
    model: Annotated[
        str, typer.Option(metavar="PROVIDER/MODEL", help="The model that made the vectors.", show_default=False)
    ],
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection", "-c", help="The collection to import into. Default: the table's name.", show_default=False
        ),
    ] = None,
    pgvector_collection: Annotated[
        str | None, typer.Option(help="The collection to read from langchain_pg_embedding.", show_default=False)
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Only rows with this metadata value, for example one tenant's.",
            show_default=False,
        ),
    ] = None,
    distance: Annotated[str, typer.Option(help="How vectors are compared: cosine, l2 or ip.")] = "cosine",
    text_config: Annotated[
        str | None, typer.Option(help="Add full-text search in this language, such as english.", show_default=False)
    ] = None,
    source: FromOption = None,
    schema: SchemaOption = "public",
    queries: QueriesOption = 20,
    dry_run: DryRunOption = False,
) -> None:
    """Import a vector table of langchain-postgres: ids, texts, metadata and vectors, unchanged.

    If the command is interrupted, run it again: rows that were imported are left alone. Afterwards, the ten nearest
    rows of some stored ones are compared in both; exit 1 if fewer than 98 % are the same.
    """
    from pgrecall.imports import vectors

    chosen, made = _only(only), _model(model, _distance(distance))
    into = collection or pgvector_collection or table
    with session.tenant(tenant) as opened, _source(session, source, schema) as peer:
        rows = vectors.table(peer, table, collection=pgvector_collection, only=chosen)
        result = _load(session, opened, rows, into, made, text_config, queries, dry_run)
    _report(session, {"tenant": tenant, "collection": into}, f"{tenant}/{into}", "chunks", result)
    _exit_unless_the_same(result)


@command(app, "llamaindex-postgres", renamed={"--questions": "--queries"})
def llamaindex_postgres(
    session: Session,
    table: Annotated[
        str, typer.Argument(help="A PGVectorStore's table; the prefix data_ is optional.", show_default=False)
    ],
    tenant: TenantOption,
    model: Annotated[
        str, typer.Option(metavar="PROVIDER/MODEL", help="The model that made the vectors.", show_default=False)
    ],
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection", "-c", help="The collection to import into. Default: the table's name.", show_default=False
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Only rows with this metadata value, for example one tenant's.",
            show_default=False,
        ),
    ] = None,
    distance: Annotated[str, typer.Option(help="How vectors are compared: cosine, l2 or ip.")] = "cosine",
    text_config: Annotated[
        str | None, typer.Option(help="Add full-text search in this language, such as english.", show_default=False)
    ] = None,
    source: FromOption = None,
    schema: SchemaOption = "public",
    queries: QueriesOption = 20,
    dry_run: DryRunOption = False,
) -> None:
    """Import a table of LlamaIndex's PGVectorStore: nodes, their sources and vectors, unchanged.

    If the command is interrupted, run it again: nodes that were imported are left alone. Afterwards, the ten nearest
    nodes of some stored ones are compared in both; exit 1 if fewer than 98 % are the same. Needs the package
    llama-index-pgrecall.
    """
    from pgrecall.imports import llamaindex

    into = collection or table.removeprefix("data_")
    with session.tenant(tenant) as opened, _source(session, source, schema) as peer:
        rows = llamaindex.table(peer, table, only=_only(only))
        result = _load(session, opened, rows, into, _model(model, _distance(distance)), text_config, queries, dry_run)
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
    """Import a LlamaIndex chat store: each key becomes a chat.

    If the command is interrupted, run it again. Needs the package llama-index-pgrecall, which reads LlamaIndex's
    messages.
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
    """Import a chat table of langchain-postgres: each session becomes a chat.

    If the command is interrupted, run it again. Needs the package langchain-pgrecall, which reads LangChain's messages.
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
        typer.Option(
            metavar="PROVIDER/MODEL", help="Import its vectors too, which this model made.", show_default=False
        ),
    ] = None,
    source: FromOption = None,
    schema: SchemaOption = "public",
    dry_run: DryRunOption = False,
) -> None:
    """Import LangGraph's long-term memory (PostgresStore) as a tenant's facts.

    If the command is interrupted, run it again: items with the same value are left alone. Without --model, items are
    imported without their vectors.
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
    queries: int,
    dry_run: bool,
) -> Imported:
    """Import a vector table, with a progress bar."""
    from pgrecall.imports import vectors

    with progress(session, f"importing {into}", rows.count()) as done:
        return vectors.load(
            opened,
            rows,
            into,
            model,
            text_config=text_config,
            dry_run=dry_run,
            questions=queries,
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
def _source(session: Session, url: str | None, schema: str) -> Iterator[ForeignDatabase]:
    """The other library's database. Default: this one, as its owner, who may read all tables."""
    from pgrecall.imports.source import opened

    with ExitStack() as stack:
        where = url or stack.enter_context(session.owner()).url
        yield stack.enter_context(opened(where, schema))


def _report(session: Session, data: dict[str, Any], where: str, what: str, result: Imported) -> None:
    counts = {"found": result.found, "written": result.written, "unchanged": result.unchanged}
    text = f"{where}: {result.found:,} {what} found"
    if not result.dry_run:
        text += f", {result.written:,} written, {result.unchanged:,} unchanged"
    if result.compared:
        counts |= {"same": result.same, "compared": result.compared}
        text += f"; {result.same:,} of {result.compared:,} nearest rows are the same in both"
    session.emit(data | counts | {"dry_run": result.dry_run}, text)
