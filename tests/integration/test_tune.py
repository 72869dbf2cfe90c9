"""How many candidates a search keeps: by the collection's size or as measured; and which processes learn of it."""

from __future__ import annotations

import pytest

from pgrecall import ConfigurationError, F, GraphBuild, InvalidEmbedding, InvalidInput, NotFound
from pgrecall.operations.search.routes import MOST_EF_SEARCH, Route
from support.cli import run as cli
from support.cli import text
from support.graphs import LARGE, SPACE, made, run, vectors

#: A poor graph, so that more candidates find more.
POOR = GraphBuild(m=4, ef_construction=16)


@pytest.fixture
def store(database):
    store = database.tenant("acme").vectors("large", SPACE)
    store.upsert(made(LARGE))
    return store


def used(store, **asked):
    explained = store.query(vectors(1, 5)[0], 10, explain=True, **asked).explanation
    return int(explained.settings["hnsw.ef_search"]) if explained.shape == "graph" else None


def test_the_smallest_that_finds_enough_is_chosen_and_used(database, store):
    """More is tried until the target is met; searches use that, twice with a filter, unless a call says another."""
    database.maintain(build=POOR)
    tenant = database.tenant("acme")
    assert used(store) == 100
    done = tenant.tune("large", 0.97, queries=40)
    assert done.met and done.ef_search > 20 and done.recall >= 0.97
    assert [p.ef_search for p in done.tried] == sorted({p.ef_search for p in done.tried})
    assert all(p.recall < 0.97 for p in done.tried[:-1]) and done.tried[-1].ef_search == done.ef_search
    assert tenant.collection_info("large").ef_search == done.ef_search
    assert used(store) == done.ef_search and used(store, ef_search=44) == 44
    assert used(store, filters=F.none.is_empty()) == min(2 * done.ef_search, MOST_EF_SEARCH)
    tenant.index_key("large", "lang")  # another setting of the collection's
    database.maintain(1, rebuild=True, build=POOR)
    assert used(store) == done.ef_search
    tenant.set_ef_search("large", None)
    assert tenant.collection_info("large").ef_search is None and used(store) == 100
    assert [k.path for k in tenant.collection_info("large").indexed_keys] == [("lang",)]


def test_a_target_out_of_reach_chooses_the_best_and_says_so(database, store):
    """Vectors that the graph can't reach well: nothing is hidden."""
    database.maintain(build=GraphBuild(m=2, ef_construction=4))
    done = database.tenant("acme").tune("large", 1.0, queries=60, vectors=vectors(60, 77))
    best = max(p.recall for p in done.tried)
    assert done.recall == best and done.met == (best == 1.0)
    if not done.met:
        assert done.tried[-1].ef_search == MOST_EF_SEARCH


def test_what_can_not_be_tuned(database, store):
    """A large collection without a graph is an error that says what to do; a small one has nothing to choose."""
    tenant = database.tenant("acme")
    with pytest.raises(ConfigurationError, match="pgrecall maintain"):
        tenant.tune("large")
    small = tenant.vectors("small", SPACE)
    small.upsert(made(30))
    assert tenant.tune("small").ef_search is None and tenant.tune("small").met
    for call in (lambda: tenant.tune("unknown"), lambda: tenant.set_ef_search("unknown", 10)):
        with pytest.raises(NotFound, match="no collection 'unknown'"):
            call()
    for wrong in ({"target": 0}, {"target": 1.5}, {"target": True}, {"k": 0}, {"k": 500}, {"queries": 0}):
        with pytest.raises(InvalidInput):
            tenant.tune("large", **wrong)
    for wrong in (0, 1_001, True, "many"):
        with pytest.raises(InvalidInput, match="ef_search"):
            tenant.set_ef_search("large", wrong)
    with pytest.raises(InvalidEmbedding):
        tenant.tune("large", vectors=[[1.0]])
    database.maintain()
    with pytest.raises(InvalidInput, match="there are no query vectors"):
        tenant.tune("large", vectors=[])


def test_it_grows_with_the_collection():
    """A hundredth of the rows, from 100 to 600; twice as many with a filter, and never more than pgvector takes."""
    known = {
        rows: Route(1, 10_000, built=True, noted=rows).breadth(filtered=False) for rows in (0, 9_000, 40_000, 10**7)
    }
    assert known == {0: 100, 9_000: 100, 40_000: 400, 10**7: 600}
    assert Route(1, 10_000, built=True, noted=40_000, ef_search=700).breadth(filtered=False) == 700
    assert Route(1, 10_000, built=True, noted=40_000, ef_search=700).breadth(filtered=True) == 1_000


def test_maintenance_notes_the_rows(url, database, store):
    """What it counted, for large collections, and again only when that changed by more than a fifth."""
    noted = "SELECT (settings #>> '{graph,rows}')::int FROM pgrecall.collections WHERE name = 'large'"
    database.maintain()
    assert run(url, noted) == [(LARGE,)]
    store.upsert(made(100, 7, "few"))
    database.maintain()
    assert run(url, noted) == [(LARGE,)]
    store.upsert(made(LARGE, 8, "many"))
    database.maintain()
    assert run(url, noted) == [(2 * LARGE + 100,)]


def test_the_command(url, database, store):
    """A table of what was tried; exit 1 where the target is out of reach; by hand and back."""
    tune = ("collections", "tune", "large", "-t", "acme")
    refused = cli(*tune, "--url", text(url))
    assert refused.code == 3 and "pgrecall maintain" in refused.err
    database.maintain()
    done = cli(*tune, "--url", text(url), "--recall", "0.9", "--json")
    assert done.code == 0 and done.json["met"] is True
    shown = cli(*tune, "--url", text(url), "--recall", "0.9")
    assert "recall@10" in shown.out and "chosen" in shown.out
    assert cli(*tune, "--url", text(url), "--ef-search", "333").code == 0 and used(store) == 333
    assert "ef_search" in cli("collections", "show", "large", "-t", "acme", "--url", text(url)).out
    assert cli(*tune, "--url", text(url), "--ef-search", "333", "--reset").code == 2
    assert cli(*tune, "--url", text(url), "--reset").code == 0
