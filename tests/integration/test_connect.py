"""One Database object: sync and async, several loops, threads, forks, callers' engines."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import threading

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

import pgrecall
from pgrecall import Chunk, ConfigurationError, Database, EmbedSpace, MigrationRequired, Unavailable
from support.data import chunks


@pytest.fixture
def store(db: Database, tenant_id: str, space: EmbedSpace):
    made = db.tenant(tenant_id).vectors("handbook", space)
    made.upsert(chunks(20))
    return made


def test_one_object_serves_sync_calls_and_two_event_loops(store):
    """asyncio.run twice on one store, with synchronous calls before, between and inside."""

    async def ask() -> str:
        [inside] = store.query(chunks(20)[3].embedding, 1)
        [hit] = await store.aquery(chunks(20)[3].embedding, 1)
        assert inside == hit
        return hit.chunk_id

    assert [asyncio.run(ask()), store.query(chunks(20)[3].embedding, 1)[0].chunk_id, asyncio.run(ask())] == [
        "c0003"
    ] * 3
    gc.collect()  # a connection of the first loop that was dropped open would warn here


def test_many_tasks_share_one_pool(db, tenant_id, space):
    """200 concurrent calls on one loop all succeed with a pool of 15."""

    async def ask() -> list[int]:
        store = db.tenant(tenant_id).vectors("handbook", space)
        await store.aupsert(chunks(20))
        return [
            len(hits) for hits in await asyncio.gather(*(store.aquery(chunks(20)[3].embedding, 5) for _ in range(200)))
        ]

    assert asyncio.run(ask()) == [5] * 200


def test_eight_threads_share_one_store(store):
    """Synchronous calls from many threads at once neither fail nor mix."""
    made, wrong = chunks(20), []

    def ask(number: int) -> None:
        found = [store.query(made[number].embedding, 1)[0].chunk_id for _ in range(50)]
        wrong.extend(chunk_id for chunk_id in found if chunk_id != made[number].id)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_threads_with_event_loops_of_their_own(store):
    """Each thread's loop has connections of its own."""
    made, found = chunks(20), []

    def ask(number: int) -> None:
        async def go() -> None:
            hits = [(await store.aquery(made[number].embedding, 1))[0] for _ in range(10)]
            found.extend(hit.chunk_id == made[number].id for hit in hits)

        asyncio.run(go())

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 60


def _in_child(store, queue) -> None:
    made = chunks(20)
    ids = [store.query(made[n].embedding, 1)[0].chunk_id for n in range(20)]
    ids.append(asyncio.run(store.aquery(made[0].embedding, 1))[0].chunk_id)
    queue.put(ids)


