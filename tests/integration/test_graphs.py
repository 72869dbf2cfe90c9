"""The graph tier: large collections are found by a graph, with the same answers, whatever happens around it."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import psycopg
import pytest

import pgrecall
from conftest import as_dsn
from pgrecall import Chunk, ConfigurationError, Conflict, EmbedSpace, F, NotFound, doctor, drift, migrate
from pgrecall.operations import graphs, search
from pgrecall.schema import WAITING
from pgrecall.statements import graphs as statements
from pgrecall.statements import search as searches
from pgrecall.statements.reads import Where
from support.cli import run as cli

DIM = 16
SPACE = EmbedSpace("test", "sixteen", DIM)
LARGE = graphs.exact_max(DIM) + 500


def vectors(count, seed=0):
    made = np.random.default_rng(seed).normal(size=(count, DIM))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def made(count, seed=0, prefix="c"):
    return [Chunk(f"{prefix}{n:05d}", f"text {n}", v) for n, v in enumerate(vectors(count, seed))]


@pytest.fixture
def url(new_database):
    url = new_database()
    migrate.upgrade(url)
    return url


@pytest.fixture
def database(url):
    with pgrecall.connect(url, admin_url=url) as opened:
        yield opened


@pytest.fixture
def shapes(monkeypatch):
    """The names of the shapes that ran."""
    ran = []
    for name in ("exact", "graph"):
        shape = getattr(search, name)
        monkeypatch.setattr(search, name, lambda gate, q, s=shape, n=name: (ran.append(n), s(gate, q))[1])
    return ran


def run(url, statement, *params):
    with psycopg.connect(as_dsn(url), autocommit=True) as connection:
        cursor = connection.execute(statement, params or None)
        return cursor.fetchall() if cursor.description else None


def ids(hits):
    return [hit.chunk_id for hit in hits]


def truth(chunks, vector, k=10):
    matrix = np.array([c.embedding for c in chunks], dtype=np.float16).astype(np.float32)
    return [chunks[i].id for i in np.argsort(-(matrix @ np.asarray(vector, np.float32)), kind="stable")[:k]]


def recall(store, chunks, count=20):
    questions = vectors(count, 99)
    return np.mean([len(set(ids(store.query(q, 10))) & set(truth(chunks, q))) / 10 for q in questions])


def test_a_large_collection_is_searched_by_its_graph_and_a_small_one_exactly(database, shapes):
    """Maintenance builds the graph; then the router takes it, where and only where the collection is large."""
    large, small = (database.tenant("acme").vectors(name, SPACE) for name in ("large", "small"))
    chunks = made(LARGE)
    large.upsert(chunks)
    small.upsert(chunks[:50])
    large.query(chunks[0].embedding)
    assert shapes == ["exact"]
    [done] = database.maintain()
    assert (done.action, done.rows, done.generation) == ("built", LARGE, 1)
    shapes.clear()
    assert recall(large, chunks) >= 0.99
    assert set(shapes) == {"graph"}
    shapes.clear()
    assert small.query(chunks[0].embedding, 1)[0].chunk_id == "c00000"
    assert shapes == ["exact"]
    assert [d.action for d in database.maintain()] == ["none"]


def test_the_plan_of_a_graph_search_takes_the_graph_and_the_index_of_what_waits(url, database):
    """EXPLAIN, as the application's role: the partial HNSW for the graph's rows, the scan index for what waits."""
    store = database.tenant("acme").vectors("large", SPACE)
    store.upsert(made(LARGE))
    database.maintain()
    gate = database._engines.sync_gate()
    scope = database._scope(gate, "acme").setting({"enable_sort": "off", "hnsw.iterative_scan": "relaxed_order"})
    statement = "EXPLAIN " + searches.nearest_by_graph("cosine", Where.of(None), 1, DIM, 1)
    vector = str(vectors(1)[0].tolist())
    params = {"tenant": "acme", "collection": "large", "space": 1, "k": 10, "fetch": 100, "query": vector}
    params |= {"provider": "test", "model": "sixteen", "dim": DIM, "distance": "cosine"}
    with gate.transaction(scope) as tx:
        plan = "\n".join(row[0] for row in tx.rows(statement, params))
    assert "Index Scan using chunk_vectors_graph_1_1" in plan
    assert "chunk_vectors_scan_idx" in plan
    assert "Seq Scan on chunk_vectors" not in plan


def test_rows_are_found_before_they_enter_the_graph_and_after(url, database, shapes):
    """New and changed vectors wait beside the graph, a few enter it, and many make a new one."""
    store = database.tenant("acme").vectors("large", SPACE)
    chunks = made(LARGE)
    store.upsert(chunks)
    database.maintain()
    [new] = made(1, 7, "new")
    store.upsert([new, Chunk("c00003", "moved", -chunks[3].embedding)])
    assert ids(store.query(new.embedding, 1)) == ["new00000"]
    assert ids(store.query(-chunks[3].embedding, 1)) == ["c00003"]
    assert "graph" in shapes
    assert run(url, "SELECT count(*) FROM pgrecall.chunk_vectors WHERE graph = %s", WAITING) == [(2,)]
    [done] = database.maintain()
    assert (done.action, done.rows, done.generation) == ("entered", 2, 1)
    assert ids(store.query(new.embedding, 1)) == ["new00000"]
    store.upsert(made(LARGE, 8, "more"))
    [done] = database.maintain()
    assert (done.action, done.rows, done.generation) == ("built", 2 * LARGE + 1, 2)
    assert ids(store.query(new.embedding, 1)) == ["new00000"]
    names = "SELECT relname::text FROM pg_class WHERE relname LIKE 'chunk_vectors_graph%'"
    assert run(url, names) == [("chunk_vectors_graph_1_2",)]


def test_nearer_rows_of_other_tenants_and_deleted_ones_hide_none(database, shapes):
    """300 nearer vectors of another tenant in the same graph, and the 60 nearest deleted without vacuum: 10 of 10."""
    mine, theirs = (database.tenant(t).vectors("large", SPACE) for t in ("mine", "theirs"))
    chunks, [question] = made(LARGE), vectors(1, 5)
    near = question + np.random.default_rng(3).normal(scale=0.01, size=(300, DIM))
    mine.upsert(chunks)
    theirs.upsert(made(LARGE, 2) + [Chunk(f"near{n}", "nearer", v) for n, v in enumerate(near)])
    database.maintain()
    assert ids(mine.query(question, 10)) == truth(chunks, question)
    gone = truth(chunks, question, 60)
    mine.delete(gone)
    left = [c for c in chunks if c.id not in gone]
    assert len(set(ids(mine.query(question, 10))) & set(truth(left, question))) >= 9
    assert len(mine.query(question, 10)) == 10
    assert set(shapes) == {"graph"}


@pytest.mark.parametrize("every", [2, 40, 600, 100_000])
def test_a_filter_finds_its_rows_in_the_graph_beside_it_and_outside(database, shapes, every):
    """Half of the rows, some, a few, one: what matches is found, waiting rows too, and nothing else."""
    store = database.tenant("acme").vectors("large", SPACE)
    chunks = [replace(c, metadata={"n": n, "hit": n % every == 0}) for n, c in enumerate(made(LARGE))]
    fresh = [replace(c, metadata={"hit": n % every == 0}) for n, c in enumerate(made(100, 6, "new"))]
    store.upsert(chunks)
    database.maintain()
    store.upsert(fresh)
    matching = [c for c in chunks + fresh if c.metadata["hit"]]
    found = []
    for question in vectors(10, 99):
        hits = store.query(question, 10, F.hit == True)  # noqa: E712 -- builds a filter
        assert len(hits) == min(10, len(matching)) and all(hit.metadata["hit"] for hit in hits)
        found.append(len(set(ids(hits)) & set(truth(matching, question))) / len(hits))
    assert np.mean(found) >= 0.99
    assert set(shapes) == {"graph"}
    assert store.query(vectors(1)[0], 10, F.hit == "no") == []


def test_a_graph_that_lost_a_fifth_of_its_rows_is_built_anew(database):
    """Deleted rows stay in a graph until vacuum; a new one is cheaper than repairing the old."""
    store = database.tenant("acme").vectors("large", SPACE)
    chunks = made(LARGE * 2)
    store.upsert(chunks)
    database.maintain()
    store.delete([c.id for c in chunks[: LARGE // 2]])
    [done] = database.maintain()
    assert (done.action, done.generation) == ("built", 2)
    assert recall(store, chunks[LARGE // 2 :]) >= 0.99


def test_what_a_failed_build_left_is_dropped_and_a_finished_one_taken_over(url, database):
    """A maintainer that died between two steps costs time, never rows: the next one goes on from there."""
    store = database.tenant("acme").vectors("large", SPACE)
    store.upsert(made(LARGE))
    database.maintain()
    run(url, "UPDATE pgrecall.embed_spaces SET graph_generation = 0, graph_rows = 0")
    assert store.query(vectors(1)[0], 3)
    assert [(d.action, d.generation) for d in database.maintain()] == [("none", 1)]
    run(url, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'pgrecall.chunk_vectors_graph_1_1'::regclass")
    database._routes.known.clear()
    assert len(store.query(vectors(1)[0], 3)) == 3
    assert [(d.action, d.generation) for d in database.maintain()] == [("built", 2)]


def test_the_command_line_maintains_and_indexes(url, database):
    """`maintain`, `spaces index` and `spaces drop` do what the library does, and the doctor says when it is time."""
    store = database.tenant("acme").vectors("large", SPACE)
    store.upsert(made(LARGE))
    at = ("-u", as_dsn(url))
    [found] = [f for f in doctor.diagnose(database) if f.check == "graphs"]
    assert (found.status, found.fix) == ("warn", "pgrecall maintain") and "no graph" in found.found
    [done] = cli("maintain", *at, "--json").json
    assert (done["action"], done["rows"]) == ("built", LARGE)
    assert [f.status for f in doctor.diagnose(database) if f.check == "graphs"] == ["ok"]
    [again] = cli("spaces", "index", "1", *at, "--json").json
    assert (again["action"], again["generation"]) == ("built", 2)
    store.upsert(made(LARGE, 4, "more"))
    [found] = [f for f in doctor.diagnose(database) if f.check == "graphs"]
    assert found.status == "warn" and "50 %" in found.found
    store.drop()
    assert cli("spaces", "drop", "1", "--yes", *at).code == 0
    assert run(url, "SELECT 1 FROM pg_class WHERE relname LIKE 'chunk_vectors_graph%'") == []


def test_one_maintainer_at_a_time_and_only_with_the_owner(url, database):
    """A second one is told so and changes nothing; without the owner's login the message says what is missing."""
    with psycopg.connect(as_dsn(url), autocommit=True) as other:
        assert other.execute(statements.TRY_LOCK).fetchone() == (True,)
        with pytest.raises(Conflict, match="another process maintains"):
            database.maintain()
    with pytest.raises(NotFound, match="no space 99"):
        database.maintain(99)
    with pgrecall.connect(url) as ownerless, pytest.raises(ConfigurationError, match="PGRECALL_ADMIN_URL"):
        ownerless.maintain()


