"""The filter tree and its expression API: what can be written, and what is refused with which help."""

import copy
import math
import pickle

import pytest
from sqlalchemy import column, select, table
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.psycopg import dialect

from pgrecall.errors import FilterError
from pgrecall.filters import OPERATORS, And, Compare, F, Not, Or, bind_values, compile_filter, shape
from pgrecall.testing.filters import matches

CHUNKS = table("chunks", column("id"), column("metadata", JSONB))


def text_of(tree, **options):
    expression, _ = compile_filter(tree, CHUNKS.c.metadata, **options)
    return str(select(CHUNKS.c.id).where(expression).compile(dialect=dialect()))


@pytest.mark.parametrize(
    ("written", "tree"),
    [
        (F.lang == "de", Compare(("lang",), "eq", "de")),
        (F["any key"] != 3, Compare(("any key",), "ne", 3)),
        (F["a", "b"] > 5, Compare(("a", "b"), "gt", 5)),
        (F["a.b"] >= 5, Compare(("a.b",), "gte", 5)),
        (F.a < "x", Compare(("a",), "lt", "x")),
        (F.a <= 1.5, Compare(("a",), "lte", 1.5)),
        (5 < F.a, Compare(("a",), "gt", 5)),  # noqa: SIM300
        (F.year.between(2020, 2024), Compare(("year",), "between", [2020, 2024])),
        (F.a.in_([1, "x", None]), Compare(("a",), "in", [1, "x", None])),
        (F.a.nin([1]), Compare(("a",), "nin", [1])),
        (F.a.contains(None), Compare(("a",), "contains", None)),
        (F.a.any([1]), Compare(("a",), "any", [1])),
        (F.a.all([1]), Compare(("a",), "all", [1])),
        (F.a.text_match("x"), Compare(("a",), "text_match", "x")),
        (F.a.text_match_i("x"), Compare(("a",), "text_match_i", "x")),
        (F.a.like("x%"), Compare(("a",), "like", "x%")),
        (F.a.ilike("x%"), Compare(("a",), "ilike", "x%")),
        (F.a.exists(), Compare(("a",), "exists", True)),
        (F.a.exists(False), Compare(("a",), "exists", False)),
        (F.a.is_empty(), Compare(("a",), "is_empty", True)),
        (F.a.is_empty(False), Compare(("a",), "is_empty", False)),
        (F.contains == 1, Compare(("contains",), "eq", 1)),
        (F["contains"].contains(1), Compare(("contains",), "contains", 1)),
        (F["__class__"] == 1, Compare(("__class__",), "eq", 1)),
        ((F.a == 1) & (F.b == 2) & (F.c == 3), And(F.a == 1, F.b == 2, F.c == 3)),
        ((F.a == 1) | (F.b == 2) & (F.c == 3), Or(F.a == 1, And(F.b == 2, F.c == 3))),
        (~(F.a == 1), Not(F.a == 1)),
    ],
)
def test_the_expression_api_writes_the_tree(written, tree):
    """Each expression is the tree that it stands for, and copies and pickles equal."""
    assert written == tree
    assert hash(written) == hash(tree)
    assert pickle.loads(pickle.dumps(written)) == copy.deepcopy(written) == tree


def test_filters_differ_by_the_type_of_their_values():
    """1, 1.0, True and a text make four filters, though Python holds three of them equal."""
    assert (F.a == 1) != Compare(("a",), "eq", True)
    assert len({F.a == 1, F.a == 1.0, F.a == True, F.a == "1"}) == 4  # noqa: E712


def test_every_operator_is_in_the_reference_and_the_compiler():
    """An operator that is added to the tree alone fails here."""
    operands = {"between": [1, 2], "exists": True, "is_empty": True}
    operands |= {op: ["x"] for op in ("in", "nin", "any", "all", "has_any", "has_all")}
    for op in OPERATORS:
        tree = Compare(("a",), op, operands.get(op, "x"))
        assert isinstance(matches(tree, {"a": "x"}), bool)
        assert "metadata" in text_of(tree)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: (F.a == 1) and (F.b == 2),
        lambda: (F.a == 1) or (F.b == 2),
        lambda: not (F.a > 1),
        lambda: 1 < F.a < 3,
        lambda: bool(And()),
    ],
)
def test_a_filter_has_no_truth(wrong):
    """`and`, `or`, `not` and chains, which would drop a condition silently, say what to write instead."""
    with pytest.raises(FilterError, match=r"& \| ~ instead of `and`, `or`, `not`.*chain"):
        wrong()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: (F.a == 1) & F.b,
        lambda: F.a == 1 & F.b,
        lambda: F.b | (F.a == 1),
        lambda: ~F.b,
        lambda: bool(F.b),
    ],
)
def test_a_field_alone_is_no_filter(wrong):
    """A forgotten comparison, or forgotten parentheses, is an error that names the field."""
    with pytest.raises(FilterError, match=r"the field \('b',\) is not a filter: .*parentheses"):
        wrong()


