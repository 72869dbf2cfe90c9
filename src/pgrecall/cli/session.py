"""What all commands share: connection options, output, errors and confirmations."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_type_hints

import typer
from typer.core import TyperCommand

from pgrecall.cli.wording import as_commands
from pgrecall.errors import (
    EmbedSpaceMismatch,
    InvalidInput,
    NotFound,
    PgRecallError,
    Refused,
    SubjectErased,
    TenantErased,
)

if TYPE_CHECKING:
    import sqlalchemy as sa
    from rich.console import Console

    from pgrecall.stores.database import Database
    from pgrecall.stores.tenant import Tenant


class Exit(IntEnum):
    """Exit codes, for scripts."""

    OK = 0
    NO = 1
    USAGE = 2
    DATABASE = 3
    REFUSED = 4


MEANING = {
    Exit.OK: "done",
    Exit.NO: "not found, or a check failed (drift, a doctor's failure, a gate)",
    Exit.USAGE: "invalid command or input; nothing was done",
    Exit.DATABASE: "the database is unreachable, not set up for this command, or reported an error",
    Exit.REFUSED: "refused, to protect data: another embedding model, a deleted tenant or subject, a space in use, "
    "a database that is not marked as development",
}


def exit_code(error: PgRecallError) -> Exit:
    """The exit code for an error."""
    if isinstance(error, NotFound):
        return Exit.NO
    if isinstance(error, InvalidInput):
        return Exit.USAGE
    if isinstance(error, EmbedSpaceMismatch | Refused | SubjectErased | TenantErased):
        return Exit.REFUSED
    return Exit.DATABASE


_PANEL = "Connection and output (accepted before or after the command)"


def _option(*names: str, **options: Any) -> Any:
    return typer.Option(*names, **options, rich_help_panel=_PANEL, show_default=False)


#: Options of every command, accepted before and after the command.
SHARED: dict[str, Any] = {
    "url": Annotated[
        str | None,
        _option("--url", "-u", help="postgresql://… (env PGRECALL_URL). Default: the embedded server."),
    ],
    "admin_url": Annotated[
        str | None,
        _option(
            "--admin-url", help="The owner's login, for migrations and graphs (env PGRECALL_ADMIN_URL). Default: --url."
        ),
    ],
    "maintenance_url": Annotated[
        str | None,
        _option(
            "--maintenance-url",
            help="The login for work across tenants (env PGRECALL_MAINTENANCE_URL). Default: --url.",
        ),
    ],
    "read_url": Annotated[
        str | None,
        _option("--read-url", help="A streaming replica for searches and other reads (env PGRECALL_READ_URL)."),
    ],
    "home": Annotated[
        str | None,
        _option("--home", help="The embedded server's folder (env PGRECALL_HOME).", metavar="FOLDER"),
    ],
    "as_json": Annotated[bool, _option("--json", help="Print only JSON on stdout.")],
}
DEFAULTS: dict[str, Any] = dict.fromkeys(SHARED) | {"as_json": False}

TenantOption: TypeAlias = Annotated[
    str, typer.Option("--tenant", "-t", envvar="PGRECALL_TENANT", help="The tenant's id.", show_default=False)
]
YesOption: TypeAlias = Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation.")]


@dataclass(frozen=True, slots=True)
class Owner:
    """A database as its owner: the URL, and whether it belongs to the embedded server."""

    url: sa.URL
    embedded: bool


@dataclass(slots=True)
class Session:
    """One run of one command."""

    url: str | None = None
    admin_url: str | None = None
    maintenance_url: str | None = None
    read_url: str | None = None
    home: str | None = None
    as_json: bool = False

    def _environ(self) -> dict[str, str]:
        return {} if self.url or self.admin_url or self.maintenance_url else dict(os.environ)

    def urls(self) -> tuple[str | None, str | None, str | None]:
        """The URLs of the application, the owner and maintenance; all None for the embedded server.

        A URL on the command line never mixes with those of the environment, which may name another database.
        """
        environ = self._environ()
        given = self.url or self.admin_url or self.maintenance_url
        url = self.url or environ.get("PGRECALL_URL") or None
        if url is None and not given and not environ.get("PGRECALL_ADMIN_URL"):
            return None, None, None
        admin = self.admin_url or environ.get("PGRECALL_ADMIN_URL") or url
        return (
            url or admin,
            admin,
            self.maintenance_url or environ.get("PGRECALL_MAINTENANCE_URL") or url or admin,
        )

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Open the database as an application does. Raises: ConfigurationError, Unavailable."""
        from pgrecall.stores.connect import connect

        url, admin, maintenance = self.urls()
        with self.working("Starting the embedded Postgres…", when=url is None):
            read = self.read_url or self._environ().get("PGRECALL_READ_URL") or ""
            database = connect(url, admin_url=admin, maintenance_url=maintenance, read_url=read, home=self.home)
        with database:
            yield database

    @contextmanager
    def tenant(self, name: str) -> Iterator[Tenant]:
        """One tenant of the database."""
        with self.database() as database:
            yield database.tenant(name)

    @contextmanager
    def owner(self) -> Iterator[Owner]:
        """The database as its owner, without migrating it; an embedded server runs inside the block."""
        from pgrecall import embedded
        from pgrecall.postgres.engines import parse_url

        admin = self.urls()[1]
        if admin is not None:
            yield Owner(parse_url(admin), embedded=False)
            return
        with self.working("Starting the embedded Postgres…"):
            server = embedded.start(self.home)
        with server:
            yield Owner(parse_url(server.url), embedded=True)

    def stdout(self) -> Console:
        """Where results go."""
        from rich.console import Console

        # A pipe has no width: 140 columns do not break ids, unless COLUMNS is set.
        wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140
        return Console(highlight=False, width=wide, soft_wrap=False)

    def stderr(self) -> Console:
        """Where notes, progress and errors go."""
        from rich.console import Console

        return Console(stderr=True, highlight=False)

    def emit(self, data: Any, show: Callable[[Console], None] | str) -> None:
        """Print the result: `data` with --json, else `show`."""
        if self.as_json:
            typer.echo(json.dumps(data, indent=2, default=_jsonable))
        elif isinstance(show, str):
            self.stdout().print(plain(show), markup=False, soft_wrap=True)
        else:
            show(self.stdout())

    def note(self, text: str) -> None:
        """Print a note on stderr, unless --json is given."""
        if not self.as_json:
            self.stderr().print(plain(text), style="dim", markup=False, soft_wrap=True)

    @contextmanager
    def working(self, what: str, *, when: bool = True) -> Iterator[None]:
        """Show a spinner on a terminal during a slow step."""
        if when and not self.as_json and sys.stderr.isatty():
            with self.stderr().status(what):
                yield
        else:
            yield

    def confirm(self, what: str, *, yes: bool) -> None:
        """Ask before something is destroyed. Raises InvalidInput if stdin is not a terminal."""
        if yes:
            return
        if not sys.stdin.isatty():
            raise InvalidInput(f"{what}, which needs a confirmation, but stdin is not a terminal; add --yes")
        typer.confirm(f"{what}. Continue?", abort=True, err=True)

    def fail(self, error: PgRecallError) -> typer.Exit:
        """Print an error as one line, or as JSON; returns the exception that ends the command."""
        message = as_commands(str(error))
        if self.as_json:
            typer.echo(json.dumps({"error": {"type": type(error).__name__, "message": message}}, indent=2))
        else:
            from rich.text import Text

            self.stderr().print(Text("Error: ", "bold red") + Text(plain(message.replace("\n\t", " "))), soft_wrap=True)
        return typer.Exit(exit_code(error))


