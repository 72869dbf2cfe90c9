"""What filters mean in SQL, row by row against the reference in plain Python, on generated data."""

import json
import random

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import column, literal_column, select, table
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.psycopg import dialect

from pgrecall.filters import OPERATORS, And, Compare, F, Not, Or, compile_filter, shape
from pgrecall.jsonable import dumps
from pgrecall.testing.filters import matches
from support.filter_data import KEYS, MISSING, OPERATOR_KINDS, POOLS, put, random_operand, related_values

ROWS = table("filter_rows", column("id"), column("metadata", postgresql.JSONB))
DIALECT = dialect()

FILTERS_PER_CELL, ROWS_PER_FILTER = 25, 24


@pytest.fixture
def rows(admin_connection):
    admin_connection.execute("DROP TABLE IF EXISTS filter_rows")
    admin_connection.execute("CREATE TEMP TABLE filter_rows (id int, metadata jsonb NOT NULL)")
    return admin_connection


def load(connection, metadata):
    connection.execute(
        "INSERT INTO filter_rows SELECT n - 1, m::jsonb FROM unnest(%s::text[]) WITH ORDINALITY AS _ (m, n)",
        [[dumps(value, "metadata") for value in metadata]],
    )


def sql(tree, source=ROWS.c.metadata):
    expression, params = compile_filter(tree, source)
    compiled = select(ROWS.c.id).where(expression).compile(dialect=DIALECT)
    assert compiled.params == dict.fromkeys(params), "every value is bound, and nothing else"
    assert list(compiled.params) == list(params)
    return str(compiled), params


TEXT_OF_SHAPE = {}


def selected(connection, tree):
    text, params = sql(tree)
    assert TEXT_OF_SHAPE.setdefault(shape(tree), text) == text, "equal shapes must be equal SQL"
    return {row for (row,) in connection.execute(text, params, prepare=False)}


# --- operator by operator, type by type


@pytest.mark.parametrize(("op", "kind"), OPERATOR_KINDS)
def test_operator_selects_the_same_rows_as_the_reference(rows, op, kind):
    """Each operator and type of value finds, on 600 pairs of which half match, exactly the reference's rows."""
    rng = random.Random(f"{op} {kind}")
    metadata = [{} for _ in range(ROWS_PER_FILTER)]
    filters = []
    for key in rng.sample(KEYS, FILTERS_PER_CELL):
        path = rng.choice([(key,), (key,), (key, "0"), (key, "a", rng.choice(KEYS))])
        tree = Compare(path, op, random_operand(rng, op, kind))
        # The reference only chooses the mix here: half of the rows should match, wherever that is possible.
        values = [
            MISSING,
            *related_values(rng, tree.value, kind),
            *rng.choices(POOLS["mixed"], k=30),
        ]
        fresh = [json.loads(dumps(value, "value")) if value is not MISSING else MISSING for value in values]
        leaf = Compare(("v",), op, tree.value)
        sides = {True: [], False: []}
        for value in fresh:
            sides[matches(leaf, {} if value is MISSING else {"v": value})].append(value)
        for at, row in enumerate(metadata):
            put(rng, row, path, rng.choice(sides[at % 2 == 0] or sides[at % 2 != 0]))
        filters.append(tree)
    load(rows, metadata)

    pairs = matched = 0
    for tree in filters:
        expected = {at for at, row in enumerate(metadata) if matches(tree, row)}
        assert selected(rows, tree) == expected, tree
        pairs += len(metadata)
        matched += len(expected)
    assert pairs >= 500
    assert 0.3 <= matched / pairs <= 0.7, "too one-sided to prove much"


# --- trees

FEW_KEYS = KEYS[:6]


def _leaf_strategy():
    def build(seed, op_kind, key, nested):
        rng = random.Random(seed)
        op, kind = op_kind
        return Compare((key, "a") if nested else (key,), op, random_operand(rng, op, kind))

    seeds = st.integers(0, 2**32)
    return st.builds(build, seeds, st.sampled_from(OPERATOR_KINDS), st.sampled_from(FEW_KEYS), st.booleans())