def test_searches_and_writes_go_on_while_a_graph_is_built(database):
    """Nobody waits for maintenance, nothing is lost, and every search finds the row it looks for."""
    store = database.tenant("acme").vectors("large", SPACE)
    chunks = made(LARGE)
    store.upsert(chunks)
    stop, failed = threading.Event(), []

    def work(write):
        n = 0
        while not stop.is_set():
            n += 1
            try:
                if write:
                    store.upsert([Chunk(f"w{n}", "w", vectors(1, n)[0]), Chunk("c00001", "moved", vectors(1, n)[0])])
                elif ids(store.query(chunks[7].embedding, 1)) != ["c00007"]:
                    failed.append("a row was not found")
            except Exception as exc:  # noqa: BLE001 -- whatever it is, the test tells it
                failed.append(repr(exc))

    threads = [threading.Thread(target=work, args=(write,)) for write in (True, True, False, False)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            database.maintain(rebuild=True)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []


def test_graphs_are_no_drift_and_a_downgrade_takes_them_back(url, database):
    """What maintenance makes belongs to the database as much as what revisions make."""
    database.tenant("acme").vectors("large", SPACE).upsert(made(LARGE))
    database.maintain()
    with database._engines.sync_gate().bare() as tx:
        assert drift.compare(tx.rows) == []
    migrate.downgrade(url, "0001")
    assert run(url, "SELECT count(*) FROM pgrecall.chunk_vectors WHERE graph <> 32767") == [(0,)]
    migrate.upgrade(url)
    database._routes.known.clear()
    assert len(database.tenant("acme").vectors("large", SPACE).query(vectors(1)[0], 5)) == 5
    assert [d.action for d in database.maintain()] == ["built"]
