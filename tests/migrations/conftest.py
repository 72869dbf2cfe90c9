"""For migrations: databases of their own, a server without pgrecall's roles, pg_dump and psql."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

import pgrecall
from conftest import as_dsn
from pgrecall import embedded
from support.data import chunks

Run = Callable[[sa.URL, str], list[tuple[object, ...]]]
Program = Callable[..., str]


@pytest.fixture(scope="session")
def run() -> Run:
    """Run SQL in autocommit and return the last statement's rows."""

    def execute(url: sa.URL, statements: str) -> list[tuple[object, ...]]:
        with psycopg.connect(as_dsn(url), autocommit=True) as connection:
            cursor = connection.execute(statements)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    return execute


@pytest.fixture(scope="session")
def program() -> Program:
    """Run psql or pg_dump, of the newest major: it reads the older ones too."""

    def call(name: str, url: sa.URL, *arguments: str, given: str | None = None) -> str:
        command = [str(embedded.binaries(18) / name), f"--dbname={as_dsn(url)}", *arguments]
        done = subprocess.run(command, input=given, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.fixture(scope="session")
def dump(program: Program) -> Callable[[sa.URL], list[str]]:
    """The whole schema of a database as pg_dump prints it, without its random keys."""

    def lines(url: sa.URL) -> list[str]:
        text = program("pg_dump", url, "--schema-only")
        return [line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]

    return lines


@pytest.fixture(scope="session")
def fill() -> Callable[[sa.URL], None]:
    """Put two tenants' documents, chunks and vectors into a migrated database."""

    def put(url: sa.URL) -> None:
        with pgrecall.connect(url) as database:
            for tenant in ("acme", "globex"):
                store = database.tenant(tenant).vectors("handbook", pgrecall.EmbedSpace("test", "eight", 8))
                store.upsert(chunks(20), documents=[pgrecall.Document("c-doc-0", source="wiki")])

    return put


@pytest.fixture(scope="session")
def bare_server(server: embedded.EmbeddedServer, reachable: Path) -> Iterator[sa.URL]:
    """A second server of the same major, on which no role of pgrecall was ever made."""
    settings = {"fsync": "off", "shared_buffers": "32MB"}
    with embedded.start(reachable / "bare", version=server.version, settings=settings) as running:
        yield sa.make_url(running.url)


CLEAN = """
SELECT format('DROP DATABASE %I WITH (FORCE)', datname) FROM pg_database
WHERE datname <> 'postgres' AND NOT datistemplate
UNION ALL SELECT 'DROP ROLE ' || string_agg(quote_ident(rolname), ', ') FROM pg_roles
WHERE rolname !~ '^pg_' AND rolname <> 'postgres' HAVING count(*) > 0
"""


@pytest.fixture
def bare(bare_server: sa.URL) -> Iterator[sa.URL]:
    """The superuser of a server with nothing on it, neither databases nor roles; the test's own are removed."""
    yield bare_server
    with psycopg.connect(as_dsn(bare_server), autocommit=True) as connection:
        for (statement,) in connection.execute(CLEAN).fetchall():
            connection.execute(statement)


NewOwner = Callable[..., sa.URL]


@pytest.fixture
def new_owner(bare: sa.URL) -> NewOwner:
    """Make a login and a database that it owns on the bare server; returns the login's URL for it."""

    def make(name: str, attributes: str = "", *, owns: bool = True) -> sa.URL:
        with psycopg.connect(as_dsn(bare), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE {name} LOGIN {attributes}")
            owner = sql.Identifier(name if owns else "postgres")
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(f"of-{name}"), owner))
        return bare.set(username=name, database=f"of-{name}")

    return make
