"""The distributions' wheels, each built once for all processes of the suite."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BuiltWheel = Callable[[Path], Path]


@pytest.fixture(scope="session")
def built_wheel(tmp_path_factory: pytest.TempPathFactory) -> BuiltWheel:
    """Builds the wheel of a folder as for a release, or takes the one that another process built."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def build(folder: Path) -> Path:
        out = shared / f"wheel-{folder.name}"
        with Path(f"{out}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (found := list(out.glob("*.whl"))):
                command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(folder)]
                built = subprocess.run(command, capture_output=True, text=True)
                assert built.returncode == 0, built.stdout + built.stderr
                found = list(out.glob("*.whl"))
        [wheel] = found
        return wheel

    return build


@pytest.fixture(scope="session")
def wheel(built_wheel: BuiltWheel) -> Path:
    """The core's wheel."""
    return built_wheel(REPOSITORY)
