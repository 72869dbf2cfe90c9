"""The wheel alone: what is in it, and that it migrates a database from an environment that has nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from conftest import as_dsn
from pgrecall import schema
from pgrecall.admin import migrate
from support.readme import snippets

REPOSITORY = Path(__file__).resolve().parents[2]


def files(folder: str, *kinds: str) -> set[str]:
    return {str(path.relative_to(REPOSITORY / folder)) for kind in kinds for path in (REPOSITORY / folder).rglob(kind)}


@pytest.mark.slow("builds a wheel")
def test_the_wheel_holds_the_package_and_its_revisions_and_nothing_else(wheel):
    """Every module, every revision and the type marker are inside; tests, examples and caches are not."""
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    revisions = {f"migrations/{name}" for name in files("migrations", "*.py", "*.mako")}
    assert {"migrations/env.py", "migrations/script.py.mako", "migrations/versions/0001_foundation.py"} <= revisions
    assert inside == {f"pgrecall/{name}" for name in files("src/pgrecall", "*.py", "*.j2", "py.typed") | revisions}
    assert "pgrecall/py.typed" in inside


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it declares to need, and nothing else."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(place, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin/python"), "--disable-pip-version-check"]
    install = ["install", "--quiet", "--no-compile", "--constraint", str(REPOSITORY / "constraints.txt"), str(wheel)]
    done = subprocess.run([*pip, *install], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return place / "bin"


@pytest.mark.slow("builds and installs a wheel")
def test_the_wheel_migrates_a_database_from_an_empty_environment(installed, new_database, tmp_path):
    """Installed somewhere else, and run from somewhere else, the command has all it needs to make the tables."""
    url = new_database()
    given = {"PATH": os.environ["PATH"], "PGRECALL_URL": as_dsn(url), "PYTHONWARNINGS": "error"}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = (
        "import pgrecall, pgrecall.admin.migrate; print(pgrecall.__file__, pgrecall.admin.migrate.script_location())"
    )
    for place in run(str(installed / "python"), "-c", where).split():
        assert Path(place).is_relative_to(installed.parent)
    assert json.loads(run(str(installed / "pgrecall"), "db", "status", "--json"))["revision"] is None
    run(str(installed / "pgrecall"), "db", "upgrade")
    status = json.loads(run(str(installed / "pgrecall"), "db", "status", "--json"))
    assert (status["revision"], status["pending"]) == (schema.REVISION, [])
    run(str(installed / "pgrecall"), "db", "check")
    migrate.check(url)


@pytest.mark.slow("builds and installs a wheel")
def test_a_backend_passes_the_contract_of_the_wheel(installed, tmp_path):
    """With pytest installed, the page's own backend is tested; the stores in memory need no pytest."""
    python = str(installed / "python")
    subprocess.run([python, "-c", "from pgrecall.testing import InMemoryDatabase"], cwd=tmp_path, check=True)
    pytest_folder = tmp_path / "pytest"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--target",
        str(pytest_folder),
    ]
    subprocess.run([*pip, "--constraint", str(REPOSITORY / "constraints.txt"), "pytest"], check=True)
    for at, (_, code) in enumerate(snippets(REPOSITORY / "docs" / "testing.md", "python")):
        (tmp_path / f"test_block_{at}.py").write_text(code)
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "test_block_0.py"]
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(pytest_folder)}
    done = subprocess.run([*command, "test_block_1.py"], cwd=tmp_path, capture_output=True, text=True, env=given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
