"""LlamaIndex's filters mean here what `build_metadata_filter_fn` in llama_index.core says; the differences are listed.

Listed: a bool is not a number, strings order by code point (as Python's do), numbers compare as the decimals they print
as, letters beyond ASCII fold as the database's `lower()` does, a row that the function raises for does not match, and
a list with NaN or infinity in it can't be ordered by.
"""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.utils import build_metadata_filter_fn
from llama_index.vector_stores.pgrecall.filters import to_filter
from sqlalchemy import column, select, table
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.psycopg import dialect

from pgrecall import FilterError
from pgrecall.filters import And, compile_filter
from pgrecall.jsonable import dumps
from support.filter_data import KEYS, MISSING, POOLS, related_values

ROWS = table("llama_rows", column("id"), column("metadata", postgresql.JSONB))
FILTERS_PER_CELL, ROWS_PER_FILTER = 25, 24
TEXTS = [text for text in POOLS["str"] if text.isascii() or text.lower() == text]
#: As a filter's value may be typed. Numbers are those that Python and JSON compare alike.
VALUES = {
    "str": TEXTS,
    "int": [0, 1, -1, 2, 10, 9, -10, 255, 2**31, 2**53, 2**64],
    "float": [0.0, 1.0, -1.0, 0.1, 2.5, -2.5, 10.0, 1e16, 5e-324, float("inf"), float("-inf"), float("nan")],
    "none": [None],
    "list of str": [[], ["de"], ["de", "en"], ["", "x"], ["a", "b", "a"], ["Z", "z"], ["a:b"], ["it's", '"']],
    "list of int": [[], [1], [1, 2], [2, 1], [0], [1, 2, 2], [2**53]],
    "list of float": [[], [1.0], [0.5, 1.0], [-2.5], [1.0, 2.0], [float("nan"), 1.0]],
}
ORDER = (FilterOperator.GT, FilterOperator.GTE, FilterOperator.LT, FilterOperator.LTE)
CELLS = [(operator, kind) for operator in FilterOperator for kind in VALUES]


def pick(rng, operator, kind):
    """A value for a filter; one that can be ordered by where it must."""
    return rng.choice(
        [v for v in VALUES[kind] if operator not in ORDER or not isinstance(v, list) or all(n == n for n in v)]
    )


class Truth:
    """True or false, which to us is no number: equal to itself only, without order or content."""

    def __init__(self, value: bool) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Truth) and other.value == self.value

    def __hash__(self) -> int:
        return hash(self.value)


def as_seen(value):
    if isinstance(value, bool):
        return Truth(value)
    if isinstance(value, list):
        return [as_seen(item) for item in value]
    return {key: as_seen(item) for key, item in value.items()} if isinstance(value, dict) else value


def reference(filters: MetadataFilters, metadata: dict) -> bool:
    """What LlamaIndex says; where it raises, no. Nested filters, which it refuses, are its own rules again."""
    try:
        return _reference(filters, as_seen(metadata))
    except (TypeError, ValueError):
        return False


def _reference(filters: MetadataFilters, metadata: dict) -> bool:
    nested = [child for child in filters.filters if isinstance(child, MetadataFilters)]
    if not nested:
        return build_metadata_filter_fn(lambda _: metadata, filters)("")
    found = [
        _reference(child if isinstance(child, MetadataFilters) else MetadataFilters(filters=[child]), metadata)
        for child in filters.filters
    ]
    return {FilterCondition.OR: any(found), FilterCondition.NOT: not any(found)}.get(filters.condition, all(found))


@pytest.fixture
def rows(admin_connection):
    admin_connection.execute("DROP TABLE IF EXISTS llama_rows")
    admin_connection.execute("CREATE TEMP TABLE llama_rows (id int, metadata jsonb NOT NULL)")
    return admin_connection


def load(connection, metadata):
    connection.execute(
        "INSERT INTO llama_rows SELECT n - 1, m::jsonb FROM unnest(%s::text[]) WITH ORDINALITY AS _ (m, n)",
        [[dumps(value, "metadata") for value in metadata]],
    )


def selected(connection, filters):
    tree = to_filter(filters)
    condition, params = compile_filter(And() if tree is None else tree, ROWS.c.metadata)
    text = str(select(ROWS.c.id).where(condition).compile(dialect=dialect()))
    return {row for (row,) in connection.execute(text, params, prepare=False)}


