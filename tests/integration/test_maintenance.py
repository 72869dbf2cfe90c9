"""Maintenance of graphs: what is done when, what is left behind, and who may."""

from __future__ import annotations

import asyncio
import logging
import threading

import numpy as np
import psycopg
import pytest

import pgrecall
from conftest import as_dsn
from pgrecall import (
    Chunk,
    ConfigurationError,
    Conflict,
    EmbedSpace,
    GraphBuild,
    InvalidInput,
    NotFound,
)
from pgrecall.admin import drift, migrate
from pgrecall.maintenance import maintainer
from pgrecall.maintenance.indexes import graph_bytes, owning
from pgrecall.operations.search.routes import exact_max
from pgrecall.statements import graphs as statements
from support.cli import run as cli
from support.graphs import GRAPHS, LARGE, SPACE, ids, made, recall, run, truth, vectors


@pytest.fixture
def store(database):
    """A large collection, without a graph yet."""
    store = database.tenant("acme").vectors("large", SPACE)
    store.upsert(made(LARGE))
    return store


def did(database, *args, **options):
    return [(d.action, d.generation) for d in database.maintain(*args, **options)]


def test_a_graph_that_lost_a_fifth_of_its_rows_is_rebuilt(database, store):
    """Deleted rows stay in a graph until vacuum; a new one is cheaper than repairing the old."""
    chunks = made(LARGE * 2)
    store.upsert(chunks)
    database.maintain()
    store.delete([c.id for c in chunks[: LARGE // 2]])
    assert did(database) == [("built", 2)]
    assert recall(store, chunks[LARGE // 2 :]) >= 0.99


def test_what_a_failed_build_left_is_dropped_and_a_finished_one_taken_over(url, database, store):
    """A maintainer that died between two steps costs time, never rows: the next one goes on from there."""
    database.maintain()
    run(url, "UPDATE pgrecall.embed_spaces SET graph_generation = 0, graph_rows = 0")
    assert store.query(vectors(1)[0], 3)
    assert did(database) == [("none", 1)]
    run(url, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pgrecall.chunk_vectors_graph_1_1'::regclass")
    database.backend.routes.known.clear()
    assert len(store.query(vectors(1)[0], 3)) == 3
    assert did(database) == [("built", 2)]


def test_a_graph_that_no_collection_needs_is_dropped(url, database, store):
    """When the last large collection is gone its space has no graph; the next one gets the first generation again."""
    database.maintain()
    store.delete([c.id for c in made(LARGE)[: LARGE * 2 // 5]])
    assert did(database) == [("none", 1)]  # below the limit, yet not by half: no building and dropping in turns
    database.delete_tenant("acme")
    assert did(database) == [("dropped", 0)]
    assert run(url, GRAPHS) == []
    assert did(database) == [("exact", 0)]
    other = database.tenant("other").vectors("large", SPACE)
    other.upsert(made(LARGE))
    assert did(database) == [("built", 1)]
    assert recall(other, made(LARGE)) >= 0.99


def test_rows_of_a_dropped_graph_are_found_and_enter_the_next(url, database, store):
    """Whatever number a row has from a graph that is gone: it waits, is found, and moves."""
    database.maintain()
    run(url, "DROP INDEX pgrecall.chunk_vectors_graph_1_1")
    run(url, "UPDATE pgrecall.chunk_vectors SET graph = 500")
    run(url, "UPDATE pgrecall.embed_spaces SET graph_generation = 0, graph_rows = 0")
    database.backend.routes.known.clear()
    assert recall(store, made(LARGE)) == 1.0
    assert did(database) == [("built", 1)]
    assert run(url, "SELECT graph, count(*) FROM pgrecall.chunk_vectors GROUP BY 1") == [(1, LARGE)]


def test_generations_begin_again_where_their_numbers_end(url, database, store):
    """After graph 32,766 comes graph 1, with every row in it, and stale knowledge of the old one finds all."""
    database.maintain()
    run(url, "ALTER INDEX pgrecall.chunk_vectors_graph_1_1 RENAME TO chunk_vectors_graph_1_32766")
    run(url, "UPDATE pgrecall.embed_spaces SET graph_generation = 32766")
    assert did(database) == [("none", 32766)]
    database.backend.routes.known.clear()
    store.query(vectors(1)[0])
    known = dict(database.backend.routes.known)
    assert did(database, rebuild=True) == [("built", 1)]
    assert run(url, GRAPHS) == [("chunk_vectors_graph_1_1",)]
    for remembered in (known, {}):
        database.backend.routes.known.clear()
        database.backend.routes.known.update(remembered)
        assert recall(store, made(LARGE)) >= 0.99


def test_how_a_graph_is_built_can_be_said_and_is_kept(url, database, store):
    """A denser graph stays as dense when a later maintenance builds the next; what Postgres would refuse is refused."""
    database.maintain(build=GraphBuild(memory="64MB", workers=0, m=24, ef_construction=100))
    store.upsert(made(LARGE, 3, "more"))
    assert did(database) == [("built", 2)]
    options = run(url, "SELECT reloptions FROM pg_class WHERE relname = 'chunk_vectors_graph_1_2'")
    assert options == [(["m=24", "ef_construction=100"],)]
    for wrong in (
        {"memory": "much"},
        {"m": 1},
        {"m": True},
        {"ef_construction": 2_000},
        {"m": 60, "ef_construction": 64},
    ):
        with pytest.raises(InvalidInput, match="expected"):
            GraphBuild(**wrong)


def test_a_parallel_build_without_shared_memory_goes_on_alone(url, database, store, caplog):
    """If 64 MB of shared memory end a parallel build, one process builds the graph, and a warning says so."""
    run(url, "ALTER TABLE pgrecall.chunk_vectors SET (parallel_workers = 2)")
    with caplog.at_level(logging.WARNING, "pgrecall"):
        assert did(database, build=GraphBuild(memory="900GB", workers=2)) == [("built", 1)]
    assert "in parallel failed" in caplog.text
    assert run(url, GRAPHS) == [("chunk_vectors_graph_1_1",)]


def test_a_build_that_does_not_fit_its_memory_says_so(database, store, caplog):
    """pgvector's notice reaches the log with what to do about it."""
    with caplog.at_level(logging.WARNING, "pgrecall"):
        database.maintain(build=GraphBuild(memory="1MB", workers=0))
    assert "no longer fits" in caplog.text and "--memory" in caplog.text


def test_vectors_too_long_for_a_graph_stay_exact_and_a_graph_for_them_is_refused(url, database):
    """Above 4,000 dimensions maintenance skips the space, and a request for the graph gets the reason."""
    number = database.add_space(EmbedSpace("test", "long", 4_001))
    assert did(database) == [("exact", 0)]
    with pytest.raises(InvalidInput, match="4,000 dimensions"):
        database.maintain(number, rebuild=True)
    refused = cli("spaces", "index", number, "-u", as_dsn(url))
    assert refused.code == 2 and "4,000 dimensions" in " ".join(refused.err.split())


def test_a_large_collection_of_long_vectors_is_searched_exactly(database):
    """600 vectors of 4,096 dims are more than a graph begins at: maintained, optimized and searched without one."""
    long = EmbedSpace("test", "long", 4_096)
    made = np.random.default_rng(0).normal(size=(600, long.dim)).astype(np.float32)
    store = database.tenant("acme").vectors("long", long)
    store.upsert([Chunk(f"c{n:03d}", "x", vector) for n, vector in enumerate(made)])
    assert exact_max(long.dim) < 600 and did(database) == [("exact", 0)]
    assert store.optimize().action == "exact"
    hits = store.query(made[7], 10, explain=True)
    assert (hits.explanation.shape, hits[0].chunk_id, len(hits)) == ("exact", "c007", 10)


def test_progress_tells_what_is_done(database, store):
    """Marking counts rows up to all of them; the build shows its phases."""
    heard = []
    database.maintain(progress=lambda *event: heard.append(event))
    assert heard[0] == ("space 1: marking rows for graph 1", LARGE, LARGE)
    assert all(0 <= done <= total or total == 0 for _, done, total in heard)


def test_an_interrupted_build_ends_on_the_server_and_leaves_nothing(url, database, store):
    """After Ctrl-C, or an error in the progress callback, a waiting build leaves no index and no lock."""

    def stop(what, *_):
        if "waiting for writers" in what:
            raise KeyboardInterrupt

    with psycopg.connect(as_dsn(url)) as writing:
        writing.execute("UPDATE pgrecall.chunk_vectors SET embed_norm = 2 WHERE chunk_id = 'c00000'")
        with pytest.raises(KeyboardInterrupt):
            database.maintain(progress=stop)
        active = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%' AND state = 'active'"
        assert run(url, active) == [(0,)]
    assert did(database) == [("built", 1)]
    assert run(url, GRAPHS) == [("chunk_vectors_graph_1_1",)]


def test_one_maintainer_at_a_time_and_only_with_the_owner(url, database, store):
    """A second maintainer gets an error or waits; without the owner's login the message says what is missing."""
    with psycopg.connect(as_dsn(url), autocommit=True) as other:
        assert other.execute(statements.TRY_LOCK).fetchone() == (True,)
        for options in ({}, {"wait": 0.3}):
            with pytest.raises(Conflict, match="another process is maintaining"):
                database.maintain(**options)
        ends = threading.Timer(0.5, other.close)
        ends.start()
        assert did(database, wait=60.0) == [("built", 1)]
        ends.join()
    with pytest.raises(NotFound, match="space 99 does not exist"):
        database.maintain(99)
    with pgrecall.connect(url) as ownerless, pytest.raises(ConfigurationError, match="PGRECALL_ADMIN_URL"):
        ownerless.maintain()


def test_amaintain_leaves_the_loop_free_and_a_cancelled_one_stops(url, database, store):
    """The event loop goes on while a graph is built; a cancelled call returns when the work has ended, not before."""

    async def work():
        task = asyncio.ensure_future(database.amaintain())
        ticks = 0
        while not task.done():
            ticks += 1
            await asyncio.sleep(0.005)
        assert [d.action for d in await task] == ["built"] and ticks > 3
        with psycopg.connect(as_dsn(url), autocommit=True) as other:
            other.execute(statements.TRY_LOCK)
            waiting = asyncio.ensure_future(database.amaintain(rebuild=True, wait=60.0))
            await asyncio.sleep(0.3)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await database.aclose()

    asyncio.run(work())
    assert not [t for t in threading.enumerate() if t.name.startswith("pgrecall-build")]
    assert run(url, GRAPHS) == [("chunk_vectors_graph_1_1",)]


def test_the_command_line_maintains_and_indexes(url, database, store):
    """`maintain`, `spaces index` and `spaces drop` do what the library does."""
    at = ("-u", as_dsn(url))
    [done] = cli("maintain", *at, "--wait", "5", "--json").json
    assert (done["action"], done["rows"]) == ("built", LARGE)
    [again] = cli("spaces", "index", "1", *at, "--m", "20", "--memory", "64MB", "--workers", "1", "--json").json
    assert (again["action"], again["generation"]) == ("built", 2)
    refused = cli("spaces", "index", "1", *at, "--method", "ivfflat")
    assert refused.code == 2 and "recall" in refused.err
    store.drop()
    assert cli("maintain", *at, "--json").json[0]["action"] == "dropped"
    assert "has no collection" in cli("spaces", "index", "1", *at).err
    assert cli("spaces", "drop", "1", "--yes", *at).code == 0


def test_dropping_a_space_yields_to_a_maintainer(url, database, store):
    """While a maintainer works, and may be building its graph, it is refused, and nothing is gone."""
    database.maintain()
    store.drop()
    at = ("-u", as_dsn(url))
    with psycopg.connect(as_dsn(url), autocommit=True) as other:
        other.execute(statements.TRY_LOCK)
        assert cli("spaces", "drop", "1", "--yes", *at).code == 3
        assert run(url, GRAPHS) == [("chunk_vectors_graph_1_1",)]
    assert cli("spaces", "drop", "1", "--yes", *at).code == 0
    assert run(url, GRAPHS) == []


def test_graphs_are_no_drift_and_a_downgrade_takes_them_back(url, database, store):
    """What maintenance makes belongs to the database as much as what revisions make."""
    database.maintain()
    with database.backend.engines.sync_gate().bare() as tx:
        assert drift.compare(tx.rows) == []
    migrate.downgrade(url, "0001")
    assert run(url, "SELECT count(*) FROM pgrecall.chunk_vectors WHERE graph <> 32767") == [(0,)]
    migrate.upgrade(url)
    database.backend.routes.known.clear()
    assert len(store.query(vectors(1)[0], 5)) == 5
    assert did(database) == [("built", 1)]


def test_writers_faster_than_a_graph_do_not_hold_maintenance_up(database, store, monkeypatch):
    """As many rows enter as waited when it looked: those that come meanwhile wait for the next time."""
    database.maintain()
    store.upsert(made(250, 4, "few"))
    entered = []

    def promote(gate, place, *args, **options):
        store.upsert([Chunk(f"late{len(entered)}", "late", vectors(1, len(entered))[0])])
        entered.append(real(gate, place, *args, **options))
        return entered[-1]

    real = maintainer.promote
    monkeypatch.setattr(maintainer, "promote", promote)
    [done] = database.maintain()
    assert (done.action, done.rows) == ("entered", 250)


def test_nearer_rows_that_were_deleted_are_no_answer_and_hide_none(database, store):
    """The 60 nearest, then a fifth at random, deleted and not vacuumed: 10 of 10, and the right ones."""
    database.maintain()
    chunks, [question] = made(LARGE), vectors(1, 5)
    gone = set(truth(chunks, question, 60)) | {c.id for c in chunks[::5]}
    store.delete(sorted(gone))
    left = [c for c in chunks if c.id not in gone]
    hits = store.query(question, 10)
    assert len(hits) == 10 and not set(ids(hits)) & gone
    assert recall(store, left) >= 0.99


def test_a_build_takes_what_it_needs_and_no_more_than_the_server_has(url, database):
    """Memory is by the rows and their length, between 96 MB and the larger of the server's own settings."""
    with owning(url, "public", threading.Event()) as indexes:
        most = max(indexes._work_mem, indexes._shared_buffers)
        small, huge = (indexes._memory(n * graph_bytes(384, 16), GraphBuild()) for n in (1_000, 10**9))
        assert small == f"{96 * 1024}kB" and huge == f"{max(most, 96 * 2**20) // 1024}kB"
        assert indexes._memory(1, GraphBuild(memory="3GB")) == "3GB"
