"""Where nobody maintains: upserts take a few rows into the graph, `optimize` what it may, and the log says the rest."""

from __future__ import annotations

import asyncio
import logging

import pytest

import pgrecall
from conftest import LOGINS
from pgrecall import Chunk, ConfigurationError, DatabaseError, NotFound, OptimizeResult
from pgrecall.operations.chunks import promotion
from pgrecall.statements import graphs as sql
from support.graphs import LARGE, SPACE, made, recall, run, vectors

WAITING = "SELECT count(*) FROM pgrecall.chunk_vectors WHERE graph = 32767 AND collection = 'large'"


@pytest.fixture(scope="module")
def filled(_databases, admin_url):
    """A database with a large collection, its graph, and 300 waiting rows; tests work on copies of it."""
    url = _databases(migrated=True)
    run(url, LOGINS)
    with pgrecall.connect(url, admin_url=url, promote_on_upsert=False) as owner:
        store = owner.tenant("acme").vectors("large", SPACE)
        store.upsert(made(LARGE))
        owner.maintain()
        store.upsert(made(300, 7, "wait"))
    return url


@pytest.fixture
def url(request, new_database, admin_url):
    """With the logins of production; filled if the test uses `store`."""
    if "store" in request.fixturenames:
        return new_database(request.getfixturevalue("filled"))
    url = new_database(migrated=True)
    run(url, LOGINS)
    return url


@pytest.fixture
def owner(url):
    with pgrecall.connect(url, admin_url=url, promote_on_upsert=False) as opened:
        yield opened


@pytest.fixture
def app(url):
    """The application, which can neither maintain nor index."""
    with pgrecall.connect(url.set(username="test_app")) as opened:
        yield opened


@pytest.fixture
def store(app):
    """That collection, as the application."""
    return app.tenant("acme").vectors("large", SPACE)


def waiting(url):
    return run(url, WAITING)[0][0]


def test_an_upsert_enters_a_few_waiting_rows(url, store):
    """Four for each row that it wrote, a hundred at most, its own among them; all are found as before."""
    store.upsert(made(1, 8, "one"))
    assert waiting(url) == 300 + 1 - 4
    store.upsert(made(40, 9, "forty"))
    assert waiting(url) == 297 + 40 - 100
    asyncio.run(store.aupsert(made(2, 10, "async")))
    assert waiting(url) == 237 + 2 - 8
    chunks = made(LARGE) + made(300, 7, "wait") + made(1, 8, "one") + made(40, 9, "forty") + made(2, 10, "async")
    assert recall(store, chunks) >= 0.99


def test_an_upsert_that_writes_nothing_or_much_enters_none(url, store):
    """What is unchanged costs nothing more; and many rows are maintenance's, which is cheaper then."""
    store.upsert(made(300, 7, "wait"))
    assert waiting(url) == 300
    store.upsert(made(101, 11, "many"))
    assert waiting(url) == 401


def test_small_collections_and_those_outside_the_graph_are_left_alone(url, app, store):
    """A small one is searched exactly, and one that maintenance never saw is its to take in."""
    for name, count in (("small", 50), ("new", LARGE)):
        other = app.tenant("acme").vectors(name, SPACE)
        other.upsert(made(count, 12))
        other.upsert(made(1, 13, "one"))
    assert run(url, "SELECT count(*) FROM pgrecall.chunk_vectors WHERE graph < 32767") == [(LARGE,)]


def test_it_can_be_switched_off(url, store):
    """With promote_on_upsert=False rows wait for maintenance."""
    with pgrecall.connect(url.set(username="test_app"), promote_on_upsert=False) as app:
        app.tenant("acme").vectors("large", SPACE).upsert(made(1, 8, "one"))
    assert waiting(url) == 301


def test_no_failure_of_it_is_a_failure_of_the_upsert(url, store, monkeypatch, caplog):
    """What was committed stays, the result comes, the log has the reason."""

    def fails(*args, **options):
        raise DatabaseError("the graph is on fire")

    monkeypatch.setattr(promotion, "promote", fails)
    with caplog.at_level(logging.INFO, "pgrecall"):
        assert store.upsert(made(1, 8, "one")).written == 1
    assert "on fire" in caplog.text and waiting(url) == 301


