"""Run Alembic from code: the only thing that creates or changes pgrecall's tables.

It uses one direct connection as the owner. Concurrent upgrades wait for each other.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from pgrecall.admin import drift, partitions
from pgrecall.errors import ConfigurationError, InvalidInput, MigrationRequired
from pgrecall.postgres.driver import wrapped
from pgrecall.revisions import SAFE_PATH
from pgrecall.schema import SCHEMA

#: Key of the advisory lock that serialises upgrades of one database: the ASCII bytes of "pgrecall".
LOCK_KEY = int.from_bytes(b"pgrecall", "big") >> 1
LOCK_WAIT_SECONDS = 300.0


def script_location() -> Path:
    """The folder of the revisions: in the installed package, or next to `src` in an editable install."""
    here = Path(__file__).resolve().parent.parent
    for folder in (here / "migrations", here.parent.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise ConfigurationError(f"no migrations found in {here}; reinstall pgrecall")


def _config(stdout: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=stdout, stdout=stdout or io.StringIO())
    config.set_main_option("script_location", str(script_location()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@contextmanager
def _connected(url: sa.URL, *, locked: bool) -> Iterator[tuple[sa.Connection, Config]]:
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),  # a bare postgresql:// means psycopg2 to SQLAlchemy 2.0
        poolclass=sa.NullPool,
        connect_args={"prepare_threshold": None, "client_encoding": "utf8"},
    )
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(SAFE_PATH)
            connection.commit()
            if locked:
                _lock(connection)
            config = _config()
            config.attributes["connection"] = connection
            yield connection, config
    except sa.exc.DBAPIError as exc:
        raise wrapped(exc.orig or exc) from exc
    finally:
        engine.dispose()


def _lock(connection: sa.Connection) -> None:
    """Take the session's advisory lock, polling: a wait inside the server would hold back index builds."""
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        held = connection.scalar(sa.select(sa.func.pg_try_advisory_lock(LOCK_KEY)))
        connection.commit()
        if held:
            return
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"another migration has held the lock for {LOCK_WAIT_SECONDS:.0f} s; "
                "find it in pg_locks (locktype 'advisory'), then try again"
            )
        time.sleep(0.05)


def current(connection: sa.Connection) -> str | None:
    """The revision of the connected database, or None if it was never migrated."""
    if not sa.inspect(connection).has_table("alembic_version", schema=SCHEMA):
        return None
    options = {"version_table_schema": SCHEMA}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def head() -> str:
    """The newest revision in this version of pgrecall."""
    found = ScriptDirectory.from_config(_config()).get_current_head()
    if found is None:
        raise ConfigurationError(f"no revisions found in {script_location()}; reinstall pgrecall")
    return found


def upgrade(url: sa.URL, revision: str = "head", *, parts: int | None = None) -> tuple[str | None, str | None]:
    """Upgrade to `revision`; returns the revisions before and after. Processes may call it concurrently.

    `parts` is the number of hash partitions by tenant for the large tables, which must be empty.

    Raises: ConfigurationError if this login lacks a right (the message has the SQL that an administrator must run
    first), or if another migration takes longer than LOCK_WAIT_SECONDS; MigrationRequired if a newer version of
    pgrecall migrated the database; InvalidInput, Unavailable, Conflict.
    """
    if parts is not None:
        partitions.check_number(parts)
        if revision not in ("head", head()):
            raise InvalidInput(f"partitions require the newest revision, but revision is {revision!r}; omit it")
    return _move(url, revision, command.upgrade, parts)


def downgrade(url: sa.URL, revision: str) -> tuple[str | None, str | None]:
    """Downgrade to `revision` ("base" removes every table); returns the revisions before and after.

    The schema, the version table, the extension and the roles stay. Raises the same errors as `upgrade`.
    """
    return _move(url, revision, command.downgrade)


def _move(
    url: sa.URL, revision: str, step: Callable[[Config, str], None], parts: int | None = None
) -> tuple[str | None, str | None]:
    with _connected(url, locked=True) as (connection, config):
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
        if encoding != "UTF8":
            raise ConfigurationError(
                f"the database has the encoding {encoding}, which cannot store every text; pgrecall requires UTF8: "
                "CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'"
            )
        before = current(connection)
        connection.commit()
        _known(ScriptDirectory.from_config(config), before)
        try:
            step(config, revision)
        except CommandError as exc:
            raise InvalidInput(f"can't migrate from revision {before or 'base'} to {revision!r}: {exc}") from exc
        after = current(connection)
        if parts is not None:
            partitions.partition(connection, parts)
        connection.commit()
        return before, after


def _known(scripts: ScriptDirectory, at: str | None) -> None:
    """Raise MigrationRequired if this version of pgrecall does not have the database's revision."""
    try:
        scripts.get_revision(at or "base")
    except CommandError as exc:
        raise MigrationRequired(
            f"the database is at revision {at}, which is newer than this version of pgrecall ({head()}); "
            "upgrade the package"
        ) from exc


def sql(revision: str | None = None, *, down: bool = False, parts: int | None = None) -> str:
    """The SQL of an upgrade (default: "head") or, with `down`, of a downgrade (default: "head:base"). Runs nothing.

    `revision` is the target, or "from:to" unless the SQL starts from an empty database. `parts` is as for `upgrade`.
    Raises: InvalidInput.
    """
    out = io.StringIO()
    try:
        if down:
            command.downgrade(_config(out), revision or f"{head()}:base", sql=True)
        else:
            command.upgrade(_config(out), revision or "head", sql=True)
    except CommandError as exc:
        raise InvalidInput(f"no SQL for revision {revision!r}: {exc}") from exc
    return out.getvalue() + (partitions.sql(partitions.check_number(parts)) if parts is not None else "")


def pending(url: sa.URL) -> list[tuple[str, str]]:
    """Revisions that an upgrade would run, oldest first, each with its title. Raises the same errors as `check`."""
    scripts = ScriptDirectory.from_config(_config())
    with _connected(url, locked=False) as (connection, _):
        at = current(connection)
    _known(scripts, at)
    revisions = reversed(list(scripts.iterate_revisions("head", at or "base")))
    return [(r.revision, (r.doc or "").splitlines()[0]) for r in revisions]


def _at_head(connection: sa.Connection, config: Config) -> None:
    at = current(connection)
    _known(ScriptDirectory.from_config(config), at)
    if at != head():
        raise MigrationRequired(
            f"the database is at revision {at or 'base'}; this version of pgrecall needs {head()}. "
            "Run: pgrecall db upgrade"
        )


def check_revision(url: sa.URL) -> None:
    """Raise MigrationRequired unless the database is at this version's revision."""
    with _connected(url, locked=False) as (connection, config):
        _at_head(connection, config)


def check(url: sa.URL) -> None:
    """Raise MigrationRequired unless the database is at this version's revision and has not drifted."""
    with _connected(url, locked=False) as (connection, config):
        _at_head(connection, config)
        found = drift.differences(connection)
    if found:
        raise MigrationRequired(
            "\n".join(["the database differs from the schema of this version of pgrecall:", *found])
        )
