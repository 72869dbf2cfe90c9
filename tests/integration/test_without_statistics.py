"""A database that was never analyzed, or before a tenant was there: work must stay linear in the rows.

So is every database at its first ingest, and at each new tenant's. The planner then takes a collection for one row:
where two indexes begin alike, or a join leaves it the choice, it walked the collection once for each row, and a
filtered search of 6,000 chunks took 42 seconds.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg
import pytest
import sqlalchemy as sa

import pgrecall
from conftest import NewDatabase, as_dsn
from pgrecall import Document, EmbedSpace, F, PostgresVectorStore
from support.data import chunks

ROWS = 400
#: What a call may read, in rows and index entries. Linear work is some times ROWS; quadratic is 50,000 and more.
BOUND = 12 * ROWS

made = chunks(ROWS)
bare = [replace(c, embedding=None) for c in made]
tagged = [replace(c, metadata={**c.metadata, "lang": "it"}) for c in made]
question = made[0].embedding

CALLS: dict[str, Callable[[PostgresVectorStore], object]] = {
    "query": lambda store: store.query(question, 10),
    "query, all": lambda store: store.query(question, ROWS),
    "query, filter": lambda store: store.query(question, 10, F.lang == "de"),
    "query, ids": lambda store: store.query(question, 10, ids=[c.id for c in made[::3]]),
    "query, documents": lambda store: store.query(question, 10, doc_ids=[c.doc_id for c in made[::15]]),
    "get": lambda store: store.get([c.id for c in made], with_embeddings=True),
    "list": lambda store: store.list_chunks(F.lang == "de", limit=ROWS),
    "count": lambda store: store.count(F.lang == "de"),
    "upsert, unchanged": lambda store: store.upsert(made),
    "upsert, changed": lambda store: store.upsert([replace(c, text="new", embedding=-c.embedding) for c in made]),
    "upsert, vectors kept": lambda store: store.upsert(bare),
    "replace_document": lambda store: store.replace_document(Document("c-doc-0"), made[:2]),
    "set_metadata": lambda store: store.set_metadata({"seen": True}, filters=F.lang == "de"),
    "delete": lambda store: store.delete(filters=F.lang == "de"),
    "delete, ids": lambda store: store.delete([c.id for c in made[::3]]),
    "delete_by_doc_id": lambda store: store.delete_by_doc_id("c-doc-0"),
    "drop": lambda store: store.drop(),
}
#: The same on a collection with declared keys.
KEYED: dict[str, Callable[[PostgresVectorStore], object]] = {
    "query, filter": CALLS["query, filter"],
    "query, two filters": lambda store: store.query(question, 10, (F.lang == "de") & (F.n < 200)),
    "query, alternatives": lambda store: store.query(question, 10, (F.lang == "de") | F.n.in_([1, 2, 3])),
    "list": CALLS["list"],
    "count": CALLS["count"],
    "upsert, unchanged": CALLS["upsert, unchanged"],
    "upsert, changed": lambda store: store.upsert(tagged),
    "set_metadata": lambda store: store.set_metadata({"lang": "it"}, filters=F.lang == "de"),
    "delete": CALLS["delete"],
    "drop": CALLS["drop"],
}
_tenants = itertools.count()


@pytest.fixture(scope="module", params=["never analyzed", "analyzed before the tenant came"])
def unaware(request: pytest.FixtureRequest, _databases: NewDatabase, space_of_module: EmbedSpace) -> sa.URL:
    """A database whose statistics, if any, know nothing of the tenants to come."""
    url = _databases(migrated=True)
    with psycopg.connect(as_dsn(url), autocommit=True) as connection:
        for table in ("tenants", "collections", "documents", "chunks", "chunk_vectors", "chunk_keys"):
            connection.execute(f"ALTER TABLE pgrecall.{table} SET (autovacuum_enabled = false)")
        if request.param != "never analyzed":
            with pgrecall.connect(url) as db:
                db.tenant("first").vectors("c", space_of_module).upsert(chunks(3000))
            connection.execute("ANALYZE")
    return url


@pytest.fixture(scope="module")
def space_of_module() -> EmbedSpace:
    return EmbedSpace("test", "eight", 8)


@pytest.fixture
def admin(unaware: sa.URL) -> Iterator[psycopg.Connection]:
    with psycopg.connect(as_dsn(unaware), autocommit=True) as connection:
        yield connection


def rows_read(connection: psycopg.Connection) -> int:
    """Rows and index entries that finished connections read in pgrecall's tables so far."""
    others = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgrecall'"
    while connection.execute(others).fetchone() is not None:
        time.sleep(0.01)
    [total] = connection.execute("""
        SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = 'pgrecall')
             + (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = 'pgrecall')""").fetchone()
    return int(total)


