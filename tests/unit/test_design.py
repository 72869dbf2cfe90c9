"""The design document names modules that exist, and the layers that the linter enforces."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DESIGN = (ROOT / "docs" / "design.md").read_text()
CORE = ROOT / "src" / "pgrecall"


def test_paths_in_the_design_document_exist():
    """Every file that the design document names by its path is in the repository."""
    paths = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+(?:\.py)?)`", DESIGN))
    assert len(paths) > 20
    missing = [path for path in sorted(paths) if not (CORE / path).exists() and not (ROOT / path).exists()]
    assert missing == []


def test_the_design_document_lists_the_layers_of_the_linter():
    """The layers in the design document are those in pyproject.toml, in the same order."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    enforced = [sorted(re.findall(r"pgrecall\.(\w+)", layer)) for layer in reversed(layers)]
    [block] = re.findall(r"^```\n(errors, .+?)^```$", DESIGN, re.MULTILINE | re.DOTALL)
    assert [sorted(layer.split(", ")) for layer in re.split(r"\s*←\s*", block.strip())] == enforced


def test_no_two_classes_of_the_core_have_the_same_name():
    """A class's name is enough to find it, public or private."""
    found: dict[str, list[str]] = {}
    for path in sorted(CORE.rglob("*.py")):
        for name in re.findall(r"^class (\w+)", path.read_text(), re.MULTILINE):
            found.setdefault(name, []).append(str(path.relative_to(CORE)))
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


def test_the_design_document_names_every_module_of_operations():
    """The table of the rooms of `operations` has each of their modules, and no other."""
    table = DESIGN[DESIGN.index("The rooms of `operations`") :].split("\n\n")[1]
    rows = dict(re.findall(r"^\| (`\w+`|other modules) \| (.+) \|$", table, re.MULTILINE))
    operations = CORE / "operations"
    for room, text in rows.items():
        folder = operations if room == "other modules" else operations / room.strip("`")
        modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
        assert set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", text))) == modules, room
    assert len(rows) == 1 + len([path for path in operations.iterdir() if (path / "__init__.py").exists()])
