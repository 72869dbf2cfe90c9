"""The command line: `pgrecall --help`. Each group of commands has a module of its own."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pgrecall.cli import (
    chat,
    collections,
    db,
    doctor,
    evaluation,
    facts,
    files,
    imports,
    ingest,
    maintain,
    runs,
    search,
    server,
    spaces,
    subjects,
    sweep,
    tenants,
)
from pgrecall.cli.session import DEFAULTS, MEANING, SHARED, signed

EPILOG = "\n\n".join(
    [
        "[bold]Examples[/]",
        "[cyan]export PGRECALL_URL=$(pgrecall up)[/]   start the embedded server and keep it running",
        "[cyan]pgrecall --url postgresql://owner@host/app db upgrade[/]   create or upgrade the tables",
        "[cyan]pgrecall collections list -t acme[/]   list a tenant's collections",
        "[cyan]pgrecall search 'how many holidays?' -t acme -c handbook --embed my_models:embed[/]",
        "[cyan]pgrecall export handbook -t acme -o handbook.jsonl[/]   export a collection",
        "[cyan]pgrecall import handbook.jsonl -t other[/]   import it again, here into another tenant",
        "[cyan]pgrecall doctor --json | jq .metrics[/]   metrics for monitoring",
        "[bold]Exit codes[/]",
        *(f"[cyan]{int(code)}[/]  {meaning}" for code, meaning in MEANING.items()),
    ]
)

app = typer.Typer(
    help="Tenant-aware Postgres + pgvector memory for AI applications.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    # Its tracebacks show the values of variables, and a URL may contain a password.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from pgrecall import __version__

        typer.echo(f"pgrecall {__version__}")
        raise typer.Exit


def _root(ctx: typer.Context, **shared: Any) -> None:
    ctx.obj = {name: value for name, value in shared.items() if name in SHARED}


_Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
]
signed(_root, SHARED | {"version": _Version}, DEFAULTS | {"version": False})
app.callback()(_root)

_DATA, _RUN = "Data", "Database and server"
for group in (tenants, collections, spaces, chat, runs, facts, subjects):
    app.add_typer(group.app, rich_help_panel=_DATA)
search.register(app, _DATA)
ingest.register(app, _DATA)
files.register(app, _DATA)
app.add_typer(imports.app, rich_help_panel=_DATA)
app.add_typer(evaluation.app, rich_help_panel=_DATA)
app.add_typer(db.app, rich_help_panel=_RUN)
doctor.register(app, _RUN)
maintain.register(app, _RUN)
sweep.register(app, _RUN)
server.register(app, _RUN)


def main() -> None:
    """Run the command line."""
    app(prog_name="pgrecall")
