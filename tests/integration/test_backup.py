"""What docs/operations.md says of backups: who may dump, and that a restored database works."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

import pgrecall
from pgrecall import Chunk, Document, EmbedSpace, TenantErased, doctor, embedded, schema
from pgrecall.admin import migrate
from support.data import chunks

SPACE = EmbedSpace("test", "eight", 8)
LARGE = 2_100
TABLES = [table.name for table in schema.TENANT_TABLES]
LOGINS = """
CREATE ROLE recall_app LOGIN; CREATE ROLE recall_maintenance LOGIN;
GRANT pgrecall_app TO recall_app WITH INHERIT FALSE, SET TRUE;
GRANT pgrecall_maintenance TO recall_maintenance WITH INHERIT FALSE, SET TRUE;
"""

Tool = Callable[..., subprocess.CompletedProcess[str]]


def dsn(url: sa.URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def run(url: sa.URL, *statements: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn(url), autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def tool(server: embedded.EmbeddedServer) -> Tool:
    """Run one of the server's own client programs, of its own major: an older server refuses a newer pg_restore."""

    def call(name: str, url: sa.URL, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(embedded.binaries(server.version) / name), f"--dbname={dsn(url)}", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    return call


def fresh(server: embedded.EmbeddedServer, folder: Path) -> embedded.EmbeddedServer:
    return embedded.start(folder, version=server.version, settings={"fsync": "off", "shared_buffers": "32MB"})


@pytest.fixture(scope="module")
def source(server: embedded.EmbeddedServer, reachable: Path) -> Iterator[sa.URL]:
    """Production: database `recall` of a plain owner on a server of its own, filled; the superuser's URL for it."""
    with fresh(server, reachable / "backup-of") as running:
        admin = sa.make_url(running.url)
        run(admin, "CREATE ROLE recall_owner LOGIN CREATEROLE", "CREATE DATABASE recall OWNER recall_owner")
        url = admin.set(database="recall")
        run(url, "CREATE EXTENSION vector")
        owner = url.set(username="recall_owner")
        migrate.upgrade(owner)
        run(owner, LOGINS)
        maintenance = url.set(username="recall_maintenance")
        with pgrecall.connect(url.set(username="recall_app"), maintenance_url=maintenance, admin_url=owner) as db:
            for tenant in ("acme", "globex", "gone"):
                store = db.tenant(tenant).vectors("handbook", SPACE)
                store.upsert(chunks(20), documents=[Document("c-doc-0", source="wiki")])
            db.delete_tenant("gone")
            db.tenant("acme").vectors("library", SPACE).upsert(chunks(LARGE))
            assert [done.action for done in db.maintain()] == ["built"]
        yield url


@pytest.fixture
def target(server: embedded.EmbeddedServer, reachable: Path, source: sa.URL, tool: Tool) -> Iterator[sa.URL]:
    """Another server, which got the roles of the first and nothing else: an empty database `recall` on it."""
    with fresh(server, reachable / "restored-to") as running:
        admin = sa.make_url(running.url)
        run(admin, "DROP DATABASE IF EXISTS recall WITH (FORCE)")
        roles = tool("pg_dumpall", source, "--roles-only", f"--file={reachable}/roles.sql")
        assert roles.returncode == 0, roles.stderr
        tool("psql", admin, "--quiet", f"--file={reachable}/roles.sql")
        run(admin, "CREATE DATABASE recall OWNER recall_owner")
        yield admin.set(database="recall")


def assert_it_works(url: sa.URL) -> None:
    """Whole, isolated and healthy by the doctor, as the application's login; and writable."""
    app, maintenance = url.set(username="recall_app"), url.set(username="recall_maintenance")
    with pgrecall.connect(app, maintenance_url=maintenance, admin_url=url.set(username="recall_owner")) as db:
        assert [(done.action, done.rows) for done in db.maintain()] == [("none", LARGE)]  # the graph came along
        assert {f.check: f.status for f in doctor.diagnose(db) if f.status != "ok"} == {}
        store = db.tenant("acme").vectors("handbook", SPACE)
        [hit] = store.query(chunks(20)[3].embedding, 1)
        assert (hit.chunk_id, hit.source, store.count()) == ("c0003", "wiki", 20)
        assert store.upsert([*chunks(20), Chunk("new", "text", [1.0] * 8)]).written == 1
        assert db.tenant("globex").vectors("handbook", SPACE).get(["new"]) == []
        with pytest.raises(TenantErased):
            db.tenant("gone").vectors("handbook", SPACE).upsert(chunks(1))
    migrate.check(url.set(username="recall_owner"))


def test_a_restored_dump_works_on_a_server_that_had_only_the_roles(source, target, tool, tmp_path):
    """Roles from pg_dumpall, then pg_restore by an administrator: nothing else is to be done before it is used."""
    file = str(tmp_path / "recall.dump")
    dumped = tool("pg_dump", source, "--format=custom", f"--file={file}")
    assert dumped.returncode == 0, dumped.stderr
    restored = tool("pg_restore", target, "--exit-on-error", file)
    assert restored.returncode == 0, restored.stderr
    assert_it_works(target)


def test_a_plain_owner_restores_where_the_extension_is_there(source, target, tool, tmp_path):
    """Without a superuser on the new server: an administrator makes the extension, the owner does the rest."""
    file = str(tmp_path / "recall.dump")
    tool("pg_dump", source, "--format=custom", f"--file={file}")
    run(target, "CREATE EXTENSION vector")
    restored = tool("pg_restore", target.set(username="recall_owner"), "--no-comments", "--exit-on-error", file)
    assert restored.returncode == 0, restored.stderr
    assert_it_works(target)


def test_restored_before_its_roles_it_fails(source, target, tool, tmp_path):
    """Roles are not in the dump of a database: hence the order."""
    file = str(tmp_path / "recall.dump")
    tool("pg_dump", source, "--format=custom", f"--file={file}")
    run(target, "ALTER DATABASE recall OWNER TO postgres", "DROP ROLE recall_owner, recall_app, recall_maintenance")
    restored = tool("pg_restore", target, "--exit-on-error", file)
    assert restored.returncode == 1 and 'role "recall_owner" does not exist' in restored.stderr


def test_a_plain_owner_can_not_dump(source, tool, tmp_path):
    """FORCE ROW LEVEL SECURITY binds the owner: pg_dump refuses, rather than write a part."""
    dumped = tool("pg_dump", source.set(username="recall_owner"), f"--file={tmp_path / 'dump.sql'}")
    assert dumped.returncode == 1
    assert "query would be affected by row-level security policy" in dumped.stderr


def test_enable_row_security_dumps_nothing_and_says_nothing(source, tool):
    """The option that silences the refusal makes an empty backup: no row of any tenant is in it."""
    dumped = tool("pg_dump", source.set(username="recall_owner"), "--enable-row-security", "--data-only")
    assert (dumped.returncode, dumped.stderr) == (0, "")
    assert "COPY pgrecall.chunks " in dumped.stdout and "acme" not in dumped.stdout
    assert "acme" in tool("pg_dump", source, "--data-only").stdout


def test_a_login_for_backups_needs_bypassrls_and_read_rights_only(source, tool):
    """The whole is dumped by a login that can change nothing."""
    run(source, "CREATE ROLE recall_backup LOGIN BYPASSRLS", "GRANT pg_read_all_data TO recall_backup")
    backup = source.set(username="recall_backup")
    dumped, whole = (tool("pg_dump", url, "--data-only", "--restrict-key=same") for url in (backup, source))
    assert dumped.returncode == 0 and dumped.stdout == whole.stdout
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        run(backup, "DELETE FROM pgrecall.chunks")


def test_an_owner_dumps_while_the_force_is_lifted(source, target, tool, tmp_path):
    """Where nobody may bypass: the application stays isolated meanwhile; restored, the doctor asks for the force."""
    owner, file = source.set(username="recall_owner"), str(tmp_path / "recall.dump")
    run(owner, *(f"ALTER TABLE pgrecall.{name} NO FORCE ROW LEVEL SECURITY" for name in TABLES))
    try:
        dumped = tool("pg_dump", owner, "--format=custom", f"--file={file}")
        acting = "BEGIN; SET LOCAL ROLE pgrecall_app; SET LOCAL pgrecall.tenant_id = 'acme'"
        seen = run(source.set(username="recall_app"), acting, "SELECT DISTINCT tenant_id FROM pgrecall.chunks")
        assert seen == [("acme",)]
    finally:
        run(owner, *(f"ALTER TABLE pgrecall.{name} FORCE ROW LEVEL SECURITY" for name in TABLES))
    assert dumped.returncode == 0, dumped.stderr
    migrate.check(owner)
    assert tool("pg_restore", target, "--exit-on-error", file).returncode == 0
    with pgrecall.connect(target.set(username="recall_app")) as db:
        [finding] = [f for f in doctor.diagnose(db) if f.check == "row security"]
    assert finding.status == "fail"
    run(target.set(username="recall_owner"), *finding.fix.rstrip(";").split("; "))
    assert_it_works(target)
