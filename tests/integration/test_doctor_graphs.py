"""The doctor's look at graphs: what it measures, when it says something, and that its advice heals."""

from __future__ import annotations

import time

import psycopg
import pytest

from conftest import as_dsn
from pgrecall import GraphBuild, InvalidInput, doctor
from pgrecall.doctor import Sampling
from pgrecall.statements import graphs as sql
from support.cli import run as cli
from support.graphs import LARGE, SPACE, made, run


@pytest.fixture
def store(database):
    store = database.tenant("acme").vectors("large", SPACE)
    store.upsert(made(LARGE))
    return store


def found(database, check, sampling=None):
    return [f for f in doctor.diagnose(database, sampling) if f.check == check]


def test_it_says_when_maintenance_is_due_and_is_content_after_it(database, store):
    """No graph, much that waits, much that is lost: each warns with the command; maintenance settles each."""

    def due(text):
        [finding] = found(database, "graphs")
        assert (finding.status, finding.fix) == ("warn", "pgrecall maintain") and text in finding.found
        database.maintain()
        [finding] = found(database, "graphs")
        assert finding.status == "ok"

    due("no graph")
    store.upsert(made(LARGE, 4, "more"))
    due("50 %")
    store.delete([c.id for c in made(LARGE * 2 // 5 * 2)])
    due("was deleted or changed")


def test_it_measures_recall_against_exact_searches(url, database, store):
    """A good graph finds what an exact search finds; one of too few neighbours does not, and a denser one heals it."""
    database.maintain(build=GraphBuild(m=2, ef_construction=4))
    sampling = Sampling(queries=60, k=20, seconds=60.0)
    [poor] = found(database, "recall", sampling)
    assert poor.status == "warn" and "spaces index 1" in poor.fix and "60 samples" in poor.found
    database.maintain(1, rebuild=True, build=GraphBuild(m=16, ef_construction=64))
    [good] = found(database, "recall", sampling)
    assert good.status == "ok"
    [state] = doctor.examine(database, sampling).graphs
    assert state.recall >= 0.98 and (state.rows, state.waiting, state.lost_share) == (LARGE, 0, 0.0)


def test_its_time_is_bounded_and_it_can_be_left_out(database, store):
    """No sample where none was asked for, none when the time is up; nonsense is refused."""
    database.maintain()
    for sampling in (Sampling(queries=0), Sampling(seconds=0.0)):
        assert found(database, "recall", sampling) == []
        [state] = doctor.examine(database, sampling).graphs
        assert (state.recall, state.recall_queries, state.valid) == (None, 0, True)
    for wrong in ({"queries": -1}, {"k": 0}, {"seconds": -1.0}):
        with pytest.raises(InvalidInput, match="expected"):
            Sampling(**wrong)


def test_its_json_has_the_graphs_in_numbers(url, database, store):
    """`metrics.graphs` has a row for each space with a large collection."""
    database.maintain()
    store.upsert(made(10, 5, "new"))
    report = cli("doctor", "-u", as_dsn(url), "--json", "--recall-queries", "5", "--recall-k", "3").json
    [graph] = report["metrics"]["graphs"]
    assert graph["space_id"] == 1 and graph["valid"] and graph["generation"] == 1
    assert (graph["rows"], graph["waiting"], graph["large_collections"]) == (LARGE + 10, 10, 1)
    assert graph["waiting_share"] == pytest.approx(10 / (LARGE + 10)) and graph["lost_share"] == 0
    assert graph["recall_queries"] == 5 and graph["recall"] > 0.8


def test_an_index_that_is_being_built_is_no_fault_and_one_that_was_left_is(url, database, store):
    """While maintenance holds its lock its graph may be INVALID; afterwards `pgrecall maintain` is the advice."""
    database.maintain()
    run(url, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pgrecall.chunk_vectors_graph_1_1'::regclass")
    with psycopg.connect(as_dsn(url), autocommit=True) as building:
        while building.execute(sql.TRY_LOCK).fetchone() != (True,):  # maintenance's own session may end just now
            time.sleep(0.02)
        assert [f.status for f in found(database, "indexes")] == ["ok"]
    [left] = found(database, "indexes")
    assert (left.status, left.fix) == ("fail", "pgrecall maintain")
    database.maintain()
    assert [f.status for f in found(database, "indexes")] == ["ok"]
