"""Real servers for the whole suite: the majors that `--majors` names, embedded; nothing is ever a mock of one.

The application's fixtures connect as a plain login that owns nothing and may only act as `pgrecall_app`, as in
production; `admin_*` are the superuser.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

import pgrecall
from pgrecall import embedded
from pgrecall.admin import migrate

_numbers = itertools.count()
LONG = ("slow", "soak")  # marks

LOGINS = """
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'test_app') THEN
    CREATE ROLE test_app LOGIN; CREATE ROLE test_maintenance LOGIN; CREATE ROLE test_stranger LOGIN;
  END IF;
END $$;
GRANT pgrecall_app TO test_app WITH INHERIT FALSE, SET TRUE;
GRANT pgrecall_maintenance TO test_maintenance WITH INHERIT FALSE, SET TRUE;
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--majors` and `--server-url`."""
    parser.addoption(
        "--majors",
        type=lambda text: [int(major) for major in text.split(",")],
        default=[18],
        help="Postgres majors to run the suite on, separated by commas: 18 (default), 16 or 18,16",
    )
    parser.addoption(
        "--server-url",
        metavar="URL",
        help="run on a server of your own instead, as its superuser; it must let every login in without a password",
    )
    parser.addoption("--soak", action="store_true", help="run the larger versions of tests too, which take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the larger versions of tests unless `--soak` asks for them; a slow test says why it is slow."""
    silent = [item.nodeid for item in items for mark in item.iter_markers() if mark.name in LONG and not mark.args]
    if silent:
        raise pytest.UsageError(f"the marks slow and soak need the reason as their argument: {silent}")
    if not config.getoption("soak"):
        larger = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if not item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=larger)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that needs the server once on each major, or once on the server of `--server-url`."""
    if "server" in metafunc.fixturenames:
        majors = metafunc.config.getoption("majors")
        ids = [f"pg{major}" for major in majors]
        if metafunc.config.getoption("server_url"):
            majors = ids = ["own"]
        metafunc.parametrize("server", majors, ids=ids, indirect=True, scope="session")


class OwnServer:
    """The server of `--server-url`. A test that needs more of a server than its URL skips."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __getattr__(self, name: str) -> None:
        pytest.skip(f"needs an embedded server: it uses the server's {name}")


@pytest.fixture(scope="session")
def reachable() -> Iterator[Path]:
    """A folder that the server's own user reaches too; as root, pytest's tmp_path is closed to it."""
    folder = Path(tempfile.mkdtemp(prefix="pgrecall-tests-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, reachable: Path) -> Iterator[embedded.EmbeddedServer | OwnServer]:
    """A server of the major that the test runs on.

    fsync is off because tests may lose their data in a power cut; autovacuum is off because a plan that a test asserts
    must rest on statistics that the test made, not on when a worker came by.
    """
    if request.param == "own":
        yield OwnServer(request.config.getoption("server_url"))
        return
    settings = {"fsync": "off", "autovacuum": "off", "shared_buffers": "256MB", "max_connections": "200"}
    with embedded.start(reachable / "home", version=request.param, settings=settings) as running:
        yield running
    shutil.rmtree(running.data)  # gigabytes: the next major's server needs the space


@pytest.fixture(scope="session")
def server_url(server: embedded.EmbeddedServer) -> sa.URL:
    """The superuser's URL, database `postgres`."""
    return sa.make_url(server.url).set(drivername="postgresql+psycopg")


def as_dsn(url: sa.URL) -> str:
    """A URL for psycopg itself."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


NewDatabase = Callable[..., sa.URL]


@pytest.fixture(scope="session")
def _databases(server: embedded.EmbeddedServer | OwnServer, server_url: sa.URL) -> Iterator[NewDatabase]:
    made: list[str] = []

    def copy(template: str) -> sa.URL:
        name = f"test_{os.getpid()}_{next(_numbers)}"
        create = psycopg.sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        with psycopg.connect(as_dsn(server_url), autocommit=True) as connection:
            connection.execute(create.format(psycopg.sql.Identifier(name), psycopg.sql.Identifier(template)))
        made.append(name)
        return server_url.set(database=name)

    @functools.cache
    def migrated_once() -> str:
        url = copy("template1")
        migrate.upgrade(url)
        return url.database or ""

    def make(template: sa.URL | None = None, *, migrated: bool = False) -> sa.URL:
        if template is not None:
            return copy(template.database or "")
        return copy(migrated_once() if migrated else "template1")

    yield make
    if not isinstance(server, OwnServer):
        return  # each drop would take a checkpoint, and the server goes as a whole
    with psycopg.connect(as_dsn(server_url), autocommit=True) as connection:
        for name in made:
            drop = psycopg.sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
            connection.execute(drop.format(psycopg.sql.Identifier(name)))


@pytest.fixture
def new_database(_databases: NewDatabase) -> NewDatabase:
    """Makes a database on the server and returns the superuser's URL for it.

    It is empty, or at the newest revision if `migrated`, or a copy of a database that nothing is connected to.
    """
    return _databases


@pytest.fixture(scope="session")
def admin_url(_databases: NewDatabase) -> sa.URL:
    """A migrated database that the session's tests share, as superuser; each test uses tenants of its own."""
    url = _databases(migrated=True)
    with psycopg.connect(as_dsn(url), autocommit=True) as connection:
        connection.execute(LOGINS)
    return url


@pytest.fixture(scope="session")
def app_url(admin_url: sa.URL) -> sa.URL:
    """The shared database, as the application's login."""
    return admin_url.set(username="test_app")


@pytest.fixture(scope="session")
def maintenance_url(admin_url: sa.URL) -> sa.URL:
    """The shared database, as the login for work across tenants."""
    return admin_url.set(username="test_maintenance")


@pytest.fixture
def admin_connection(admin_url: sa.URL) -> Iterator[psycopg.Connection]:
    """A superuser's connection to the shared database, autocommit."""
    with psycopg.connect(as_dsn(admin_url), autocommit=True) as connection:
        yield connection


@pytest.fixture
def db(app_url: sa.URL, maintenance_url: sa.URL, admin_url: sa.URL) -> Iterator[pgrecall.Database]:
    """The shared database, opened as an application does in production."""
    with pgrecall.connect(app_url, maintenance_url=maintenance_url, admin_url=admin_url) as database:
        yield database


@pytest.fixture
def tenant_id() -> str:
    """A tenant that nobody else uses."""
    return f"tenant-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def space() -> pgrecall.EmbedSpace:
    """A small space for hand-made vectors."""
    return pgrecall.EmbedSpace("test", "eight", 8)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured on their way and judged by nothing: how long an upgrade blocked a write."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "measured":
                terminalreporter.write_line(str(value))