def plain(text: str) -> str:
    """Text without control characters, except newlines: stored text must not control the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Callable[[Console], None]:
    """A plain table: numbers right-aligned, long cells folded, nothing cut off."""

    def show(console: Console) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        grid = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for at, column in enumerate(columns):
            number = bool(rows) and all(isinstance(row[at], int | float) for row in rows)
            grid.add_column(column, justify="right" if number else "left", overflow="fold")
        for row in rows:
            grid.add_row(*(cell if isinstance(cell, Text) else Text(_shown(cell)) for cell in row))
        console.print(grid)

    return show


def _shown(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if hasattr(value, "strftime"):
        return str(value.strftime("%Y-%m-%d %H:%M"))
    return plain(str(value))


def _jsonable(value: object) -> object:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} can't be written as JSON")


def signed(function: Callable[..., None], kinds: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Give a function the parameters that Typer reads from its signature."""
    empty = inspect.Parameter.empty
    function.__annotations__ = {"ctx": typer.Context} | kinds
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, annotation=k, default=defaults.get(n, empty))
            for n, k in function.__annotations__.items()
        ]
    )


def _renaming(renamed: Mapping[str, str]) -> type[TyperCommand]:
    """A command that also takes the old names of its options, for one minor version."""

    class Renaming(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            end = args.index("--") if "--" in args else len(args)
            for at, argument in enumerate(args[:end]):
                old, equals, value = argument.partition("=")
                if old in renamed:
                    args[at] = f"{renamed[old]}{equals}{value}"
                    typer.echo(f"{old} is deprecated; use {renamed[old]}", err=True)
            return super().parse_args(ctx, args)

    return Renaming if renamed else TyperCommand


def command(
    app: typer.Typer, name: str, *, renamed: Mapping[str, str] | None = None, **options: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command: its first argument is a Session; SHARED options are added, errors become exit codes.

    `renamed` maps old option names to new ones; an old one still works, with a note on stderr.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(ctx: typer.Context, **arguments: Any) -> None:
            before = ctx.obj or {}
            after = {key: arguments.pop(key) for key in SHARED}
            shared: dict[str, Any] = {k: v if v not in (None, False) else before.get(k) for k, v in after.items()}
            session = Session(**shared)
            try:
                if empty := [key.replace("_", "-") for key, value in shared.items() if value == ""]:
                    # Probably an unset variable of a script: the embedded server would be the wrong database.
                    raise InvalidInput(f"--{empty[0]} is empty; pass a value or omit the option")
                function(session, **arguments)
            except PgRecallError as exc:
                raise session.fail(exc) from exc

        own = list(inspect.signature(function).parameters.values())[1:]
        hints = get_type_hints(function, include_extras=True)
        signed(run, {p.name: hints[p.name] for p in own} | SHARED, {p.name: p.default for p in own} | DEFAULTS)
        # Typer would keep the docstring's line breaks.
        paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
        text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        app.command(name, help=text, cls=_renaming(renamed or {}), **options)(run)
        return function

    return register