def test_an_atomic_block_is_left_alone(url, app, owner, store):
    """Inside one an upsert enters no rows, for it has not committed; and a graph is maintained after it."""
    with app.tenant("acme").atomic():
        store.upsert(made(1, 8, "one"))
    assert waiting(url) == 301
    with owner.tenant("acme").atomic():
        for call in (owner.maintain, owner.tenant("acme").vectors("large", SPACE).optimize):
            with pytest.raises(ConfigurationError, match="after the block"):
                call()


def test_rows_that_writers_hold_are_passed_by(url, app, store):
    """Promotion waits for nobody: a row that another transaction holds stays waiting, the rest enters."""
    gate = app.backend.engines.sync_gate()
    scope = app.backend.scope(gate, "acme")
    held = (
        "SELECT chunk_id FROM pgrecall.chunk_vectors WHERE tenant_id = %(tenant)s AND graph = 32767 LIMIT 50 FOR UPDATE"
    )
    with gate.transaction(scope) as tx:
        assert len(tx.rows(held, {"tenant": "acme"})) == 50
        assert store.optimize() == OptimizeResult("entered", LARGE + 250, 50)
    assert store.optimize() == OptimizeResult("entered", LARGE + 300, 0)


def test_a_promotion_takes_the_scan_index_and_looks_rows_up(url, app, store):
    """EXPLAIN, as the application, on tables without statistics: no walk over the collection for each row."""
    gate = app.backend.engines.sync_gate()
    params = {"tenant": "acme", "collection": "large", "space": 1, "generation": 1, "batch": 100}
    with gate.transaction(app.backend.scope(gate, "acme")) as tx:
        plan = "\n".join(row[0] for row in tx.rows("EXPLAIN " + sql.PROMOTE, params))
    assert "chunk_vectors_scan_idx" in plan and "chunk_vectors_pkey" in plan
    assert "Seq Scan" not in plan and "Hash" not in plan


def test_optimize_does_what_the_login_may(url, app, owner, store, monkeypatch):
    """The application enters rows, a bounded number; with the owner's login it is maintenance of the space."""
    monkeypatch.setattr(promotion, "OPTIMIZE_MOST", 200)
    assert store.optimize() == OptimizeResult("entered", LARGE + 200, 100)
    assert asyncio.run(store.aoptimize()) == OptimizeResult("entered", LARGE + 300, 0)
    assert store.optimize() == OptimizeResult("none", LARGE + 300, 0)
    theirs = owner.tenant("acme").vectors("large", SPACE)
    theirs.upsert(made(LARGE, 14, "more"))
    assert asyncio.run(theirs.aoptimize()) == OptimizeResult("built", 2 * LARGE + 300, 0)
    assert theirs.optimize() == OptimizeResult("none", 2 * LARGE + 300, 0)


def test_optimize_of_small_unknown_and_graphless_collections(app, owner):
    """A small one needs nothing; an unknown one is NotFound; a large one without a graph says who can make it."""
    small, large = (app.tenant("acme").vectors(name, SPACE) for name in ("small", "large"))
    small.upsert(made(10))
    assert small.optimize() == OptimizeResult("exact", 0, 10)
    with pytest.raises(NotFound, match="does not exist"):
        app.tenant("acme").vectors("nothing", SPACE).optimize()
    large.upsert(made(LARGE))
    with pytest.raises(ConfigurationError, match="PGRECALL_ADMIN_URL"):
        large.optimize()
    assert owner.tenant("acme").vectors("large", SPACE).optimize().action == "built"


def test_the_log_asks_for_maintenance_once(url, app, owner, caplog):
    """A large collection without a graph, or with many waiting rows, is logged once an hour for each space."""
    store = app.tenant("acme").vectors("large", SPACE)
    store.upsert(made(LARGE))
    with caplog.at_level(logging.WARNING, "pgrecall"):
        for _ in range(3):
            app.backend.routes.known.clear()
            store.query(vectors(1)[0])
        assert len(caplog.records) == 1 and "pgrecall maintain" in caplog.text
        owner.maintain()
        store.upsert(made(LARGE, 3, "more"))
        app.backend.routes.known.clear()
        app.backend.routes.warned.clear()
        store.upsert([Chunk("one", "one", vectors(1, 4)[0])])
    assert len(caplog.records) == 2 and "yet" in caplog.text
