"""The LangChain adapter's wheel and the core's, in an environment with nothing else: its README runs there."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ADAPTER = REPOSITORY / "integrations" / "langchain"

#: Run by the new environment's Python, with only the tests' folder in addition to what is installed.
RUN_README = f"""
import sys, warnings
sys.path.append({str(REPOSITORY / "tests")!r})
import langchain_pgrecall, pgrecall
from support.readme import run_python
from pathlib import Path
print(langchain_pgrecall.__file__, pgrecall.__file__)
namespace = {{}}
try:
    run_python(Path({str(ADAPTER / "README.md")!r}), namespace)
finally:
    if "store" in namespace:
        namespace["store"].close()
"""


@pytest.mark.slow("installs two wheels")
def test_the_two_wheels_are_enough_for_every_snippet_of_the_readme(wheel, built_wheel, tmp_path, reachable):
    """What is installed is what runs, and the adapter's wheel holds its modules, the type marker and nothing else."""
    wheels = [wheel, built_wheel(ADAPTER)]
    with zipfile.ZipFile(wheels[1]) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = archive.read(next(n for n in archive.namelist() if n.endswith("/METADATA"))).decode()
    source = ADAPTER / "src"
    files = {str(path.relative_to(source)) for kind in ("*.py", "py.typed") for path in source.rglob(kind)}
    assert inside == files and "langchain_pgrecall/py.typed" in inside
    assert "Requires-Dist: langchain-core<2,>=1.2" in metadata
    place = tmp_path / "venv"
    venv.create(place, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin/python"), "--disable-pip-version-check"]
    asked = ["--constraint", str(REPOSITORY / "constraints.txt"), f"{wheels[0]}[embedded]", f"{wheels[1]}[langgraph]"]
    done = subprocess.run([*pip, "install", "--quiet", "--no-compile", *asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    given = {"PATH": os.environ["PATH"], "PGRECALL_HOME": str(reachable / "wheels"), "PYTHONWARNINGS": "error"}
    command = [str(place / "bin/python"), "-c", RUN_README]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=given)
    assert ran.returncode == 0, ran.stderr
    for path in ran.stdout.split():
        assert Path(path).is_relative_to(place)
