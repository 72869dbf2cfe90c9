"""Numbers in docstrings, compared with what the code does."""

from __future__ import annotations

import inspect
import re

import pytest

from pgrecall import PostgresVectorStore
from pgrecall.operations.search.routes import MOST_EF_SEARCH, NOWHERE
from pgrecall.operations.search.shapes import DEPTH


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


@pytest.mark.parametrize("name", ["query", "query_mmr", "aquery", "aquery_mmr"])
def test_every_argument_of_a_search_is_documented_once(name):
    """The section Args names the parameters, in their order."""
    method = getattr(PostgresVectorStore, name)
    section = inspect.getdoc(method).partition("Args:\n")[2].partition("\n\n")[0]
    taken = [parameter for parameter in inspect.signature(method).parameters if parameter != "self"]
    assert re.findall(r"^    (\w+):", section, re.M) == taken


def test_the_documented_depth_of_a_hybrid_search_is_the_default():
    """`fetch_k` names the least number of chunks that a leg contributes."""
    assert f"at least {DEPTH}" in _argument("query", "fetch_k")
