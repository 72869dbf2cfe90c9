"""Up, down and up again, on empty and on filled databases, alone and with others at the same moment."""

from __future__ import annotations

import dataclasses
import multiprocessing
import threading
import time
from concurrent.futures import ProcessPoolExecutor

import psycopg
import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

import pgrecall
from conftest import as_dsn
from pgrecall import ConfigurationError, InvalidInput, MigrationRequired, revisions, schema
from pgrecall.admin import drift, migrate
from support import models

OBJECTS = """
SELECT relname::text FROM pg_class WHERE relnamespace = 'pgrecall'::regnamespace
UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'pgrecall'::regnamespace
UNION ALL SELECT typname FROM pg_type
  WHERE typnamespace = 'pgrecall'::regnamespace AND typtype <> 'c' AND typcategory <> 'A'
ORDER BY 1
"""


def differences(url):
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return drift.differences(connection)


def test_an_empty_database_is_brought_to_what_this_version_declares(new_database):
    """One upgrade makes everything; a second one finds nothing to do."""
    url = new_database()
    assert migrate.pending(url)[0][0] == "0001"
    with pytest.raises(MigrationRequired, match=r"at revision base; .* Run: pgrecall db upgrade"):
        migrate.check(url)
    assert migrate.upgrade(url) == (None, schema.REVISION)
    assert migrate.upgrade(url) == (schema.REVISION, schema.REVISION)
    assert migrate.pending(url) == []
    migrate.check(url)
    assert differences(url) == []


def test_the_code_reads_the_newest_revision():
    """`schema.REVISION`, which the runtime compares with, is the head of the revisions that ship with it."""
    assert migrate.head() == schema.REVISION


def test_up_down_up_leaves_no_difference(new_database, dump):
    """A downgrade undoes its upgrade wholly, so that a second upgrade meets what the first one met."""
    url = new_database()
    migrate.upgrade(url)
    first = dump(url)
    assert sum(line.startswith("CREATE TABLE pgrecall.") for line in first) == len(schema.metadata.tables) + 1
    migrate.downgrade(url, "base")
    migrate.upgrade(url)
    assert dump(url) == first


def test_a_downgrade_of_a_filled_database_leaves_the_version_table_alone(new_database, run, fill):
    """Tables go with their rows, and nobody keeps a right; roles and extension stay: others may use them."""
    url = new_database()
    migrate.upgrade(url)
    fill(url)
    assert run(url, "SELECT count(*) FROM pgrecall.chunk_vectors") == [(40,)]
    assert migrate.downgrade(url, "base") == (schema.REVISION, None)
    assert run(url, OBJECTS) == [("alembic_version",), ("alembic_version_pkc",)]
    acl = "SELECT 1 FROM pg_namespace, aclexplode(nspacl) WHERE nspname = 'pgrecall' AND grantee <> nspowner"
    assert run(url, acl) == []
    assert run(url, "SELECT extname::text FROM pg_extension WHERE extname = 'vector'") == [("vector",)]
    with pgrecall.connect(url) as database, pytest.raises(MigrationRequired, match="pgrecall db upgrade"):
        database.tenant("acme").vectors("handbook", pgrecall.EmbedSpace("test", "eight", 8)).count()


def test_a_downgrade_takes_the_declarations_of_keys_along(new_database, run, fill):
    """Their entries go with the table: taken up again, filters must not go by keys that would find nothing."""
    url = new_database()
    migrate.upgrade(url)
    fill(url)
    with pgrecall.connect(url) as database:
        database.tenant("acme").index_key("handbook", "lang")
    assert run(url, "SELECT count(*) FROM pgrecall.chunk_keys") == [(20,)]
    migrate.downgrade(url, "0002")
    assert run(url, "SELECT DISTINCT settings::text FROM pgrecall.collections") == [("{}",)]
    migrate.upgrade(url)
    assert differences(url) == []
    with pgrecall.connect(url) as database:
        tenant = database.tenant("acme")
        store = tenant.vectors("handbook")
        assert (tenant.collection_info("handbook").indexed_keys, store.count(pgrecall.F.lang == "de")) == ((), 7)
        tenant.index_key("handbook", "lang")
        assert store.count(pgrecall.F.lang == "de") == 7


def test_a_downgrade_deletes_an_unfinished_re_embedding(new_database, run, fill):
    """The vectors of a space that nothing names any more would stay for ever; those that answer do stay."""
    url = new_database()
    migrate.upgrade(url)
    fill(url)
    with pgrecall.connect(url) as database:
        tenant = database.tenant("acme")
        done = tenant.reembed("handbook", models.NEW, models.new, switch=False)
        held = tenant.collection_info("handbook")
    assert (done.embedded, held.next_space) == (held.chunks, models.NEW)
    migrate.downgrade(url, "0009")
    per_space = "SELECT count(*) FROM pgrecall.chunk_vectors WHERE tenant_id = 'acme' GROUP BY collection, space_id"
    assert (held.chunks,) in run(url, per_space)
    assert run(url, "SELECT count(*) FROM pgrecall.chunk_embeddings WHERE embed_model = 'new'") == [(0,)]
    migrate.upgrade(url)
    assert differences(url) == []
    with pgrecall.connect(url) as database:
        assert database.tenant("acme").collection_info("handbook") == dataclasses.replace(held, next_space=None)


