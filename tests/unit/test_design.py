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
