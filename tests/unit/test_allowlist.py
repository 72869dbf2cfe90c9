"""The linter's contract for the adapters: which modules of the core they may import."""

from __future__ import annotations

import tomllib
from pathlib import Path

import grimp
import pytest

from support.allowlist import Allowlist

ROOT = Path(__file__).resolve().parents[2]
LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
OPTIONS = next(found for found in LINTER["contracts"] if found["type"] == "allowlist")


def _check(imports: dict[str, str]) -> list[str]:
    graph = grimp.ImportGraph()
    for module in [*OPTIONS["source_packages"], *OPTIONS["allowed_modules"]]:
        graph.add_module(module)
    for line, (importer, imported) in enumerate(imports.items(), 1):
        graph.add_import(importer=importer, imported=imported, line_number=line, line_contents=f"import {imported}")
    contract = Allowlist("adapters", session_options={}, contract_options=OPTIONS)
    check = contract.check(graph, verbose=False)
    found: list[str] = check.metadata["found"]
    assert check.kept == (not found)
    return found


@pytest.mark.parametrize("package", OPTIONS["source_packages"])
def test_a_new_import_of_a_private_module_is_reported_in_every_adapter(package):
    """The contract names the importing module, the imported one and the line, at the package and below it."""
    assert _check({package: "pgrecall.steps", f"{package}.new": "pgrecall.stores.chat"}) == [
        f"{package}.new imports pgrecall.stores.chat (line 2)"
    ]
    assert _check({package: "pgrecall.hits"}) == [f"{package} imports pgrecall.hits (line 1)"]


def test_a_module_below_an_allowed_one_is_reported():
    """`pgrecall.filters` is public; its own modules are not."""
    assert _check({"langchain_pgrecall.filters": "pgrecall.filters.keys"}) == [
        "langchain_pgrecall.filters imports pgrecall.filters.keys (line 1)"
    ]


def test_imports_outside_the_core_and_imports_by_others_are_not_reported():
    """The contract is about the adapters' direct imports of the core."""
    assert _check({"langchain_pgrecall.chat": "langchain_core", "pgrecall": "pgrecall.stores"}) == []


def test_the_contract_covers_every_package_of_the_adapters():
    """A package that is added to an adapter must be named in the contract, and among the linter's root packages."""
    adapters = {
        ".".join(path.parent.relative_to(base).parts)
        for base in (ROOT / "integrations/langchain/src", ROOT / "integrations/llamaindex")
        for path in base.rglob("__init__.py")
    }
    assert adapters == set(OPTIONS["source_packages"])
    assert {"pgrecall", *adapters} == set(LINTER["root_packages"])


def test_no_adapter_imports_its_own_modules_in_a_circle():
    """Every module of an adapter can be imported first."""
    graph = grimp.build_graph(*OPTIONS["source_packages"])
    assert [
        (first, second)
        for first in graph.modules
        for second in graph.find_modules_directly_imported_by(first)
        if graph.chain_exists(importer=second, imported=first)
    ] == []
