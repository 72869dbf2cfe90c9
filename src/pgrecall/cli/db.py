"""`pgrecall db`: migrations, drift, and starting afresh in development."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgrecall.cli.session import Exit, Owner, RefusedError, Session, YesOption, command, table
from pgrecall.errors import InvalidInput

if TYPE_CHECKING:
    import sqlalchemy as sa

app = typer.Typer(name="db", help="Make, upgrade and check the tables.", no_args_is_help=True)

SqlOption = Annotated[bool, typer.Option("--sql", help="Print the SQL for an administrator; run nothing.")]


class Environment(StrEnum):
    """What a database is for."""

    development = "development"
    production = "production"


@contextmanager
def connected(owner: Owner) -> Iterator[sa.Connection]:
    """A connection as the owner, autocommit. Raises: Unavailable, ConfigurationError, DatabaseError."""
    import sqlalchemy as sa

    from pgrecall.postgres.driver import wrapped
    from pgrecall.revisions import SAFE_PATH

    utf8 = {"client_encoding": "utf8"}
    engine = sa.create_engine(owner.url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT", connect_args=utf8)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(SAFE_PATH)
            yield connection
    except sa.exc.DBAPIError as exc:
        raise wrapped(exc.orig or exc) from exc
    finally:
        engine.dispose()


def is_development(connection: sa.Connection) -> bool:
    """Whether the database is marked as one for development."""
    import sqlalchemy as sa

    from pgrecall.statements import doctor

    return bool(connection.scalar(sa.text(doctor.DEVELOPMENT)))


def mark_database(connection: sa.Connection, environment: Environment) -> str:
    """Mark the connected database; returns its name. Needs its owner."""
    import sqlalchemy as sa
    from psycopg import sql

    name = str(connection.scalar(sa.text("SELECT current_database()")))
    what = "SET pgrecall.environment = 'development'"
    if environment is Environment.production:
        what = "RESET pgrecall.environment"
    statement = sql.SQL("ALTER DATABASE {} " + what).format(sql.Identifier(name))
    connection.exec_driver_sql(statement.as_string(None).replace("%", "%%"))
    return name


def script(make: Callable[[], str]) -> str:
    """The SQL of a migration. Raises: InvalidInput where there is no such revision."""
    from alembic.util.exc import CommandError

    try:
        return make()
    except CommandError as exc:
        raise InvalidInput(str(exc)) from exc


@command(app, "upgrade")
def upgrade(
    session: Session,
    revision: Annotated[str, typer.Argument(help="Where to; with --sql also FROM:TO.")] = "head",
    sql: SqlOption = False,
    partitions: Annotated[
        int | None,
        typer.Option(help="Hash partitions by tenant of the large tables, chosen once, while they are empty."),
    ] = None,
) -> None:
    """Make the tables, or upgrade them to this version; safe to run from many places at once."""
    from pgrecall.admin import leakproof as tuning
    from pgrecall.admin import migrate

    if sql:
        text = script(lambda: migrate.sql(revision, parts=partitions))
        session.emit({"sql": text}, text)
        return
    with session.owner() as owner, session.working("Upgrading…"):
        before, after = migrate.upgrade(owner.url, revision, parts=partitions)
        if owner.embedded:
            tuning.tune(owner.url)
    _moved(session, before, after)


@command(app, "downgrade")
def downgrade(
    session: Session,
    revision: Annotated[str, typer.Argument(help="Where to; 'base' removes every table and what is in it.")],
    sql: SqlOption = False,
    yes: YesOption = False,
) -> None:
    """Take revisions back. What only the newer tables hold is lost."""
    from pgrecall.admin import migrate

    if sql:
        way = revision if ":" in revision else f"{migrate.head()}:{revision}"
        text = script(lambda: migrate.sql(way, down=True))
        session.emit({"sql": text}, text)
        return
    with session.owner() as owner:
        session.confirm(f"A downgrade to {revision} deletes what the newer tables hold", yes=yes)
        before, after = migrate.downgrade(owner.url, revision)
    _moved(session, before, after)


def _moved(session: Session, before: str | None, after: str | None) -> None:
    names = before or "base", after or "base"
    text = f"Already at {names[1]}." if before == after else f"{names[0]} → {names[1]}"
    session.emit({"before": before, "after": after}, text)


@command(app, "status")
def status(session: Session) -> None:
    """Which database this is, its revision, and what an upgrade would run."""
    from pgrecall.admin import migrate, partitions

    with session.owner() as owner:
        with connected(owner) as connection:
            current = migrate.current(connection)
            development = owner.embedded or is_development(connection)
            version = str(connection.exec_driver_sql("SHOW server_version").scalar())
            name = str(connection.exec_driver_sql("SELECT current_database()").scalar())
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
    state = "up to date" if not pending else f"{len(pending)} to run: pgrecall db upgrade"
    text = f"{name} on {where}, Postgres {version}, for {data['environment']}\n"
    text += f"revision {current or 'none'}; this version has {data['head']}: {state}"
    text += f"\nthe large tables have {parts} partitions" if parts else ""
    session.emit(data, text)


@command(app, "plan")
def plan(session: Session, sql: SqlOption = False) -> None:
    """What an upgrade would run here, oldest first; with --sql as SQL."""
    from pgrecall.admin import migrate

    with session.owner() as owner:
        pending = migrate.pending(owner.url)
        with connected(owner) as connection:
            current = migrate.current(connection)
    text = script(lambda: migrate.sql(f"{current or 'base'}:head")) if sql and pending else None
    data = {"pending": [{"revision": revision, "title": title} for revision, title in pending], "sql": text}
    if not pending:
        session.emit(data, "Nothing to run.")
    else:
        session.emit(data, text if text is not None else table(("revision", "what it does"), pending))


@command(app, "check")
def check(session: Session) -> None:
    """Compare the database with what this version expects, policies and grants too; exit 1 on drift."""
    from pgrecall.admin import drift, migrate

    with session.owner() as owner:
        different = [f"revision {name} has not run: {title}" for name, title in migrate.pending(owner.url)]
        if not different:
            with connected(owner) as connection:
                different = drift.differences(connection)
    session.emit({"drift": different}, "\n".join(different) or "No drift.")
    if different:
        raise typer.Exit(Exit.NO)


@command(app, "distribute")
def distribute(
    session: Session,
    shards: Annotated[int | None, typer.Option(help="Shards of each table; else as citus.shard_count says.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the SQL that would be run; run nothing.")] = False,
) -> None:
    """Put the tenants' tables on Citus: by tenant, co-located, the registry of spaces on every node.

    On the coordinator, as the tables' owner, who may make roles there and on the workers. Tables that are distributed
    already are left alone, so it is run again after an upgrade that adds tables. Rows are moved in one transaction, in
    which nobody else reads or writes; graphs are dropped, and built on the nodes by pgrecall maintain.
    """
    from pgrecall.admin import citus

    with session.owner() as owner:
        told = (lambda _: None) if dry_run else session.note
        listed = citus.distribute(owner.url, shards=shards, dry_run=dry_run, told=told)
    done = "Distributed. Build the graphs: pgrecall maintain" if listed else "Every table is distributed already."
    script = "".join(f"{statement};\n" for statement in listed).rstrip()
    session.emit({"statements": listed, "run": not dry_run}, script if dry_run and listed else done)


@command(app, "tune")
def tune(
    session: Session,
    undo: Annotated[bool, typer.Option("--undo", help="Take the marks back.")] = False,
) -> None:
    """Let filters and full text use their indexes under row-level security. Needs a superuser.

    Marks two of Postgres' own functions, jsonb_contains and ts_match_vq, LEAKPROOF in this database. A dump does not
    carry the marks: run it again after a restore, or pg_upgrade. The embedded server is tuned when it is migrated.
    Where nobody may be superuser: collections index-key.
    """
    from pgrecall.admin import leakproof as tuning

    with session.owner() as owner:
        changed = tuning.tune(owner.url, undo=undo)
    state = "NOT LEAKPROOF" if undo else "LEAKPROOF"
    text = "".join(f"{function}: {state} now\n" for function in changed).rstrip() or f"All are {state} already."
    session.emit({"changed": changed, "leakproof": not undo}, text)


@command(app, "mark")
def mark(session: Session, environment: Environment) -> None:
    """Mark a database as development: `reset` works on it, and the doctor is milder; or as production again.

    The mark is a setting of the database (ALTER DATABASE … SET pgrecall.environment): it needs the owner,
    and no dump carries it elsewhere. The embedded server is development without it.
    """
    with session.owner() as owner, connected(owner) as connection:
        name = mark_database(connection, environment)
    session.emit({"database": name, "environment": environment.value}, f"{name} is {environment.value} now.")


@command(app, "reset")
def reset(session: Session, yes: YesOption = False) -> None:
    """Drop everything of pgrecall and make empty tables, with as many partitions. For development only.

    Refuses any database but the embedded one and those marked by `pgrecall db mark development`. Drops the
    schema pgrecall with all in it, also what others made there or on its tables (views, say).
    """
    from pgrecall.admin import migrate, partitions

    with session.owner() as owner:
        with connected(owner) as connection:
            name = str(connection.exec_driver_sql("SELECT current_database()").scalar())
            if not (owner.embedded or is_development(connection)):
                raise RefusedError(
                    f"database {name!r} is not marked as development, so it is not reset; "
                    "if it is one: pgrecall db mark development"
                )
            session.confirm(f"This deletes all tenants and all their data in database {name!r}", yes=yes)
            parts = partitions.number(connection)
            connection.exec_driver_sql("SET lock_timeout = '10s'")
            connection.exec_driver_sql("DROP SCHEMA IF EXISTS pgrecall CASCADE")
        _, after = migrate.upgrade(owner.url, parts=parts)
    session.emit({"database": name, "revision": after}, f"{name} is empty, at revision {after}.")