def test_a_forked_process_uses_connections_of_its_own(store):
    """Parent and four forked children use one store object at the same time."""
    made = chunks(20)
    store.query(made[0].embedding, 1)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_in_child, args=(store, queue)) for _ in range(4)]
    for child in children:
        child.start()
    for n in range(20):
        assert store.query(made[n].embedding, 1)[0].chunk_id == made[n].id
    results = [queue.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 4
    assert results == [[c.id for c in made] + ["c0000"]] * 4
    assert store.query(made[5].embedding, 1)[0].chunk_id == "c0005"


def test_a_callers_engines_are_used_and_left_as_they_were(app_url, tenant_id, space):
    """Both of a caller's engines work, keep their transaction mode, and are not disposed of."""
    engine = sa.create_engine(app_url, pool_size=1, max_overflow=0)
    made = chunks(10)

    async def ask() -> None:
        async_engine = create_async_engine(app_url, pool_size=1, max_overflow=0)
        async with pgrecall.connect(engine=engine, async_engine=async_engine) as db:
            store = db.tenant(tenant_id).vectors("handbook", space)
            store.upsert(made)
            assert (await store.aquery(made[1].embedding, 1))[0].chunk_id == "c0001"
        async with async_engine.begin() as connection:
            assert (await connection.scalar(sa.text("SELECT current_user"))) == "test_app"
            raw = await connection.get_raw_connection()
            assert raw.driver_connection.autocommit is False
        await async_engine.dispose()

    asyncio.run(ask())
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT 1")) == 1
        assert connection.connection.driver_connection.autocommit is False
        assert connection.scalar(sa.text("SELECT current_setting('pgrecall.tenant_id', true)")) in (None, "")
    engine.dispose()


def test_the_missing_side_of_a_callers_engine_is_named(app_url):
    """With one engine only, calls of the other side say which argument is missing."""
    engine = sa.create_engine(app_url)
    db = pgrecall.connect(engine=engine)

    async def ask() -> None:
        await db.tenant("t").vectors().acount()

    with pytest.raises(ConfigurationError, match="async_engine="):
        asyncio.run(ask())
    engine.dispose()


def test_engines_of_other_drivers_and_databases_are_refused():
    """Only psycopg 3 and only Postgres."""
    with pytest.raises(ConfigurationError, match="sqlite"):
        pgrecall.connect("sqlite://")
    with pytest.raises(ConfigurationError, match="pysqlite"):
        pgrecall.connect(engine=sa.create_engine("sqlite://"))
    with pytest.raises(ConfigurationError, match="both"):
        pgrecall.connect("postgresql://x", engine=sa.create_engine("sqlite://"))


@pytest.mark.parametrize("pool", [sa.StaticPool, sa.SingletonThreadPool])
def test_a_pool_that_shares_one_connection_is_refused(app_url, pool):
    """A transaction of the caller's own on the shared connection would be rolled back by a call: it is left alone."""
    engine = sa.create_engine(app_url, poolclass=pool)
    with engine.begin() as connection:
        connection.execute(sa.text("SET LOCAL application_name = 'mine'"))
        with pytest.raises(ConfigurationError, match=f"{pool.__name__} shares one connection between"):
            pgrecall.connect(engine=engine)
        assert connection.scalar(sa.text("SHOW application_name")) == "mine"
    engine.dispose()


def test_what_is_no_engine_is_refused(app_url):
    """The wrong kind of engine is named, and what was expected, before anything runs."""
    engine, async_engine = sa.create_engine(app_url), create_async_engine(app_url)
    with pytest.raises(ConfigurationError, match=r"^engine is AsyncEngine; expected .*Engine"):
        pgrecall.connect(engine=async_engine)
    with pytest.raises(ConfigurationError, match=r"^async_engine is Engine; expected .*AsyncEngine"):
        pgrecall.connect(async_engine=engine)
    with pytest.raises(ConfigurationError, match=r"^engine is str"):
        pgrecall.connect(engine="postgresql://x")
    with pytest.raises(ConfigurationError, match="invalid database URL"):
        pgrecall.connect("")  # an unset variable: not a reason to take the embedded server


UNFIT = {
    "another encoding": ({"client_encoding": "latin1"}, "client encoding 'iso8859-1'; pgrecall requires UTF-8"),
    "client-side binding": ({"cursor_factory": psycopg.ClientCursor}, "custom row_factory or cursor_factory"),
}


@pytest.mark.parametrize(("connect_args", "message"), UNFIT.values(), ids=UNFIT)
def test_connections_that_read_or_write_other_than_was_sent_are_refused(app_url, connect_args, message):
    """Each time, and before a statement runs."""
    engine = sa.create_engine(app_url, connect_args=connect_args, pool_size=1, max_overflow=0, pool_timeout=2)
    store = pgrecall.connect(engine=engine).tenant("t").vectors()
    for _ in range(3):
        with pytest.raises(ConfigurationError, match=message):
            store.count()
    engine.dispose()


def test_rows_as_dictionaries_are_refused(app_url):
    """A row_factory that a hook of the caller's engine sets would be taken for an old pgvector."""
    engine = sa.create_engine(app_url)
    sa.event.listen(engine, "connect", lambda raw, _: setattr(raw, "row_factory", psycopg.rows.dict_row))
    with pytest.raises(ConfigurationError, match="row_factory"):
        pgrecall.connect(engine=engine).tenant("t").vectors().count()
    engine.dispose()


@pytest.mark.parametrize("threshold", [0, 1])
def test_an_engine_that_prepares_statements_works(app_url, tenant_id, space, threshold):
    """What begins a transaction is several statements, which can't be prepared: it never is."""
    engine = sa.create_engine(app_url, connect_args={"prepare_threshold": threshold})
    store = pgrecall.connect(engine=engine).tenant(tenant_id).vectors("handbook", space)
    for turn in range(4):
        store.upsert(chunks(5, seed=turn))
        assert store.count() == 5
    engine.dispose()


def test_the_environments_client_encoding_changes_no_text(app_url, db, tenant_id, space, monkeypatch):
    """PGCLIENTENCODING is for other programs: texts, ids and metadata are sent as UTF-8 and stored as such."""
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with pgrecall.connect(app_url) as other:
        other.tenant(tenant_id).vectors("handbook", space).upsert([Chunk("é", "ü", [1.0] * 8, metadata={"ä": "ö"})])
    [stored] = db.tenant(tenant_id).vectors("handbook").get(["é"])
    assert (stored.text, stored.metadata) == ("ü", {"ä": "ö"})


def test_an_unmigrated_database_says_which_command_to_run(new_database):
    """Nothing is created behind the caller's back."""
    with pgrecall.connect(new_database()) as db, pytest.raises(MigrationRequired, match="pgrecall db upgrade"):
        db.tenant("t").vectors().count()


def test_an_unreachable_server_is_a_typed_error(space):
    """A refused connection is Unavailable, and says so within the connect timeout."""
    db = pgrecall.connect("postgresql://u:hunter2@127.0.0.1:1/x", connect_timeout=2)
    with pytest.raises(Unavailable, match="can't be reached") as caught:
        db.tenant("t").vectors("c", space).query([1.0] * 8)
    assert "hunter2" not in str(caught.value)


def test_a_closed_database_refuses_calls(app_url):
    """After close every call says so; closing twice is fine."""
    db = pgrecall.connect(app_url)
    db.close()
    db.close()
    with pytest.raises(ConfigurationError, match="closed"):
        db.tenant("t").vectors().count()


def test_settings_come_from_the_environment(app_url, monkeypatch, tenant_id, space):
    """PGRECALL_URL is used where no URL is passed; the plain postgres:// spelling works."""
    plain = app_url.set(drivername="postgresql").render_as_string(hide_password=False)
    monkeypatch.setenv("PGRECALL_URL", plain.replace("postgresql://", "postgres://"))
    with pgrecall.connect() as db:
        assert db.tenant(tenant_id).vectors("handbook", space).count() == 0


def test_a_login_without_the_role_is_refused(app_url):
    """A login that may not act as pgrecall_app gets a configuration error, not rows."""
    with pgrecall.connect(app_url.set(username="test_stranger")) as db, pytest.raises(ConfigurationError, match="role"):
        db.tenant("t").vectors().count()


def test_only_the_maintenance_login_sees_all_tenants(app_url, db, tenant_id):
    """Listing tenants needs the maintenance role; the application's login can't take it."""
    db.create_tenant(tenant_id)
    assert tenant_id in [t.tenant_id for t in db.list_tenants()]
    for call in (lambda alone: alone.list_tenants(), lambda alone: asyncio.run(alone.alist_tenants())):
        with pgrecall.connect(app_url) as alone, pytest.raises(ConfigurationError, match="pgrecall_maintenance"):
            call(alone)


def test_tenants_are_listed_asynchronously_too(app_url, maintenance_url, tenant_id):
    """atenants is the first call of its database, and goes through the maintenance login."""

    async def listed():
        async with pgrecall.connect(app_url, maintenance_url=maintenance_url) as database:
            found = await database.alist_tenants()
            await database.acreate_tenant(tenant_id)
            return len(found), len(await database.alist_tenants())

    before, after = asyncio.run(listed())
    assert after == before + 1


def test_the_embedded_server_is_started_and_migrated_by_connect(reachable, monkeypatch):
    """connect() without anything is a working database, which stops when it is closed."""
    monkeypatch.delenv("PGRECALL_URL", raising=False)
    monkeypatch.setenv("PGRECALL_ADMIN_URL", "postgresql://elsewhere/x")
    home = reachable / f"connect-{os.getpid()}"
    made = chunks(10)
    with pgrecall.connect(home=home) as db:
        store = db.tenant("acme").vectors("handbook", EmbedSpace("test", "eight", 8))
        store.upsert(made)
        assert store.query(made[2].embedding, 1)[0].chunk_id == "c0002"
        assert [t.tenant_id for t in db.list_tenants()] == ["acme"]
    with pgrecall.connect(home=home) as db:
        assert db.tenant("acme").vectors("handbook").count() == 10


def test_a_connection_may_be_a_database_a_url_or_engines(app_url, db):
    """as_database gives a Database back as it is, and opens the rest; what it can't take it says."""
    assert pgrecall.as_database(db) is db
    engine, asynchronous = sa.create_engine(app_url), create_async_engine(app_url)
    for given in (app_url, app_url.render_as_string(hide_password=False), engine, (asynchronous, engine)):
        with pgrecall.as_database(given) as opened:
            assert opened.tenant("nobody").list_collections() == []
    engine.dispose()
    with pgrecall.as_database(asynchronous) as opened, pytest.raises(pgrecall.ConfigurationError, match="engine="):
        opened.tenant("nobody").list_collections()
    for wrong in (7, (engine, engine), (engine, "url")):
        with pytest.raises(pgrecall.ConfigurationError, match=r"expected a pgrecall\.Database, a URL"):
            pgrecall.as_database(wrong)