def test_a_database_of_a_newer_version_is_left_alone(new_database, run):
    """A revision that this version does not know stops every command with advice, and nothing is changed."""
    url = new_database()
    migrate.upgrade(url)
    run(url, "UPDATE pgrecall.alembic_version SET version_num = '9999'")
    for call in (migrate.upgrade, migrate.pending, migrate.check, lambda url: migrate.downgrade(url, "base")):
        with pytest.raises(MigrationRequired, match=r"revision 9999, which is newer than .*; upgrade the package"):
            call(url)
    assert run(url, "SELECT version_num FROM pgrecall.alembic_version") == [("9999",)]


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_of_another_encoding_is_refused(bare, run, encoding):
    """It could not hold every text: the error says so, and how a database that can is made."""
    name = f"encoded_{encoding.lower()}"
    run(bare, f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    with pytest.raises(ConfigurationError, match=f"encoding {encoding}, .* requires UTF8: CREATE DATABASE"):
        migrate.upgrade(bare.set(database=name))
    run(bare, f"DROP DATABASE {name} WITH (FORCE)")


def test_an_unknown_target_is_refused(new_database):
    """A revision that is nowhere is the caller's mistake, not the database's."""
    with pytest.raises(InvalidInput, match="no SQL for revision '4711'"):
        migrate.sql("4711")
    with pytest.raises(InvalidInput, match=r"can't migrate from revision base to '4711'"):
        migrate.upgrade(new_database(), "4711")


def test_a_revision_sees_the_rows_only_where_it_lifts_the_force(new_owner, bare, run, fill):
    """Row security binds the owner too, so that without `unforced` a revision would change nothing, silently."""
    url = new_owner("owner", "CREATEROLE")
    run(bare.set(database=url.database), "CREATE EXTENSION vector")
    migrate.upgrade(url)
    fill(url)
    retag = "UPDATE pgrecall.chunks SET metadata = metadata || '{\"migrated\": true}'"
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        assert connection.exec_driver_sql(retag).rowcount == 0
        with revisions.unforced("chunks", "documents"):
            assert connection.exec_driver_sql(retag).rowcount == 40
        assert connection.exec_driver_sql(retag).rowcount == 0
    migrate.check(url)


@pytest.fixture
def lock_holder(new_database):
    """A database whose migration lock another session holds."""
    url = new_database()
    with psycopg.connect(as_dsn(url), autocommit=True) as connection:
        connection.execute(f"SELECT pg_advisory_lock({migrate.LOCK_KEY})")
        yield url, connection


def waiting(connection, url, count):
    """Wait until `count` other sessions have requested the lock."""
    asking = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
    deadline = time.monotonic() + 60
    while connection.execute(asking, [url.database]).fetchone()[0] < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_upgrade_waits_for_anothers_lock(lock_holder):
    """While another migration runs nothing is done, and then it is."""
    url, connection = lock_holder
    thread = threading.Thread(target=migrate.upgrade, args=(url,))
    thread.start()
    waiting(connection, url, 1)
    time.sleep(0.3)
    assert connection.execute("SELECT to_regnamespace('pgrecall')").fetchone() == (None,)
    connection.execute("SELECT pg_advisory_unlock_all()")
    thread.join(timeout=30)
    migrate.check(url)


def test_waiting_for_the_lock_ends_with_a_clear_error(lock_holder, monkeypatch):
    """The error after the timeout says what holds the lock and where to look."""
    monkeypatch.setattr(migrate, "LOCK_WAIT_SECONDS", 0.2)
    with pytest.raises(ConfigurationError, match=r"another migration has held the lock .* pg_locks"):
        migrate.upgrade(lock_holder[0])


@pytest.fixture(scope="module")
def processes():
    """Fresh processes, each with the package imported: forked from one that has nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pgrecall.admin.migrate"])
    return lambda count: ProcessPoolExecutor(count, mp_context=context)


def test_twenty_simultaneous_upgrades_of_an_empty_database_all_succeed(lock_holder, processes):
    """One of them migrates, the others find it done."""
    url, connection = lock_holder
    with processes(20) as pool:
        upgrades = [pool.submit(migrate.upgrade, url) for _ in range(20)]
        waiting(connection, url, 20)
        connection.execute("SELECT pg_advisory_unlock_all()")
        moves = sorted((upgrade.result(timeout=60) for upgrade in upgrades), key=str)
    head = schema.REVISION
    assert moves == [*[(head, head)] * 19, (None, head)]
    assert differences(url) == []


def test_two_databases_of_one_server_make_its_roles_at_the_same_moment(bare, run, processes):
    """Roles belong to the server, so the second database uses those of the first, on each repeat."""
    with processes(2) as pool:
        for attempt in range(3):
            urls = [bare.set(database=f"at_once_{attempt}_{n}") for n in range(2)]
            for url in urls:
                run(bare, f"CREATE DATABASE {url.database}")
            list(pool.map(migrate.upgrade, urls))
            for url in urls:
                assert differences(url) == []
                run(bare, f"DROP DATABASE {url.database} WITH (FORCE)")
            run(bare, "DROP ROLE pgrecall_app, pgrecall_maintenance")
