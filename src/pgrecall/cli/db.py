"""`pgrecall db`: migrations, drift, and resetting a development database."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from pgrecall.cli.session import Exit, Session, YesOption, command, table
from pgrecall.errors import InvalidInput

app = typer.Typer(name="db", help="Create, upgrade, check and reset the tables.", no_args_is_help=True)

SqlOption = Annotated[bool, typer.Option("--sql", help="Print the SQL for an administrator instead of running it.")]


class Environment(StrEnum):
    """What a database is used for."""

    development = "development"
    production = "production"


def script(make: Callable[[], str]) -> str:
    """The SQL of a migration. Raises InvalidInput if a revision does not exist."""
    from alembic.util.exc import CommandError

    try:
        return make()
    except CommandError as exc:
        raise InvalidInput(str(exc)) from exc


@command(app, "upgrade")
def upgrade(
    session: Session,
    revision: Annotated[str, typer.Argument(help="The target revision; with --sql also FROM:TO.")] = "head",
    sql: SqlOption = False,
    partitions: Annotated[
        int | None,
        typer.Option(help="Hash partitions of the large tables, by tenant. Can only be chosen while they are empty."),
    ] = None,
) -> None:
    """Create the tables or upgrade them to this version. Safe to run in several processes at once."""
    from pgrecall.admin import leakproof, migrate

    if sql:
        text = script(lambda: migrate.sql(revision, parts=partitions))
        session.emit({"sql": text}, text)
        return
    with session.owner() as owner, session.working("Upgrading…"):
        before, after = migrate.upgrade(owner.url, revision, parts=partitions)
        if owner.embedded:
            leakproof.tune(owner.url)
    _moved(session, before, after)


@command(app, "downgrade")
def downgrade(
    session: Session,
    revision: Annotated[str, typer.Argument(help="The target revision; 'base' drops every table with its data.")],
    sql: SqlOption = False,
    yes: YesOption = False,
) -> None:
    """Downgrade to an older revision. Data that only the newer tables hold is lost."""
    from pgrecall.admin import migrate

    if sql:
        way = revision if ":" in revision else f"{migrate.head()}:{revision}"
        text = script(lambda: migrate.sql(way, down=True))
        session.emit({"sql": text}, text)
        return
    with session.owner() as owner:
        session.confirm(f"A downgrade to {revision} deletes the data that only newer tables hold", yes=yes)
        before, after = migrate.downgrade(owner.url, revision)
    _moved(session, before, after)


def _moved(session: Session, before: str | None, after: str | None) -> None:
    names = before or "base", after or "base"
    text = f"Already at revision {names[1]}." if before == after else f"{names[0]} → {names[1]}"
    session.emit({"before": before, "after": after}, text)


@command(app, "status")
def status(session: Session) -> None:
    """Show the database, its revision, and the pending upgrades."""
    from pgrecall.admin import environment, migrate, partitions

    with session.owner() as owner:
        with environment.connected(owner.url) as connection:
            current = migrate.current(connection)
            development = owner.embedded or environment.is_development(connection)
            version = str(connection.exec_driver_sql("SHOW server_version").scalar())
            name = environment.database_name(connection)
            parts = partitions.number(connection)
        pending = migrate.pending(owner.url)
    where = "embedded server" if owner.embedded else f"{owner.url.host or 'local socket'}"
    data: dict[str, Any] = {
        "database": name,
        "where": where,
        "server_version": version,
        "environment": "development" if development else "production",
        "revision": current,
        "head": migrate.head(),
        "pending": [revision for revision, _ in pending],
        "partitions": parts,
    }
    state = "up to date" if not pending else f"{len(pending)} pending; run: pgrecall db upgrade"
    text = f"{name} on {where}, Postgres {version}, {data['environment']}\n"
    text += f"revision {current or 'none'}, newest {data['head']}: {state}"
    text += f"\nthe large tables have {parts} partitions" if parts else ""
    session.emit(data, text)


@command(app, "plan")
def plan(session: Session, sql: SqlOption = False) -> None:
    """Show the revisions that an upgrade would run, oldest first; with --sql, their SQL."""
    from pgrecall.admin import environment, migrate

    with session.owner() as owner:
        pending = migrate.pending(owner.url)
        with environment.connected(owner.url) as connection:
            current = migrate.current(connection)
    text = script(lambda: migrate.sql(f"{current or 'base'}:head")) if sql and pending else None
    data = {"pending": [{"revision": revision, "title": title} for revision, title in pending], "sql": text}
    if not pending:
        session.emit(data, "Nothing to upgrade.")
    else:
        session.emit(data, text if text is not None else table(("revision", "description"), pending))


@command(app, "check")
def check(session: Session) -> None:
    """Compare the database with this version's schema, policies and grants; exit 1 on drift."""
    from pgrecall.admin import drift, environment, migrate

    with session.owner() as owner:
        different = [f"revision {name} is pending: {title}" for name, title in migrate.pending(owner.url)]
        if not different:
            with environment.connected(owner.url) as connection:
                different = drift.differences(connection)
    session.emit({"drift": different}, "\n".join(different) or "No drift.")
    if different:
        raise typer.Exit(Exit.NO)


