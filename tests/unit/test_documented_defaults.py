"""Numbers in docstrings, compared with what the code does."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module

import pytest

import langchain_pgrecall
import pgrecall.evaluation
import pgrecall.testing
from pgrecall import PostgresVectorStore
from pgrecall.operations.search.routes import MOST_EF_SEARCH, NOWHERE
from pgrecall.operations.search.shapes import DEPTH

LLAMA = ("vector_stores", "storage.docstore", "storage.chat_store", "memory")


def _argument(method: str, name: str) -> str:
    """What a method's docstring says of an argument, on one line."""
    found = re.search(
        rf"^\s+{name}: (.*?)(?=^\s+\w+: |\n\n)", getattr(PostgresVectorStore, method).__doc__, re.M | re.S
    )
    assert found is not None
    return " ".join(found[1].split())


def test_the_documented_default_of_ef_search_is_what_searches_use():
    """1% of the counted rows within two bounds, doubled by a filter; a stored value comes first."""
    said = _argument("query", "ef_search")
    share, least, most = map(int, re.findall(r"(\d+)% .* at least (\d+) and at most (\d+)", said)[0])
    for rows, expected in ((0, least), (50_000, 50_000 * share // 100), (10_000_000, most)):
        route = NOWHERE._replace(noted=rows)
        assert route.breadth(filtered=False) == expected
        assert route.breadth(filtered=True) == min(2 * expected, MOST_EF_SEARCH)
    assert NOWHERE._replace(noted=50_000, ef_search=40).breadth(filtered=False) == 40
    assert f"from 1 to {MOST_EF_SEARCH:,}" in said


def _public():
    """Every function and method that the package, its evaluation and both adapters offer."""
    modules = [pgrecall, pgrecall.testing, pgrecall.evaluation, langchain_pgrecall]
    modules += [import_module(f"llama_index.{name}.pgrecall") for name in LLAMA]
    for module in modules:
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.isclass(found):
                own = [n for n in vars(found) if not n.startswith("_")] if module in modules[3:] else dir(found)
                members = [(f"{name}.{n}", getattr(found, n)) for n in own if not n.startswith("_")]
                yield from ((f"{module.__name__}.{n}", m) for n, m in members if _ours(m))
            elif inspect.isfunction(found):
                yield f"{module.__name__}.{name}", found


def _ours(member):
    made_here = ("pgrecall", "langchain_pgrecall", "llama_index")
    module = getattr(member, "__module__", None) or ""
    return (
        inspect.isroutine(member)
        and module.startswith(made_here)
        and (not module.startswith("llama_index") or ".pgrecall." in module)
        and not hasattr(member, "__deprecated__")
    )


def _parameters(function):
    return {n: p for n, p in inspect.signature(function).parameters.items() if n not in ("self", "cls")}


LONG = {name: function for name, function in _public() if len(_parameters(function)) >= 5}


def _documented(name):
    """The arguments that a docstring documents, or that of the method which it refers to, with their texts."""
    doc = inspect.getdoc(LONG[name]) or ""
    if "Args:" not in doc:
        if twin := re.match(r"As `(\w+)`", doc):
            return _documented(f"{name.rpartition('.')[0]}.{twin[1]}")
        if other := re.search(r"arguments are those of\s+`([\w.]+)`", doc):
            documented = _documented(f"pgrecall.{other[1]}")
            return {argument: documented[argument] for argument in _parameters(LONG[name]) if argument in documented}
    section = doc.partition("Args:\n")[2].partition("\n\n")[0]
    return dict(re.findall(r"^    \*{0,2}(\w+):((?:.|\n(?!    [\w*]))*)", section, re.M))


@pytest.mark.parametrize("name", sorted(LONG))
def test_a_method_of_five_parameters_documents_each_with_its_default(name):
    """Args names every parameter in order; a default that it states as a value is the signature's."""
    documented, parameters = _documented(name), _parameters(LONG[name])
    assert list(documented) == list(parameters)
    for argument, text in documented.items():
        stated = re.search(r"[Bb]y default (True|False|[\d,.]+\d|\d|\"\w+\")(?=[.,;)]|$)", " ".join(text.split()))
        default = parameters[argument].default
        if stated and not (default is None or default is inspect.Parameter.empty):
            assert ast.literal_eval(stated[1].replace(",", "")) == default, argument


def test_the_documented_depth_of_a_hybrid_search_is_the_default():
    """`fetch_k` names the least number of chunks that a leg contributes."""
    assert f"at least {DEPTH}" in _argument("query", "fetch_k")