TREES = st.recursive(
    _leaf_strategy(),
    lambda children: st.one_of(
        st.lists(children, max_size=4).map(lambda filters: And(*filters)),
        st.lists(children, max_size=4).map(lambda filters: Or(*filters)),
        children.map(Not),
    ),
    max_leaves=12,
)


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(tree=TREES)
def test_trees_of_and_or_not_select_the_same_rows_as_the_reference(tree_rows, tree):
    """Combined, filters mean what Python's and, or, not make of them."""
    connection, metadata = tree_rows
    assert selected(connection, tree) == {at for at, row in enumerate(metadata) if matches(tree, row)}


@pytest.fixture
def tree_rows(rows):
    rng = random.Random(0)
    kinds = [[rng.choice(POOLS["mixed"]) for _ in FEW_KEYS] for _ in range(80)]
    metadata = [
        {key: value for key, value in zip(FEW_KEYS, values, strict=True) if rng.random() < 0.8} for values in kinds
    ]
    load(rows, metadata)
    return rows, metadata


# --- edges


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (F.a.in_([]), set()),
        (F.a.nin([]), {0, 1, 2, 3}),
        (F.a.any([]), set()),
        (F.a.all([]), {2, 3}),
        (And(), {0, 1, 2, 3}),
        (Or(), set()),
        (F.a.between(2, 1), set()),
        (F["a", "0"] == 1, set()),
        (F.a.text_match(""), {1}),
    ],
)
def test_what_is_empty_matches_nothing_or_everything(rows, tree, expected):
    """Empty lists, ranges, texts and trees have a meaning, and Not is its complement."""
    metadata = [{}, {"a": "x"}, {"a": [1]}, {"a": []}]
    load(rows, metadata)
    assert selected(rows, tree) == expected == {at for at, row in enumerate(metadata) if matches(tree, row)}
    assert selected(rows, ~tree) == {0, 1, 2, 3} - expected


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("metadata", ["NULL", "'[]'", "'[1, {\"k\": 1}]'", "'\"k\"'", "'1'", "'null'", "'{}'"])
def test_a_leaf_is_false_and_not_null_where_metadata_is_no_object(rows, op, metadata):
    """On anything but an object a leaf and its Not still disagree."""
    rng = random.Random(op)
    tree = Compare(("k",), op, random_operand(rng, op, next(kind for o, kind in OPERATOR_KINDS if o == op)))
    expected = matches(tree, {})
    for negated in (False, True):
        condition, params = compile_filter(~tree if negated else tree, literal_column(f"CAST({metadata} AS jsonb)"))
        text = str(select(condition.label("found")).compile(dialect=DIALECT))
        assert rows.execute(text, params, prepare=False).fetchone() == (expected != negated,)


def test_strings_order_by_code_point_whatever_the_database_orders_by(rows):
    """Comparisons of strings agree with Python's, and name their collation."""
    words = ["Zebra", "zebra", "apfel", "Äpfel", "éclair", "～", "😀", "\uffff"]
    load(rows, [{"w": word} for word in words])
    for bound in words:
        for op in ("gt", "lte"):
            tree = Compare(("w",), op, bound)
            assert selected(rows, tree) == {at for at, word in enumerate(words) if (word > bound) == (op == "gt")}
            # The wheel's Postgres knows no language's order, so that the result alone would prove little.
            assert 'COLLATE "C"' in sql(tree)[0]


def test_case_beyond_ascii_follows_the_database(rows):
    """É matches é without regard to case exactly where the database's lower() says so."""
    load(rows, [{"t": "Élan"}])
    folds = rows.execute("SELECT lower('É') = 'é'").fetchone()[0]
    assert selected(rows, F.t.text_match_i("éLAN")) == ({0} if folds else set())


@pytest.mark.parametrize(
    "tree",
    [
        And(*[F["k" * 1000] == number for number in range(999)]),
        Or(*[F.a.like(f"%{number}%") for number in range(999)]),
        F[tuple("k" * 1000 for _ in range(32))].between("a", "b"),
        F.a.in_(list(range(10_000))),
        F.a.any([f"group {number}" for number in range(10_000)]),
        F.a.all([f"group {number}" for number in range(10_000)]),
        F.a == "x" * 999_000,
    ],
    ids=lambda tree: f"{type(tree).__name__}-{getattr(tree, 'op', '')}",
)
def test_the_largest_filters_run(rows, tree):
    """What the caps just allow is a statement that Postgres takes and answers rightly."""
    load(rows, [{"a": 9_999}, {"a": ["group 7"]}])
    expected = {at for at, row in enumerate([{"a": 9_999}, {"a": ["group 7"]}]) if matches(tree, row)}
    assert selected(rows, tree) == expected