@command(app, "distribute")
def distribute(
    session: Session,
    shards: Annotated[int | None, typer.Option(help="Shards per table. Default: citus.shard_count.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the SQL instead of running it.")] = False,
) -> None:
    """Distribute the tenants' tables on Citus: co-located by tenant, with the registry of spaces on every node.

    Run it on the coordinator as the tables' owner, who must be allowed to create roles there and on the workers. Tables
    that are already distributed are left alone, so run it again after an upgrade that adds tables. Rows are moved in
    one transaction that locks out readers and writers. Graphs are dropped; pgrecall maintain rebuilds them on the
    nodes.
    """
    from pgrecall.admin import citus

    with session.owner() as owner:
        note = (lambda _: None) if dry_run else session.note
        listed = citus.distribute(owner.url, shards=shards, dry_run=dry_run, report=note)
    done = "Distributed. Now build the graphs: pgrecall maintain" if listed else "Every table is already distributed."
    script = "".join(f"{statement};\n" for statement in listed).rstrip()
    session.emit({"statements": listed, "run": not dry_run}, script if dry_run and listed else done)


@command(app, "tune")
def tune(
    session: Session,
    undo: Annotated[bool, typer.Option("--undo", help="Remove the marks.")] = False,
) -> None:
    """Let filters and full-text search use their indexes under row-level security. Needs a superuser.

    Marks two functions of Postgres, jsonb_contains and ts_match_vq, as LEAKPROOF in this database. A dump does not
    carry the marks, so run it again after a restore or pg_upgrade. The embedded server is tuned when it is migrated.
    Without a superuser, use `pgrecall collections index-key`.
    """
    from pgrecall.admin import leakproof

    with session.owner() as owner:
        changed = leakproof.tune(owner.url, undo=undo)
    state = "NOT LEAKPROOF" if undo else "LEAKPROOF"
    text = (
        "".join(f"{function}: now {state}\n" for function in changed).rstrip() or f"All functions are already {state}."
    )
    session.emit({"changed": changed, "leakproof": not undo}, text)


@command(app, "mark")
def mark(session: Session, environment: Environment) -> None:
    """Mark a database as development, so that `db reset` accepts it and the doctor is less strict; or as production.

    The mark is a setting of the database (ALTER DATABASE … SET pgrecall.environment). It needs the owner's login, and a
    dump does not carry it. The embedded server is always development.
    """
    from pgrecall.admin import environment as environments

    with session.owner() as owner:
        name = environments.mark(owner.url, environment.value)
    session.emit({"database": name, "environment": environment.value}, f"{name} is now marked as {environment.value}.")


@command(app, "reset")
def reset(session: Session, yes: YesOption = False) -> None:
    """Drop all of pgrecall's tables and create empty ones, with the same number of partitions. For development only.

    Only works on the embedded server and on databases marked with `pgrecall db mark development`. Drops the schema
    pgrecall with everything in it, and objects of others that depend on it, such as views.
    """
    from pgrecall.admin import environment as environments

    with session.owner() as owner:
        name = environments.check_resettable(owner.url, embedded=owner.embedded)
        session.confirm(f"This deletes all tenants and all their data in database {name!r}", yes=yes)
        after = environments.reset(owner.url, embedded=owner.embedded)
    session.emit({"database": name, "revision": after}, f"{name} is empty, at revision {after}.")
