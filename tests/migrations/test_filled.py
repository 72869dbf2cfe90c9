"""Each revision on filled tables that others write to; and the package before the newest revision, after it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from pgrecall import schema
from pgrecall.admin import migrate
from support.upgrades import counted, fill, upgraded

ROOT = Path(__file__).resolve().parents[2]
ROWS = 2_000


def test_rows_stay_and_writers_go_on(new_database, record_property):
    """From the newest downwards: taken back, and upgraded again with a writer at each table that stands before it."""
    url = new_database()
    migrate.upgrade(url)
    fill(url, ROWS)
    assert [name for name, rows in counted(url).items() if not rows] == []
    for step in ScriptDirectory(str(migrate.script_location())).walk_revisions():
        if step.down_revision is None:
            break
        migrate.downgrade(url, step.down_revision)
        before = counted(url)
        done = upgraded(url, step.revision)
        after = counted(url)
        assert {name: after[name] for name in before} == before
        assert set(after) <= {table.name for table in schema.TENANT_TABLES}
        durations = f"{done.seconds * 1e3:.0f} ms, longest block of a write {done.blocked * 1e3:.0f} ms ({done.table})"
        record_property("measured", f"revision {done.revision}, {ROWS:,} rows a table: {durations}")


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout


def test_the_package_before_runs_on_the_newest_schema(server, reachable):
    """Its own contract of stores holds: its code and its tests, from before the newest revision, migrated to that.

    So that the database can be upgraded first, and processes one after the other.
    """
    if server.version != 18:
        pytest.skip("once is enough: the package before, and its own tests, are the same on both majors")
    newest = next(iter((ROOT / "migrations" / "versions").glob(f"{schema.REVISION}_*.py")))
    try:
        [added] = _git("log", "--diff-filter=A", "--format=%H", "-1", "--", str(newest)).decode().split()
        packed = _git("archive", f"{added}~1", "src", "migrations", "integrations", "tests", "pyproject.toml")
    except (OSError, ValueError, subprocess.CalledProcessError):
        pytest.skip("the package before is taken from the repository's history, which is not here")
    folder = reachable / "before"
    folder.mkdir()
    (folder / "before.tar").write_bytes(packed)
    with tarfile.open(folder / "before.tar") as archive:
        archive.extractall(folder, filter="data")
    assert not list((folder / "migrations" / "versions").glob(newest.name))
    shutil.copy(newest, folder / "migrations" / "versions")
    paths = [folder / "src", folder / "integrations/langchain/src", folder / "integrations/llamaindex"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PGRECALL_"))}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", "Postgres and not pg16"]
    command.append("tests/contract")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 100
