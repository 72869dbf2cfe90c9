"""The command line where it makes, checks and empties databases, and runs the embedded server."""

from __future__ import annotations

import os
import subprocess

import psycopg
import pytest

import pgrecall
from conftest import as_dsn
from pgrecall.admin import migrate
from support.cli import SCRIPT, Result, run, text


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PGRECALL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")


def test_a_database_from_empty_to_base_and_back(new_database):
    """Plan, upgrade, status, check and downgrade tell the same story, in words and in JSON."""
    url = text(new_database())
    assert run("db", "check", "-u", url).code == 1
    assert run("db", "plan", "-u", url, "--json").json["pending"][0]["revision"] == "0001"
    assert "CREATE TABLE pgrecall.chunks" in run("db", "plan", "--sql", "-u", url).out
    assert run("db", "upgrade", "-u", url).out == f"base → {migrate.head()}\n"
    assert run("db", "upgrade", "-u", url).out == f"Already at revision {migrate.head()}.\n"
    status = run("db", "status", "-u", url, "--json").json
    assert (status["revision"], status["pending"], status["environment"]) == (migrate.head(), [], "production")
    assert run("--json", "db", "check", "-u", url).json == {"drift": []}
    assert run("db", "downgrade", "base", "-u", url).code == 2
    assert run("db", "downgrade", "base", "-u", url, "--yes", "--json").json["after"] is None
    assert "CREATE SCHEMA" in run("db", "upgrade", "--sql").out
    assert "DROP TABLE" in run("db", "downgrade", "base", "--sql").out
    assert run("db", "upgrade", "nope", "--sql").code == 2


def test_drift_is_reported_and_exits_1(new_database):
    """A grant that should not be there is named by `db check`, and fails the doctor."""
    url = new_database(migrated=True)
    with psycopg.connect(as_dsn(url), autocommit=True) as connection:
        connection.execute("GRANT TRUNCATE ON pgrecall.chunks TO pgrecall_app")
    result = run("db", "check", "-u", text(url))
    assert result.code == 1 and "TRUNCATE" in result.out
    healthy = run("doctor", "-u", text(url), "--json")
    assert healthy.code == 1 and healthy.json["ok"] is False


def test_reset_refuses_what_is_not_marked_as_development(new_database):
    """Only a marked database is emptied; the mark is taken off again by naming it production."""
    url = new_database(migrated=True)
    with pgrecall.connect(url) as database:
        database.create_tenant("acme")
    refused = run("db", "reset", "-y", "-u", text(url))
    assert refused.code == 4 and "db mark development" in refused.err
    assert run("db", "mark", "development", "-u", text(url)).code == 0
    assert run("db", "reset", "-u", text(url)).code == 2
    assert run("tenants", "list", "-u", text(url), "--json").json[0]["tenant_id"] == "acme"
    assert run("db", "reset", "-u", text(url), "--yes").code == 0
    assert run("tenants", "list", "-u", text(url), "--json").json == []
    assert run("db", "status", "-u", text(url), "--json").json["environment"] == "development"
    assert run("db", "mark", "production", "-u", text(url)).code == 0
    assert run("db", "reset", "-y", "-u", text(url)).code == 4


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_no_secret_is_printed_and_no_traceback(flags):
    """An unreachable or unreadable URL is one line and exit code 3; its password is nowhere."""
    for url in ("postgresql://me:s3cret@127.0.0.1:1/x", "mysql://me:s3cret@h/x", "postgresql://me:s3cret@h:port/x"):
        for command in (["doctor"], ["db", "status"], ["db", "upgrade"], ["tenants", "list"], ["spaces", "list"]):
            result = run(*command, "--url", url, *flags)
            assert result.code == 3
            assert "s3cret" not in result.out + result.err and "Traceback" not in result.err
            assert len(result.err.splitlines()) == (0 if flags else 1)
            assert not flags or set(result.json["error"]) == {"type", "message"}


@pytest.mark.slow("creates a server, and runs the command six times")
def test_the_embedded_server_stays_up_until_down(reachable):
    """`up` prints the URL alone on stdout and leaves a migrated server; commands use it; `down` stops it."""
    home = reachable / "home-of-up"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PGRECALL_")}

    def script(*arguments: str, **more: str) -> Result:
        done = subprocess.run(
            [SCRIPT, *arguments], env=environment | {"PGRECALL_HOME": str(home)} | more, capture_output=True, text=True,
            check=False, timeout=120,
        )  # fmt: skip
        return Result(done.returncode, done.stdout, done.stderr)

    started = script("up")
    try:
        assert started.code == 0 and "pgrecall down" in started.err
        [url] = started.out.splitlines()
        assert script("db", "check", PGRECALL_URL=url).code == 0
        assert script("tenants", "create", "acme", PGRECALL_URL=url).code == 0
        assert [t["tenant_id"] for t in script("tenants", "list", "--json").json] == ["acme"]
        assert script("doctor", "--json").json["ok"] is True
        assert script("db", "reset", "-y", PGRECALL_URL=url).code == 0
        assert script("tenants", "list", "--json").json == []
    finally:
        stopped = script("down", "--json")
    assert stopped.json == {"stopped": True} and script("down", "--json").json == {"stopped": False}
    assert script("db", "status", "--json").json["where"] == "embedded server"
