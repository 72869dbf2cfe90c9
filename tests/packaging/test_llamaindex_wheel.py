"""The LlamaIndex adapter's wheel and the core's, in an environment with nothing else: its README runs there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ADAPTER = REPOSITORY / "integrations" / "llamaindex"

#: Run by the new environment's Python, with only the tests' folder in addition to what is installed.
RUN_README = f"""
import sys
sys.path.append({str(REPOSITORY / "tests")!r})
import pgrecall
from llama_index.vector_stores import pgrecall as adapter
from support.readme import run_python
from pathlib import Path
print(adapter.__file__, pgrecall.__file__)
namespace = {{}}
try:
    run_python(Path({str(ADAPTER / "README.md")!r}), namespace)
finally:
    if "vector_store" in namespace:
        namespace["vector_store"].close()
"""


def test_the_hub_lists_every_class():
    """LlamaHub reads the class names and the module from pyproject.toml; the namespace packages have no __init__.py."""
    hub = tomllib.loads((ADAPTER / "pyproject.toml").read_text())["tool"]["llamahub"]
    assert hub["import_path"] == "llama_index.vector_stores.pgrecall"
    assert set(hub["class_authors"]) == {
        "PGRecallVectorStore", "PGRecallDocumentStore", "PGRecallChatStore", "PGRecallBufferChatStore",
        "PGRecallFactBlock",
    }  # fmt: skip
    packages = {path.parent for path in (ADAPTER / "llama_index").rglob("__init__.py")}
    assert {path.name for path in packages} == {"pgrecall"} and len(packages) == 4


def test_the_adapter_knows_the_core_by_its_public_modules():
    """`pgrecall` itself, and what is documented for adapters; no SQL is in it."""
    for path in (ADAPTER / "llama_index").rglob("*.py"):
        text = path.read_text()
        modules = set(re.findall(r"^(?:from|import) (pgrecall[.\w]*)", text, re.MULTILINE))
        assert modules <= {"pgrecall", *(f"pgrecall.{name}" for name in ("filters", "messages", "providers", "steps"))}
        assert not re.search(r"\b(SELECT|INSERT INTO|DELETE FROM|UPDATE) ", text), path


@pytest.mark.slow("installs two wheels")
def test_the_two_wheels_are_enough_for_every_snippet_of_the_readme(wheel, built_wheel, tmp_path, reachable):
    """What is installed is what runs, and the adapter's wheel holds its modules, the type markers and nothing else."""
    wheels = [wheel, built_wheel(ADAPTER)]
    with zipfile.ZipFile(wheels[1]) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = archive.read(next(n for n in archive.namelist() if n.endswith("/METADATA"))).decode()
    found = [path for kind in ("*.py", "py.typed") for path in (ADAPTER / "llama_index").rglob(kind)]
    assert inside == {str(path.relative_to(ADAPTER)) for path in found}
    assert sum(name.endswith("py.typed") for name in inside) == 4
    assert "Requires-Dist: llama-index-core<0.15,>=0.14.24" in metadata
    place = tmp_path / "venv"
    venv.create(place, with_pip=False)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin/python"), "--disable-pip-version-check"]
    asked = ["--constraint", str(REPOSITORY / "constraints.txt"), f"{wheels[0]}[embedded]", str(wheels[1])]
    done = subprocess.run([*pip, "install", "--quiet", "--no-compile", *asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    given = {"PATH": os.environ["PATH"], "PGRECALL_HOME": str(reachable / "llamaindex-wheels")}
    command = [str(place / "bin/python"), "-c", RUN_README]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=given)
    assert ran.returncode == 0, ran.stderr
    for path in ran.stdout.split():
        assert Path(path).is_relative_to(place)
