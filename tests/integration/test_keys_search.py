"""Declared keys: filters find exactly what they find without them, and read no more than they must."""

from __future__ import annotations

import random
import re

import psycopg
import pytest

import pgrecall
from conftest import as_dsn
from pgrecall import And, Chunk, Compare, EmbedSpace, F, Not, Or
from pgrecall.filters import keys as entries
from pgrecall.jsonable import dumps
from pgrecall.operations.search import routes as graphs
from pgrecall.postgres.pipelines import PipelinedTransaction
from support.data import vectors
from support.filter_data import KEYS, OPERATOR_KINDS, POOLS, random_operand

ONES = [1.0] * 8
TYPES = ("text", "number", "bool")
FIELDS = KEYS[:4]


def ids(found):
    return sorted(getattr(each, "chunk_id", None) or each.id for each in found)


# What is found


@pytest.fixture(scope="module")
def space_of_module():
    return EmbedSpace("test", "eight", 8)


@pytest.fixture(scope="module")
def twice(_databases, space_of_module):
    """The same chunks in two collections, of which one has each key declared for each type; nothing was analyzed."""
    url = _databases(migrated=True)
    rng = random.Random(7)
    made = []
    for n, vector in enumerate(vectors(150)):
        metadata = {key: rng.choice(POOLS["mixed"]) for key in FIELDS if rng.random() < 0.9}
        metadata["nested"] = rng.choice([{"a": rng.choice(POOLS["mixed"])}, [{"a": 1}], "a", None])
        made.append(Chunk(f"c{n:03d}", "text", vector, metadata=metadata))
    with pgrecall.connect(url) as database:
        tenant = database.tenant("acme")
        plain, keyed = (tenant.vectors(name, space_of_module) for name in ("plain", "keyed"))
        for one in (plain, keyed):
            one.upsert(made)
        for path in [*((key,) for key in FIELDS), ("nested", "a")]:
            for kind in TYPES:
                tenant.index_key("keyed", path, kind)
        yield plain, keyed


def random_leaf(rng, op, kind):
    path = (rng.choice(FIELDS),) if rng.random() < 0.8 else ("nested", "a")
    return Compare(path, op, random_operand(rng, op, kind))


@pytest.mark.parametrize(("op", "kind"), OPERATOR_KINDS)
def test_each_operator_finds_the_same_with_declared_keys(twice, op, kind):
    """By operator and type the same chunks are listed, counted and searched."""
    plain, keyed = twice
    rng = random.Random(f"{op} {kind}")
    for _ in range(6):
        tree = random_leaf(rng, op, kind)
        expected = ids(plain.list_chunks(tree, limit=1_000))
        assert ids(keyed.list_chunks(tree, limit=1_000)) == expected, tree
        assert keyed.count(tree) == len(expected)
        assert ids(keyed.query(ONES, 1_000, tree)) == expected


def test_trees_find_the_same_with_declared_keys(twice):
    """Generated trees of And, Or and Not; some of them are looked up, some can't be."""
    plain, keyed = twice
    rng = random.Random(3)

    def tree(depth):
        if depth == 0 or rng.random() < 0.3:
            return random_leaf(rng, *rng.choice(OPERATOR_KINDS))
        if rng.random() < 0.2:
            return Not(tree(depth - 1))
        return rng.choice([And, Or])(*(tree(depth - 1) for _ in range(rng.randint(1, 3))))

    known = keyed._run(lambda gate: keyed._backend.routes.keys(gate, keyed._place(gate)))
    looked_up = 0
    for _ in range(120):
        made = tree(3)
        looked_up += entries.lookup(made, known) is not None
        assert ids(keyed.list_chunks(made, limit=1_000)) == ids(plain.list_chunks(made, limit=1_000)), made
    assert 20 <= looked_up <= 100


def test_entries_of_numbers_are_ordered_as_the_numbers():
    """A smaller number never has a larger entry: rounding can only make two of them equal."""
    rng = random.Random(1)
    numbers = sorted(
        {*POOLS["int"], *POOLS["float"], *(rng.uniform(-1, 1) * 10 ** rng.randint(-320, 308) for _ in range(999))}
    )
    made = [entries.entry(dumps(number, "n")) for number in numbers]
    assert made == sorted(made) and len(set(made)) > 900


