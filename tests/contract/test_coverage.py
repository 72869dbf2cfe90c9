"""The contract calls every verb of the protocols, with each of its arguments."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from pgrecall import MemoryStore, RunStore, VectorStore
from pgrecall.testing import contract
from pgrecall.testing.contract.base import parameters, verbs

PLACE = Path(inspect.getfile(contract)).parent
MODULES = {VectorStore: ("reads", "words", "writes"), MemoryStore: ("memory",), RunStore: ("runs",)}


def called(module: str) -> list[ast.Call]:
    tree = ast.parse((PLACE / f"{module}.py").read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]


@pytest.mark.parametrize("protocol", MODULES)
def test_the_contract_calls_every_verb_with_exactly_the_protocols_arguments(protocol):
    """A new verb or argument of a protocol needs a case in its contract, and the contract passes no others."""
    calls = [call for module in MODULES[protocol] for call in called(module)]
    missing, unknown = [], []
    for verb in verbs(protocol):
        if f"a{verb}" not in verbs(protocol):  # the twins are called in place of the verbs, in asynchronous mode
            continue
        names = list(parameters(getattr(protocol, verb)))[1:]
        of_verb = [call for call in calls if call.func.attr == verb]
        given = {keyword.arg for call in of_verb for keyword in call.keywords}
        given |= {name for call in of_verb for name in names[: len(call.args)]}
        unknown += [f"{verb}({name}=)" for name in given - {None, *names}]
        missing += [verb] if not of_verb else [f"{verb}({name}=)" for name in names if name not in given]
    assert (missing, unknown) == ([], [])
