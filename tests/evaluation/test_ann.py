"""Settings of a search in evaluation: what a graph misses, and which settings are worth having."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest

import pgrecall
from pgrecall import GraphBuild, InvalidInput, Tenant
from pgrecall.evaluation import CoreRetriever, EvalQuery, EvalSet, aevaluate, evaluate, sweep
from support.graphs import LARGE, SPACE, ids, made, vectors

QUESTIONS = {f"question {n}": vector for n, vector in enumerate(vectors(12, 99))}


def embed(texts):
    return np.stack([QUESTIONS[text] for text in texts])


async def aembed(texts):
    return embed(texts)


@pytest.fixture(scope="module")
def store(_databases) -> Iterator[pgrecall.PostgresVectorStore]:
    """A collection that a graph serves; a question's answer is what is truly nearest to it."""
    url = _databases(migrated=True)
    with pgrecall.connect(url, admin_url=url, promote_on_upsert=False) as database:
        made_store = database.tenant("acme").vectors("large", SPACE, text_config="english")
        made_store.upsert(made(LARGE))
        database.maintain(build=GraphBuild(m=4, ef_construction=8))  # a poor graph
        yield made_store


@pytest.fixture(scope="module")
def nearest(store) -> EvalSet:
    judged = {text: ids(store.query(vector, 1, exact=True)) for text, vector in QUESTIONS.items()}
    return EvalSet("nearest", tuple(EvalQuery(t, t, dict.fromkeys(found, 1)) for t, found in judged.items()))


def test_what_the_graph_misses_is_measured_against_the_exact_search(store, nearest):
    """Many candidates find nearly everything, one finds less; the exact search itself has 1 by definition."""
    options = {"embed": embed, "ann_recall": True, "top_k": (1, 10)}
    narrow, wide, exact = (
        evaluate(store, nearest, **options, **settings)
        for settings in ({"ef_search": 1}, {"ef_search": 1_000}, {"exact": True})
    )
    assert narrow.mean("ann_recall@10") < 0.9 < wide.mean("ann_recall@10") <= exact.mean("ann_recall@10") == 1
    assert narrow.mean("ann_recall@1") == narrow.mean("hit@1")  # here the judgements are the exact search's
    built = {"generation": 1, "m": 4, "ef_construction": 8}
    assert [run.config["asked"]["retriever"]["graph"] for run in (narrow, wide, exact)] == [
        built | {"ef_search": 1},
        built | {"ef_search": 1_000},
        None,
    ]
    assert {"scorer": "ann_recall", "against": "exact", "depths": [1, 10]} in narrow.config["asked"]["scorers"]
    assert asyncio.run(aevaluate(store, nearest, **options | {"embed": aembed}, ef_search=1)).results[0].metrics == (
        narrow.results[0].metrics
    )
    hybrid = evaluate(store, nearest, embed=embed, mode="hybrid", ann_recall=True, ef_search=1_000)
    assert hybrid.mean("ann_recall@10") > 0.9
    diverse = evaluate(store, nearest, embed=embed, mmr={"lambda_mult": 0.7, "ef_search": 1_000}, ann_recall=True)
    assert diverse.mean("ann_recall@10") > 0.8


def test_the_configuration_says_how_far_a_search_goes(store):
    """As the collection is searched where nobody says: by its size, or as was chosen; of several stores, of each."""
    tenant = Tenant(store._backend, "acme")
    small = tenant.vectors("small", SPACE)
    small.upsert(made(10))
    built = {"generation": 1, "m": 4, "ef_construction": 8}
    stores = {"one": store, "other": small}
    assert CoreRetriever(store, embed=embed).config["graph"] == built | {"ef_search": 100}
    tenant.set_ef_search("large", 333)
    try:
        assert CoreRetriever(store, embed=embed).config["graph"] == built | {"ef_search": 333}
        assert CoreRetriever(stores, embed=embed).config["graph"] == [built | {"ef_search": 333}, None]
        assert CoreRetriever(stores, embed=embed, mode="sparse").config["graph"] is None
    finally:
        tenant.set_ef_search("large", None)


def test_each_question_is_embedded_once(store, nearest):
    """Though two searches ask by it."""
    asked = []

    def counting(texts):
        asked.extend(texts)
        return embed(texts)

    evaluate(store, nearest, embed=counting, ann_recall=True, top_k=5)
    assert sorted(asked) == sorted(QUESTIONS)


def test_a_sweep_goes_through_the_settings_of_a_search(store, nearest):
    """A sweep covers candidates, the exact search, alpha, modes and depths, for a store and for a retriever."""
    points = sweep(
        store, nearest, [{"ef_search": [1, 400]}, {"exact": [True]}], metric="ann_recall@5", embed=embed, top_k=10
    )
    assert [dict(p.settings) for p in points] == [{"ef_search": 1}, {"ef_search": 400}, {"exact": True}]
    assert points[0].quality < points[1].quality <= points[2].quality == 1
    points = sweep(
        CoreRetriever(lambda _tenant: store, embed, options={"exact": True}),
        nearest,
        {"alpha": [0.0, 1.0], "top_k": [2, 4]},
        metric="hit",
    )
    assert [p.run.config["asked"]["top_k"] for p in points] == [[2], [4]] * 2
    assert points[0].quality < points[2].quality == 1  # words of the questions find nothing, vectors do
    assert {p.run.config["asked"]["retriever"]["mode"] for p in points} == {"hybrid"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ef_search": 5_000}, "ef_search is 5000"),
        ({"exact": True, "ef_search": 40}, "both given"),
        ({"ef_serch": 40}, "the options do not suit query of a core store.*ef_serch"),
        ({"mode": "vector"}, "mode is 'vector'"),
        ({"mode": "sparse", "ann_recall": True}, "in mode 'sparse', which has no exact search"),
    ],
)
def test_what_a_search_can_not_be_asked_is_refused_before_the_run(store, nearest, options, message):
    """And not recorded as a failure of every query."""
    with pytest.raises(InvalidInput, match=message):
        evaluate(store, nearest, embed=lambda texts: pytest.fail("was asked"), **options)


@pytest.mark.parametrize(
    ("grid", "options", "message"),
    [
        ({"ef_search": [40, 5_000]}, {}, "ef_search is 5000"),
        ({"ef_search": [40], "exact": [False, True]}, {}, "both given"),
        ({"top_k": [20, 5]}, {"metric": "recall@10"}, "needs 10 rows, but top_k is 5"),
        ({"top_k": ["many"]}, {}, "top_k is 'many'"),
        ({"mode": ["dense"]}, {"metric": "accuracy"}, "metric 'accuracy' is unknown"),
        ({"mode": ["dense"]}, {"metric": "ann_recall@x"}, "the depth of metric 'ann_recall@x' is 'x'"),
        ([{}], {}, "the grid is empty"),
        ("mode=dense", {}, "a grid is 'mode=dense'"),
        ({"mode": "dense"}, {}, "expected a mapping of settings to lists"),
    ],
)
def test_a_grid_with_one_impossible_point_runs_none(store, nearest, grid, options, message):
    """It is refused before any time is spent."""
    with pytest.raises(InvalidInput, match=message):
        sweep(store, nearest, grid, embed=lambda texts: pytest.fail("was asked"), **options)


def test_others_than_core_stores_have_no_exact_search(nearest):
    """Which the message says."""
    with pytest.raises(InvalidInput, match="a retriever of 'function', which has no exact search"):
        evaluate(lambda text: [], nearest, ann_recall=True)