def test_what_a_filter_asks_of_keys():
    """Conjuncts narrow, alternatives only all together, negations never; a range of one key is one range."""
    known = [entries.Key(1, ("lang",), "text"), entries.Key(2, ("year",), "number"), entries.Key(3, ("tags",), "text")]

    def form(tree):
        found = entries.lookup(tree, known)
        return found and (found.form, found.whole)

    lang, year = F.lang == "de", ("key", ">=", "<=")
    assert form(lang) == (("key", "="), True)
    assert form(lang & (F.other == 1)) == (("key", "="), False)
    assert form((F.year > 2000) & (F.year <= 2024)) == (year, True)
    assert form(lang | F.year.between(1, 2)) == (("some", ("key", "="), year), True)
    assert form(F.tags.all(["a", "b"])) == (("every", ("key", "="), ("key", "=")), True)
    for tree in (
        Compare(("tags",), "gt", ["a"]),
        Compare(("tags",), "has_any", ["a"]),
        Compare(("lang",), "part_of", "de, en"),
        ~lang,
        lang | (F.other == 1),
        F.lang != "de",
        F.lang.exists(),
        F.lang == 1,
        Compare(("lang",), "eq", None),
        F.lang.in_([1, "a"]),
    ):
        assert form(tree) is None, tree


# What it is for


@pytest.fixture(scope="module")
def large(_databases):
    """A collection large enough for a graph, of a login that may act as the application only; keys declared."""
    url = _databases(migrated=True)
    with psycopg.connect(as_dsn(url), autocommit=True) as connection:
        connection.execute("DO $$ BEGIN CREATE ROLE keys_app LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
        connection.execute("GRANT pgrecall_app TO keys_app WITH INHERIT FALSE, SET TRUE")
    space = EmbedSpace("test", "sixteen", 16)
    count = graphs.exact_max(16) + 1_500
    made = [
        Chunk(f"c{n:05d}", "", vector, metadata={"n": n, "half": n % 2, "rare": n % 500, "lang": ("de", "en")[n % 2]})
        for n, vector in enumerate(vectors(count, 16))
    ]
    with pgrecall.connect(url, admin_url=url) as database:
        tenant = database.tenant("acme")
        tenant.vectors("c", space).upsert(made)
        for key, kind in (("half", "number"), ("rare", "number"), ("lang", "text")):
            tenant.index_key("c", key, kind)
        database.maintain()
    with pgrecall.connect(url.set(username="keys_app")) as database:
        yield database.tenant("acme").vectors("c", space), made, url


@pytest.mark.parametrize(
    ("tree", "matches"),
    [
        (F.rare == 7, lambda m: m["rare"] == 7),
        ((F.rare == 7) & (F.half == 1), lambda m: m["rare"] == 7),
        ((F.half == 1) & (F.rare < 3), lambda m: m["rare"] == 1),
        ((F.lang == "de") & (F.n < 40), lambda m: m["half"] == 0 and m["n"] < 40),
        (F.half == 1, lambda m: m["half"] == 1),
        ((F.half == 1) | (F.lang == "de"), lambda m: True),
        ((F.rare == 1) | (F.rare == 2) | F.rare.in_([3, 4, 5]), lambda m: 1 <= m["rare"] <= 5),
        ((F.lang == "en") & ~(F.rare == 3), lambda m: m["half"] == 1 and m["rare"] != 3),
        (F.rare == 9_999, lambda m: False),
    ],
)
def test_a_large_collection_is_searched_the_same_by_keys_and_graph(large, tree, matches):
    """The nearest matches are found by a scan if few chunks match, and by the graph if many do."""
    store, made, _ = large
    question = vectors(1, 16, 5)[0]
    nearest = sorted((1 - float(c.embedding @ question), c.id) for c in made if matches(c.metadata))[:10]
    hits = store.query(question, 10, tree)
    assert len(hits) == len(nearest)
    assert len({h.chunk_id for h in hits} & {name for _, name in nearest}) >= len(nearest) - 1


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.query(ONES * 2, 5, F.rare == 7),
        lambda store: store.query_mmr(ONES * 2, 5, F.rare == 7),
        lambda store: store.count(F.rare.in_([7, 8])),
        lambda store: store.list_chunks((F.lang == "en") & (F.rare == 7) & (F.half >= 1)),
    ],
    ids=["query", "query_mmr", "count", "list"],
)
def test_a_rare_value_is_found_without_reading_the_tenants_rows(large, monkeypatch, call):
    """As a login without LEAKPROOF, on tables that nobody analyzed, each read takes some dozen rows of 3,500."""
    plans, many = [], PipelinedTransaction.many

    def explained(self, work, *, commit=False):
        self.begin()
        for statement, params in work:
            if "chunk_keys" in statement:
                rows = self._connection.raw.execute("EXPLAIN (ANALYZE, TIMING OFF) " + statement, params, prepare=False)
                plans.extend(row[0] for row in rows.fetchall())
        return many(self, work, commit=commit)

    monkeypatch.setattr(PipelinedTransaction, "many", explained)
    call(large[0])
    plan = "\n".join(plans)
    assert "chunk_keys_value_idx" in plan
    rows = sum(float(n) * int(loops) for n, loops in re.findall(r"Scan .*actual rows=([\d.]+) loops=(\d+)", plan))
    # Of the list's three parts the first one is read up to a thousand entries.
    assert 0 < rows + sum(map(int, re.findall(r"Removed by Filter: (\d+)", plan))) < 1_100, plan
