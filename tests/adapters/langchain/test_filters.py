"""The peers' filter dialect and structured queries become the core's tree, or an error; nothing is ignored."""

from __future__ import annotations

import pytest
from langchain_core.structured_query import Comparator, Comparison, Operation, Operator, StructuredQuery

from langchain_pgrecall import PGRecallTranslator
from langchain_pgrecall.filters import to_filter
from pgrecall import And, Compare, F, FilterError, Not, Or


@pytest.mark.parametrize(
    ("dialect", "tree"),
    [
        ({"lang": "en"}, F.lang == "en"),
        ({"lang": None}, F.lang == None),  # noqa: E711 a comparison with JSON's null
        ({"tags": ["a", "b"]}, F.tags == ["a", "b"]),
        ({"lang": {"$eq": {"a": 1}}}, F.lang == {"a": 1}),
        ({"year": {"$gte": 2020, "$lt": 2024}}, (F.year >= 2020) & (F.year < 2024)),
        ({"year": {"$ne": 1}, "lang": "en"}, (F.year != 1) & (F.lang == "en")),
        ({"a": {"$gt": 1.5}}, F.a > 1.5),
        ({"a": {"$lte": "m"}}, F.a <= "m"),
        ({"a": {"$in": []}}, F.a.in_([])),
        ({"a": {"$in": [1, True, None]}}, F.a.in_([1, True, None])),
        ({"a": {"$nin": ["x"]}}, F.a.nin(["x"])),
        ({"a": {"$between": (1, 2)}}, F.a.between(1, 2)),
        ({"a": {"$exists": False}}, F.a.exists(False)),
        ({"a": {"$like": "%x_"}}, F.a.like("%x_")),
        ({"a": {"$ilike": "X%"}}, F.a.ilike("X%")),
        ({"tags": {"$contains": "x"}}, F.tags.contains("x")),
        ({"tags": {"$contains": ["x", "y"]}}, F.tags.all(["x", "y"])),
        ({"$and": [{"a": 1}, {"b": 2}]}, (F.a == 1) & (F.b == 2)),
        ({"$or": [{"a": 1}, {"$and": [{"b": 2}, {"c": 3}]}]}, Or(F.a == 1, And(F.b == 2, F.c == 3))),
        ({"$OR": [{"a": 1}, {"b": 2}]}, (F.a == 1) | (F.b == 2)),
        ({"$not": {"a": 1}}, And(Not(F.a == 1))),
        ({"$not": [{"a": 1}, {"b": 2}]}, And(Not(F.a == 1), Not(F.b == 2))),
        ({"a": 1, "$or": [{"b": 2}]}, And(F.a == 1, Or(F.b == 2))),
        ({"outer.inner": 1}, F["outer", "inner"] == 1),
        ({"file\\.name": 1}, F["file.name"] == 1),
        ({"a\\.b.c d": 1}, F["a.b", "c d"] == 1),
        ({"id": "x", "text": "y", "content": "z"}, And(F.id == "x", F.text == "y", F.content == "z")),
        ({}, And()),
    ],
)
def test_the_dialect_becomes_the_tree(dialect, tree):
    """Operators, several on one field, logic, paths, any key."""
    assert to_filter(dialect) == tree


def test_a_tree_of_the_core_is_taken_as_it_is():
    """A filter such as F.lang == "en" is accepted as well as the dialect."""
    tree = (F.lang == "en") & ~F.old.exists()
    assert to_filter(tree) is tree and to_filter(None) is None
    assert to_filter({"$or": [{"a": 1}, tree]}) == Or(F.a == 1, tree)


@pytest.mark.parametrize(
    ("dialect", "says"),
    [
        ("lang = 'en'", "filter is str"),
        ([{"a": 1}], "filter is list"),
        ({"a": {"$regex": "x"}}, r"filter on 'a': unknown operator '\$regex'; expected one of \$eq"),
        ({"a": {"gte": 1}}, "unknown operator 'gte'"),
        ({"a": {}}, "found an empty object"),
        ({"$nor": [{"a": 1}]}, r"unknown operator '\$nor'; expected a field name or one of \$and, \$or, \$not"),
        ({"$and": {"a": 1}}, r"filter on \$and: found {'a': 1}; expected a list"),
        ({"$or": []}, r"filter on \$or: found \[\]"),
        ({"$and": [{}]}, "expected a filter such as"),
        ({"$not": 1}, r"filter on \$not: found 1"),
        ({"$and": ["x"]}, "found 'x'; expected a filter"),
        ({1: 2}, "found the key 1 of type int"),
        ({"a": {"$in": "abc"}}, "expected a list"),
        ({"a": {"$between": [1]}}, "expected the lowest and the highest"),
        ({"a": {"$between": [1, "b"]}}, "found a number and a string"),
        ({"a": {"$gt": True}}, "expected a number or a string"),
        ({"a": {"$exists": "yes"}}, "expected True or False"),
        ({"a": {"$like": 3}}, "expected a string"),
        ({"a": float("nan")}, "finite"),
        ({"a": object()}, "expected a JSON value"),
        ({"a\0": 1}, "NUL"),
        ({".".join("a" * 40): 1}, "keys in a path"),
    ],
)
def test_what_is_not_of_the_dialect_is_an_error(dialect, says):
    """No unknown operator is ignored or guessed; the message names the field."""
    with pytest.raises(FilterError, match=says):
        to_filter(dialect)


def test_a_filter_that_nests_too_deep_is_an_error():
    """Hostile input ends in an error of ours, not in Python's recursion limit."""
    deep: dict[str, object] = {"a": 1}
    for _ in range(40):
        deep = {"$not": deep}
    with pytest.raises(FilterError, match=r"levels of nesting|nested deeper than 32"):
        to_filter(deep)
    for _ in range(100_000):
        deep = {"$not": deep}
    with pytest.raises(FilterError, match=r"levels of nesting|nested deeper than 32"):
        to_filter(deep)


def test_structured_queries_become_filters_of_the_dialect():
    """All comparators and operators of langchain_core; dates by their text."""
    made = {
        comparator: to_filter(
            Comparison(comparator, "f", [1] if comparator.value in ("in", "nin") else "v").accept(PGRecallTranslator())
        )
        for comparator in Comparator
    }
    assert [made[c].op for c in Comparator] == ["eq", "ne", "gt", "gte", "lt", "lte", "contains", "like", "in", "nin"]
    date = {"date": "2024-05-01", "type": "date"}
    operation = Operation(
        Operator.AND,
        [Comparison(Comparator.GTE, "on", date), Operation(Operator.NOT, [Comparison(Comparator.EQ, "a.b", 1)])],
    )
    text, keywords = PGRecallTranslator().visit_structured_query(StructuredQuery("holidays", operation))
    assert text == "holidays"
    assert to_filter(keywords["filter"]) == And(F.on >= "2024-05-01", And(Not(Compare(("a", "b"), "eq", 1))))
    assert PGRecallTranslator().visit_structured_query(StructuredQuery("all", None)) == ("all", {})
