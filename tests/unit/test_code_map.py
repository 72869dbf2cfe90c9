"""The map of the code in CONTRIBUTING.md names files and symbols that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    (re.findall(r"`([\w/]+\.py)`", files), re.findall(r"`([\w.]+)`", names))
    for files, names in re.findall(
        r"^\| [^|]+\? \| ([^|]+) \| ([^|]+) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
]


def _symbols(tree: ast.AST, prefix: str = "") -> set[str]:
    """Functions, classes with their methods, and constants of a module, by qualified name."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found |= {prefix + node.name} | _symbols(node, f"{prefix}{node.name}.")
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        found |= {prefix + target.id for target in targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize(("files", "names"), ROWS, ids=[" ".join(files) for files, _ in ROWS])
def test_each_name_of_the_map_is_defined_in_its_file(files, names):
    """A row's names are defined in the row's files."""
    defined: set[str] = set()
    for file in files:
        defined |= _symbols(ast.parse((ROOT / "src" / "pgrecall" / file).read_text()))
    assert files and names and set(names) <= defined


def test_the_map_answers_sixteen_questions():
    """The table is found, and is as long as it was meant to be."""
    assert len(ROWS) >= 16
