"""`pgrecall up` and `pgrecall down`: the embedded server as one that stays up."""

from __future__ import annotations

import os

import typer

from pgrecall.cli.session import Owner, Session, command


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands."""
    command(app, "up", rich_help_panel=panel)(up)
    command(app, "down", rich_help_panel=panel)(down)


def up(session: Session) -> None:
    """Start the embedded Postgres, upgrade its tables, print its URL; it stays up until `pgrecall down`.

    Only the URL goes to stdout: [cyan]export PGRECALL_URL=$(pgrecall up)[/]. It needs no password, because
    the socket's folder is open to its user alone. Without `up` each command starts and stops the server.
    """
    from pgrecall import embedded
    from pgrecall.admin import migrate
    from pgrecall.cli import db
    from pgrecall.postgres.engines import parse_url

    with session.working("Starting the embedded Postgres…"):
        server = embedded.start(session.home)
    with server:
        server.keep()
        owner = Owner(parse_url(server.url), embedded=True)
        _, revision = migrate.upgrade(owner.url)
        with db.connected(owner) as connection:
            # So that `db reset` knows it by its URL, too.
            db.mark_database(connection, db.Environment.development)
        state = embedded.status(session.home)
        url = owner.url.set(drivername="postgresql").render_as_string()
    data = {"url": url, "version": state.version, "data": str(state.data), "revision": revision}
    session.note(f"Postgres {state.version} is up, its data in {state.data}. Stop it: pgrecall down")
    if os.environ.get("PGRECALL_URL") not in (None, "", url):
        session.note("PGRECALL_URL is set to another database: commands go there.")
    session.emit(data, url)


def down(session: Session) -> None:
    """Stop the embedded Postgres, whoever uses it; its data stay."""
    from pgrecall import embedded

    stopped = embedded.stop(session.home)
    session.emit({"stopped": stopped}, "Stopped." if stopped else "It was not running.")