@pytest.mark.parametrize("call", CALLS)
def test_no_call_reads_a_collection_once_a_row(unaware, admin, space: EmbedSpace, call):
    """Each verb reads a number of rows that grows with the rows it is about, not with their square."""
    tenant = f"tenant-{next(_tenants)}"
    with pgrecall.connect(unaware) as db:
        db.tenant(tenant).vectors("c", space).upsert(made)
    before = rows_read(admin)
    with pgrecall.connect(unaware) as db:
        CALLS[call](db.tenant(tenant).vectors("c", space))
    assert 0 < rows_read(admin) - before <= BOUND


@pytest.mark.parametrize("call", KEYED)
def test_no_call_with_declared_keys_reads_a_collection_once_a_row(unaware, admin, space: EmbedSpace, call):
    """Looking keys up, and keeping their entries, grows with the rows that the call is about."""
    tenant = f"tenant-{next(_tenants)}"
    with pgrecall.connect(unaware) as db:
        db.tenant(tenant).vectors("c", space).upsert(made)
        db.tenant(tenant).index_key("c", "lang")
        db.tenant(tenant).index_key("c", "n", "number")
    before = rows_read(admin)
    with pgrecall.connect(unaware) as db:
        KEYED[call](db.tenant(tenant).vectors("c", space))
    assert 0 < rows_read(admin) - before <= 2 * BOUND


def test_erasing_a_tenant_reads_no_others_entries(unaware, admin, space: EmbedSpace):
    """Its entries of declared keys are found by the tenant, not by reading those of all."""
    with pgrecall.connect(unaware) as db:
        tenant = db.tenant(f"tenant-{next(_tenants)}")
        tenant.vectors("c", space).upsert(made)
        for key, kind in (("lang", "text"), ("n", "number"), ("tags", "text")):
            tenant.index_key("c", key, kind)
        db.create_tenant("without-any")
    before = rows_read(admin)
    with pgrecall.connect(unaware) as db:
        db.delete_tenant("without-any")
    assert rows_read(admin) - before <= ROWS


def test_keys_are_filled_in_linear_time(unaware, admin, space: EmbedSpace):
    """Declaring a key reads each chunk a few times, and dropping it each entry."""
    tenant = f"tenant-{next(_tenants)}"
    with pgrecall.connect(unaware) as db:
        db.tenant(tenant).vectors("c", space).upsert(made)
    before = rows_read(admin)
    with pgrecall.connect(unaware) as db:
        db.tenant(tenant).index_key("c", "n", "number")
        db.tenant(tenant).unindex_key("c", "n", "number")
    assert 0 < rows_read(admin) - before <= BOUND


def test_ingest_stays_linear_as_a_collection_grows(unaware, admin, space: EmbedSpace):
    """Ten batches into a new collection read no more for the last one than for the first."""
    tenant = f"tenant-{next(_tenants)}"
    before = rows_read(admin)
    with pgrecall.connect(unaware) as db:
        db.tenant(tenant).vectors("c", space).upsert(made, commit_every=ROWS // 10)
    assert 0 < rows_read(admin) - before <= BOUND