def test_the_deepest_filters_run(rows):
    """The deepest tree, path and value that may be written are answered rightly."""
    value, tree = 1, F.a == 1
    for _ in range(199):
        value = [value]
    for _ in range(31):
        tree = Not(tree)
    load(rows, [{"a": value}, {"a": 1}])
    assert selected(rows, tree) == {0}
    path = F[tuple("k" * 32)]
    assert selected(rows, path == value) == set()
    assert selected(rows, F.a == value) == {0}


@pytest.mark.parametrize("tree", [F.a == 7, F["b", "c"] == [7], F.t.contains("x7"), F.t.all(["x7", "y"])])
def test_equality_and_containment_are_found_by_a_gin_index(rows, tree):
    """eq, contains and all look their rows up in the metadata's index."""
    metadata = [{"a": n, "b": {"c": [n]}, "t": [f"x{n}", "y"]} for n in range(2_000)]
    load(rows, metadata)
    rows.execute("CREATE INDEX ON filter_rows USING gin (metadata jsonb_path_ops)")
    rows.execute("ANALYZE filter_rows")
    text, params = sql(tree)
    plan = "\n".join(line for (line,) in rows.execute(f"EXPLAIN {text}", params, prepare=False))
    assert "Bitmap Index Scan on filter_rows_metadata_idx" in plan
    assert selected(rows, tree) == {7}


@pytest.mark.parametrize("tree", [F.k == "x", F.k > "x", F.k.in_(["x"]), F["a", "b"].like("x%")])
def test_the_same_text_runs_with_other_values(rows, tree):
    """SQL compiled for one filter serves another of its shape, whatever its values would like to be."""
    load(rows, [{"k": "x"}])
    text, _ = sql(tree)
    for payload in ("'; DROP TABLE filter_rows; --", "%s %(f0)s %%", ":f0 $1 {}", "\\'", "\\u0000"):
        other = Compare((payload,) * len(tree.path), tree.op, [payload] if tree.op == "in" else payload)
        other_text, other_params = sql(other)
        assert (other_text, shape(other)) == (text, shape(tree))
        assert payload not in text
        assert rows.execute(text, other_params, prepare=False).fetchall() == []
    assert rows.execute("SELECT count(*) FROM filter_rows").fetchone() == (1,)


# --- what is stored is what was given: filters compare nothing else

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NUMBERS = st.integers(-(10**400), 10**400) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.sampled_from(POOLS["mixed"]),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXTS, children, max_size=4),
    max_leaves=10,
)


def typed(value):
    if isinstance(value, list):
        return [typed(item) for item in value]
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    return (type(value), value)


@settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(values=st.lists(VALUES, min_size=1, max_size=5))
def test_values_come_back_from_jsonb_as_they_were(admin_connection, values):
    """Generated values come back from jsonb equal, and of the same types."""
    texts = [dumps(value, "value") for value in values]
    found = admin_connection.execute("SELECT v::jsonb FROM unnest(%s::text[]) AS v", [texts]).fetchall()
    assert typed([value for (value,) in found]) == typed(values)


def test_the_deepest_value_is_stored(admin_connection):
    """200 levels, the most that may be written, are no problem to Postgres."""
    value = "x"
    for _ in range(200):
        value = [value]
    assert admin_connection.execute("SELECT %s::jsonb", [dumps(value, "value")]).fetchone() == (value,)


def test_a_nul_character_is_stripped_and_its_spelling_is_kept(admin_connection):
    """NUL goes, a backslash with u0000 behind it stays; unstripped, Postgres refuses."""
    text = dumps({"a\0": "x\0y \\u0000"}, "value", on_nul="strip")
    assert admin_connection.execute("SELECT %s::jsonb", [text]).fetchone() == ({"a": "xy \\u0000"},)
    with pytest.raises(psycopg.Error):  # which is what dumps is there to prevent
        admin_connection.execute("SELECT %s::jsonb", [json.dumps("\0")])