def test_a_nested_key_is_not_an_attribute():
    """F.a.b says how a nested key is written."""
    with pytest.raises(AttributeError, match=r'F\["a", "b"\]'):
        F.a.b  # noqa: B018
    with pytest.raises(TypeError):
        (F.a == 1) & 3


NESTED = [[]]
for _ in range(100_000):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("op", "value", "message"),
    [
        ("equals", 1, "unknown operator 'equals', expected one of eq, ne, gt"),
        ([], 1, "unknown operator"),
        ("eq", math.nan, "found the float nan, expected a finite number"),
        ("eq", -math.inf, "found the float -inf"),
        ("in", [1, math.inf], "value[1]: found the float inf"),
        ("eq", "x\0", "NUL character"),
        ("eq", {"a": ["\ud800"]}, "value['a'][0]: found a lone surrogate"),
        ("eq", {1: 2}, "the key 1 of type int"),
        ("eq", {1, 2}, "found set"),
        ("eq", object, "found type, expected a JSON value"),
        ("eq", 10**5_000, "an integer that is too large"),
        ("eq", NESTED, "nested deeper than 200 levels"),
        ("gt", NESTED, "expected a number or a string"),
        ("gt", True, "found bool True, expected a number or a string"),
        ("gte", None, "found None, expected a number or a string"),
        ("lt", [[1]], "found list [1]"),
        ("gte", [1, None], "found None, expected a number or a string"),
        ("gt", [0] * 101, "elements in a list: found 101, at most 100"),
        ("has_any", "abc", "found str 'abc', expected a list"),
        ("has_all", [[1]], "found list [1] as an element"),
        ("part_of", ["a"], "found list ['a'], expected a string"),
        ("lte", {}, "found dict {}"),
        ("gt", math.nan, "found the float nan"),
        ("between", [1, "x"], "found a number and a string"),
        ("between", [1], "found 1 elements"),
        ("between", 1, "found int 1, expected a list"),
        ("between", [1, False], "found bool False"),
        ("in", "abc", "found str 'abc', expected a list"),
        ("nin", {"a"}, "found set {'a'}, expected a list"),
        ("any", "abc", "expected a list"),
        ("all", None, "found None, expected a list"),
        ("any", [[1]], "found list [1] as an element"),
        ("all", [{}], "found dict {} as an element"),
        ("contains", [1], "found list [1] as an element"),
        ("contains", NESTED, "as an element"),
        ("text_match", 1, "found int 1, expected a string"),
        ("like", None, "found None, expected a string"),
        ("like", "a\\", "ends with a lone backslash"),
        ("ilike", "a\\\\\\", "ends with a lone backslash"),
        ("text_match", "\0", "NUL"),
        ("exists", 1, "found int 1, expected True or False"),
        ("is_empty", None, "found None, expected True or False"),
        ("in", list(range(10_001)), "found 10,001, at most 10,000"),
        ("eq", "x" * 1_000_000, "found 1,000,002, at most 1,000,000"),
        ("in", ["é" * 300_000, "é" * 300_000], "found 1,200,004, at most 1,000,000"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 50 else "",
)
def test_a_value_that_the_operator_cannot_take_is_refused_by_name(op, value, message):
    """The short error names the key, what was found and what was expected."""
    with pytest.raises(FilterError) as caught:
        Compare(("année", "b"), op, value)
    assert message in str(caught.value)
    assert "'année', 'b'" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_pattern_may_end_with_an_escaped_backslash():
    """Only a backslash that escapes nothing is refused."""
    assert matches(F.a.like("x\\\\"), {"a": "x\\"})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("lang", "found str 'lang'"),
        (["lang"], "found list ['lang']"),
        ((), "at least one key"),
        (None, "found None"),
        (("a", 1), "found a key of type int"),
        (("a\0",), "NUL character"),
        (("\ud800",), "lone surrogate"),
        (("é" * 501,), "found 1,002, at most 1,000"),
        (("a",) * 33, "found 33, at most 32"),
        ((NESTED,), "found a key of type list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_path_is_a_tuple_of_keys(path, message):
    """Paths of anything else, too long ones and those that no text holds are refused."""
    with pytest.raises(FilterError) as caught:
        Compare(path, "eq", 1)
    assert message in str(caught.value)


def test_a_field_is_refused_when_it_is_named():
    """F refuses a bad key at once, and can't be iterated for ever."""
    with pytest.raises(FilterError, match="found a key of type int"):
        F[1]
    with pytest.raises(FilterError):
        list(F)


@pytest.mark.parametrize("kind", [And, Or, Not])
def test_one_level_too_many_is_refused_so_that_nothing_can_recurse_deeper(kind):
    """The 33rd level is an error, in each kind of node."""
    tree = F.a == 1
    for _ in range(31):
        tree = kind(tree)
    with pytest.raises(FilterError, match="levels of nesting: found 33, at most 32"):
        kind(tree)


def test_the_number_of_nodes_is_capped_also_where_subtrees_are_shared():
    """Nodes count as often as they would be written."""
    tree = F.a == 1
    for _ in range(8):
        tree = And(tree, tree)
    with pytest.raises(FilterError, match="nodes: found 1,023, at most 1,000"):
        And(tree, tree)
    with pytest.raises(FilterError, match="nodes: found 1,001"):
        Or(*[F.a == 1] * 1_000)


def test_a_long_chain_of_operators_is_not_deep():
    """900 filters joined by | are one node on one level."""
    tree = F.a == 0
    for number in range(1, 900):
        tree = tree | (F.a == number)
    assert (tree.depth, tree.nodes) == (2, 901)


@pytest.mark.parametrize("wrong", [[F.a == 1], None, "a", F.a, {"a": 1}])
def test_only_filters_combine(wrong):
    """And, Or and Not take filters as arguments, and no list of them."""
    for kind in (And, Or, Not):
        with pytest.raises(FilterError, match=f"{kind.__name__} takes filters as arguments, found"):
            kind(wrong)


def test_later_changes_of_the_caller_do_not_reach_the_filter():
    """A filter keeps its own copy of its values, and gives out copies."""
    values, item = ["a"], {"x": [1]}
    listed, whole = F.k.in_(values), F.k == item
    before = bind_values(listed), bind_values(whole)
    values.append("b")
    item["x"].append(2)
    item["y"] = 1
    assert (bind_values(listed), bind_values(whole)) == before
    assert (listed.value, whole.value) == (("a",), {"x": (1,)})
    bind_values(listed)["f1"].append("c")
    assert bind_values(listed) == before[0]
    assert values == ["a", "b"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (F.a == 1, F["b.c"] == "x"),
        (F["a", "b"] != [1], F["c", "d"] != {"x": {}}),
        (F.a > 1, F.b > 2.5),
        (F.a.in_([]), F.b.in_(list(range(500)))),
        (F.a.any(["x"]), F.b.any([1, 2, 3])),
        (F.a.any(list(range(20))), F.b.any(list(range(500)))),
        (F.a.between("a", "b"), F.b.between("%s", "")),
        ((F.a == 1) & ~F.b.like("x") | F.c.exists(), (F.x == 2) & ~F.y.like("%") | F.z.exists()),
    ],
)
def test_filters_of_one_shape_share_their_sql(one, other):
    """Other keys and values bind to the same text, in the same order."""
    assert shape(one) == shape(other)
    assert hash(shape(one)) == hash(shape(other))
    assert text_of(one) == text_of(other)
    assert bind_values(one) != bind_values(other)
    assert list(bind_values(one)) == list(bind_values(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (F.a > 1, F.a > "1"),
        (F.a > 1, F.a < 1),
        (F.a > 1, F["a", "b"] > 1),
        (F.a.exists(), F.a.exists(False)),
        (F.a == 1, F.a != 1),
        (And(F.a == 1, F.b == 1), Or(F.a == 1, F.b == 1)),
        (And(F.a == 1), And(F.a == 1, F.a == 1)),
    ],
)
def test_filters_of_different_sql_have_different_shapes(one, other):
    """A cache by shape can't give one filter the text of another."""
    assert shape(one) != shape(other)
    assert text_of(one) != text_of(other)


def test_parameters_are_numbered_and_prefixed():
    """Parameters are named in the order of their values, behind the caller's prefix."""
    tree = (F["a", "b"].between(1, 2)) & (F.c == "x") & F.d.in_(["y"])
    expression, params = compile_filter(tree, CHUNKS.c.metadata, prefix="only_")
    assert params == {
        "only_0": "a", "only_1": "b", "only_2": "1", "only_3": "2", "only_4": '{"c":"x"}', "only_5": "d",
        "only_6": ['"y"'],
    }  # fmt: skip
    assert bind_values(tree, "only_") == params
    compiled = select(CHUNKS.c.id).where(expression).compile(dialect=dialect())
    assert compiled.params == dict.fromkeys(params)


def test_no_key_or_value_reaches_the_sql_text():
    """All that a caller wrote is bound."""
    text = text_of((F["it's 100%"] == ":x' OR 1=1") & F["{k}"].any(["%s"]) & (F["(k)"] < "secret"))
    for part in ("it's", "{k}", "OR 1=1", "secret", "%s", "(k)"):
        assert part not in text.replace(")s AS", ")S AS")
