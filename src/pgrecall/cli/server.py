"""`pgrecall up` and `pgrecall down`: keep the embedded server running, and stop it."""

from __future__ import annotations

import os

import typer

from pgrecall.cli.session import Owner, Session, command


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands."""
    command(app, "up", rich_help_panel=panel)(up)
    command(app, "down", rich_help_panel=panel)(down)


def up(session: Session) -> None:
    """Start the embedded Postgres, upgrade its tables and print its URL. It runs until `pgrecall down`.

    Only the URL goes to stdout: [cyan]export PGRECALL_URL=$(pgrecall up)[/]. It needs no password, because only its
    user can open the socket's folder. Without `up`, each command starts and stops the server.
    """
    from pgrecall import embedded
    from pgrecall.admin import environment, migrate
    from pgrecall.postgres.engines import parse_url

    with session.working("Starting the embedded Postgres…"):
        server = embedded.start(session.home)
    with server:
        server.keep()
        owner = Owner(parse_url(server.url), embedded=True)
        _, revision = migrate.upgrade(owner.url)
        environment.mark(owner.url, "development")  # so that `db reset --url` accepts it too
        state = embedded.status(session.home)
        url = owner.url.set(drivername="postgresql").render_as_string()
    data = {"url": url, "version": state.version, "data": str(state.data), "revision": revision}
    session.note(f"Postgres {state.version} is running with its data in {state.data}. To stop it: pgrecall down")
    if os.environ.get("PGRECALL_URL") not in (None, "", url):
        session.note("PGRECALL_URL names another database, so commands use that one instead.")
    session.emit(data, url)


def down(session: Session) -> None:
    """Stop the embedded Postgres, even if it is in use. Its data is kept."""
    from pgrecall import embedded

    stopped = embedded.stop(session.home)
    session.emit({"stopped": stopped}, "Stopped." if stopped else "The embedded server was not running.")
