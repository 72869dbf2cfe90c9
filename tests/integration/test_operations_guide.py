"""What the operations guide shows runs as it stands there: the move of an embedded home, and the SQL of the roles."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

import pgrecall
from pgrecall import Chunk, EmbedSpace, doctor, embedded
from pgrecall.admin import migrate
from support.readme import snippets

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "operations.md"
_homes = itertools.count()


@pytest.fixture
def home(reachable: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own for the embedded server, as the environment says it."""
    for name in ("PGRECALL_URL", "PGRECALL_ADMIN_URL", "PGRECALL_MAINTENANCE_URL"):
        monkeypatch.delenv(name, raising=False)
    folder = reachable / f"docs-{next(_homes)}"
    monkeypatch.setenv("PGRECALL_HOME", str(folder))
    return folder


def test_the_guide_moves_an_embedded_home_from_16_to_18(home: Path) -> None:
    """After its snippet 18 is taken by itself, and has the rows."""
    with embedded.start(version=16, settings={"fsync": "off"}) as old:
        url = sa.make_url(old.url)
        migrate.upgrade(url)
        with pgrecall.connect(url) as db:
            store = db.tenant("acme").vectors("handbook", EmbedSpace("test", "three", 3))
            store.upsert([Chunk("kept", "text", [1.0, 2.0, 3.0])])
    [code] = [code for _, code in snippets(GUIDE, "python") if "version=16" in code]
    exec(compile(code, str(GUIDE), "exec"), {})
    with pgrecall.connect() as db:
        assert [c.id for c in db.tenant("acme").vectors("handbook").list_chunks()] == ["kept"]
    assert embedded.status().version == 18


def test_the_guides_sql_makes_a_production_database_that_the_doctor_finds_well(
    server: embedded.EmbeddedServer, reachable: Path
) -> None:
    """Each block as the login that its first line names, on a server that has nothing; then all is green."""
    with embedded.start(reachable / "guide", version=server.version, settings={"fsync": "off"}) as fresh:
        admin = sa.make_url(fresh.url).set(drivername="postgresql")
        owner = admin.set(username="recall_owner", database="recall")

        def psql(url: sa.URL, script: str) -> None:
            program = [str(embedded.binaries(server.version) / "psql"), "--quiet", "--set=ON_ERROR_STOP=1"]
            command = [*program, f"--dbname={url.render_as_string()}"]
            done = subprocess.run(command, input=script, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr

        first, logins, monitor, backup, lift = [code for _, code in snippets(GUIDE, "sql") if code.startswith("-- as")]
        psql(admin, first)
        migrate.upgrade(owner)
        psql(owner, logins)
        psql(admin, monitor)
        psql(admin, backup)
        for name in ("recall_app", "recall_monitor"):
            maintenance = owner.set(username="recall_maintenance")
            with pgrecall.connect(owner.set(username=name), maintenance_url=maintenance) as db:
                assert {f.check: f.found for f in doctor.diagnose(db) if f.status != "ok"} == {}
                with psycopg.connect(owner.render_as_string()) as other:
                    other.execute("SELECT 1")
                    assert (doctor.metrics(db)["longest_transaction_seconds"] is None) == (name == "recall_app")
        psql(owner, lift)
        with pgrecall.connect(owner.set(username="recall_app")) as db:
            assert [f.status for f in doctor.diagnose(db) if f.check == "row security"] == ["fail"]
        psql(owner, lift.replace("NO FORCE", "FORCE"))
        migrate.check(owner)