def related(rng, value):
    """Row values that a filter's value may have to do with."""
    if isinstance(value, float) and not -1e300 < value < 1e300:
        value = 0.0
    if isinstance(value, list):
        value = [item for item in value if item == item]
    made = related_values(rng, value, "int")
    pairs = [[*value, 5], value[:-1], [*value[:-1], 7], [*value[:-1], "m"], [value]] if isinstance(value, list) else []
    inside = [value[1:], value[:1], value[len(value) // 2 :], {value: 1}, [[value]]] if isinstance(value, str) else []
    return json.loads(json.dumps([item for item in [*made, *pairs, *inside] if _plain(item)]))


def _plain(value) -> bool:
    """Neither a number that JSON and Python compare differently, nor a letter whose case the database may not know."""
    text = json.dumps(value, ensure_ascii=False)
    odd = ("e+", "Infinity", "NaN", "E+")
    return not any(mark in text for mark in odd) and (text.isascii() or text.lower() == text) and len(text) < 500


MIXED = [value for value in POOLS["mixed"] if _plain(value)]


@pytest.mark.parametrize(("operator", "kind"), CELLS, ids=lambda value: getattr(value, "value", value))
def test_an_operator_matches_what_it_matches_in_llama_index(rows, operator, kind):
    """600 pairs of a filter and a row for each operator and type of value; keys are hostile, none is split at dots."""
    rng = random.Random(f"{operator} {kind}")
    metadata = [{} for _ in range(ROWS_PER_FILTER)]
    filters = []
    for key in rng.sample(KEYS, FILTERS_PER_CELL):
        value = pick(rng, operator, kind)
        condition = rng.choice([FilterCondition.AND, FilterCondition.NOT, None])
        leaf = MetadataFilter(key=key, value=value, operator=operator)
        tree = MetadataFilters(filters=[leaf], condition=condition)
        pool = [MISSING, None, *related(rng, value), *rng.choices(MIXED, k=30)]
        sides = {True: [], False: []}
        for found in pool:
            sides[reference(tree, {} if found is MISSING else {key: found})].append(found)
        for at, row in enumerate(metadata):
            found = rng.choice(sides[at % 2 == 0] or sides[at % 2 != 0])
            if found is not MISSING:
                row[key] = found
        filters.append(tree)
    load(rows, metadata)
    for tree in filters:
        assert selected(rows, tree) == {at for at, row in enumerate(metadata) if reference(tree, row)}, tree
    assert len(filters) * len(metadata) >= 500


FEW = ["a", "b.c", "it's"]
LEAVES = st.builds(
    lambda cell, key, seed: MetadataFilter(key=key, value=pick(random.Random(seed), *cell), operator=cell[0]),
    st.sampled_from(CELLS),
    st.sampled_from(FEW),
    st.integers(0, 2**32),
)
CONDITIONS = st.sampled_from([*FilterCondition, None])


def trees(children):
    return st.builds(
        lambda filters, condition: MetadataFilters(filters=filters, condition=condition),
        st.lists(children, max_size=4),
        CONDITIONS,
    )


@pytest.fixture
def few_rows(rows):
    rng = random.Random(1)
    texts, numbers = VALUES["str"][:8], [0, 1, 2.5, 10]
    pool = [*texts, *numbers, None, True, [], ["de", "en"], [1, 2], {"de": 1}, [[1]], *MIXED]
    metadata = [{key: rng.choice(pool) for key in FEW if rng.random() < 0.8} for _ in range(120)]
    load(rows, metadata)
    return rows, metadata


CHECKED = {"deadline": None, "derandomize": True, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=500, **CHECKED)
@given(tree=trees(LEAVES))
def test_conditions_combine_as_in_llama_index(few_rows, tree):
    """AND, OR, NOT and None over several filters; a row that one of them can't be asked of does not match."""
    connection, metadata = few_rows
    assert selected(connection, tree) == {at for at, row in enumerate(metadata) if reference(tree, row)}


@settings(max_examples=300, **CHECKED)
@given(tree=st.recursive(trees(LEAVES), lambda children: trees(st.one_of(LEAVES, children)), max_leaves=10))
def test_nested_filters_combine_by_the_same_rules(few_rows, tree):
    """LlamaIndex's own function refuses nested filters; here they mean what their parts mean, combined."""
    connection, metadata = few_rows
    assert selected(connection, tree) == {at for at, row in enumerate(metadata) if reference(tree, row)}


def test_the_reference_can_tell_a_difference(few_rows):
    """The comparison above is not of two empty sets: a filter and its opposite share no row, and both find some."""
    connection, metadata = few_rows
    leaf = MetadataFilter(key="a", value="de", operator=FilterOperator.CONTAINS)
    found = selected(connection, MetadataFilters(filters=[leaf]))
    others = selected(connection, MetadataFilters(filters=[leaf], condition=FilterCondition.NOT))
    refused = set(range(len(metadata))) - found - others
    assert found and others and refused and not found & others


@pytest.mark.parametrize("what", ["operator", "condition"])
def test_what_is_unknown_is_an_error(what):
    """An operator or condition that a later LlamaIndex may bring is refused, never ignored."""
    leaf = MetadataFilter(key="a", value=1)
    if what == "operator":
        tree = MetadataFilters(filters=[MetadataFilter.model_construct(key="a", value=1, operator="near")])
    else:
        tree = MetadataFilters.model_construct(filters=[leaf], condition="xor")
    with pytest.raises(FilterError, match=f"unknown .*{what}|{what}.*unknown"):
        to_filter(tree)


def test_no_filters_are_no_filter():
    """An empty list matches everything, whatever its condition, as in LlamaIndex."""
    for condition in (*FilterCondition, None):
        assert to_filter(MetadataFilters(filters=[], condition=condition)) is None
    assert to_filter(None) is None


def test_large_lists_are_one_part_of_a_filter():
    """Lists of thousands of values are taken by every operator that takes a list."""
    for operator in (FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL):
        leaf = MetadataFilter(key="a", value=[f"group {n}" for n in range(5_000)], operator=operator)
        assert to_filter(MetadataFilters(filters=[leaf, leaf], condition=FilterCondition.OR)) is not None
