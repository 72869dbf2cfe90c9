"""The notebooks run from a clean clone, and what is committed of them is what they made."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tokenizers", reason="the demo group is not installed")
jupytext = pytest.importorskip("jupytext", reason="the dev group is not installed")

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = sorted((REPOSITORY / "notebooks").glob("0*.py"))
NAMES = [script.stem for script in SCRIPTS]


def outputs(notebook):
    return [out for cell in notebook["cells"] if cell["cell_type"] == "code" for out in cell["outputs"]]


def test_there_are_four():
    """One for each question that docs/evaluation.md names."""
    assert [name[:2] for name in NAMES] == ["01", "02", "03", "04"]


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_is_its_script_s(name):
    """Cell by cell, executed in order, with its plots, without errors, machine paths or texts of others."""
    path = REPOSITORY / "notebooks" / f"{name}.ipynb"
    notebook = json.loads(path.read_text("utf-8"))
    script = jupytext.read(path.with_suffix(".py"))
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert cells == [(cell.cell_type, cell.source) for cell in script.cells], "run: make notebooks"
    counts = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    made = outputs(notebook)
    assert {out["output_type"] for out in made} <= {"stream", "display_data", "execute_result"}
    assert sum("image/png" in out.get("data", {}) for out in made) >= 2
    printed = json.dumps([out for out in made if "image/png" not in out.get("data", {})])
    assert not re.search(r"site-packages|Traceback|Warning|/(home|root|tmp|usr|work)/", printed)
    assert re.search(r"(SQuAD|squad|standard library|stdlib known items).*questions", printed), "it says which data"
    shared = Path(os.environ.get("PGRECALL_EVAL_DATA", "nowhere")) / "squad" / "contexts.jsonl"
    if shared.is_file():
        texts = [json.loads(line)["text"] for line in shared.read_text("utf-8").splitlines()]
        assert not [text for text in texts if text[:50] in printed]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """What the notebooks need of a fresh clone: no cache, no outputs."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "notebooks").mkdir()
    for file in (*SCRIPTS, REPOSITORY / "notebooks" / "evaldata.py"):
        shutil.copy(file, folder / "notebooks")
    shutil.copytree(REPOSITORY / "examples" / "quickstart", folder / "examples" / "quickstart")
    return folder / "notebooks"


@pytest.fixture(scope="module")
def environment(server, _databases):
    """A database for the four, so that none waits for a server; few questions, of no folder of anybody's."""
    if server.version != 18:
        pytest.skip("notebooks are run on one major: what they show is evaluation, which is tested on both")
    url = _databases(migrated=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PGRECALL_")}
    names = ("PGRECALL_URL", "PGRECALL_ADMIN_URL", "PGRECALL_MAINTENANCE_URL")
    urls = dict.fromkeys(names, url.render_as_string(hide_password=False))
    return kept | urls | {"PGRECALL_NOTEBOOK_QUERIES": "20"}


@pytest.mark.slow("a kernel runs the whole notebook")
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_from_a_clean_clone(name, clone, environment):
    """As `make notebooks` runs it, with few questions and the standard library's documentation."""
    pytest.importorskip("ragas", reason="the eval extra is not installed")
    bin_ = Path(sys.executable).parent
    for command in (
        [bin_ / "jupytext", "--quiet", "--to", "ipynb", f"{name}.py"],
        [bin_ / "jupyter-nbconvert", "--to", "notebook", "--execute", "--inplace", f"{name}.ipynb"],
    ):
        done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    made = outputs(json.loads((clone / f"{name}.ipynb").read_text("utf-8")))
    assert sum("image/png" in out.get("data", {}) for out in made) >= 2
    printed = "".join("".join(out.get("text", "")) for out in made)
    assert "known items" in printed
