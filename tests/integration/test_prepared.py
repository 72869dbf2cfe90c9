"""Prepared searches: which are prepared, for how long, and that losing a statement costs only time."""

from __future__ import annotations

import asyncio
import enum
import logging
import subprocess
import sys

import pytest
from psycopg import _preparing as preparing

import pgrecall
from pgrecall import F
from pgrecall.postgres import prepare_manager, prepared
from support.data import chunks, vectors
from support.graphs import run

SPACE = pgrecall.EmbedSpace("test", "eight", 8)

PREPARED = "SELECT name, generic_plans + custom_plans FROM pg_prepared_statements ORDER BY prepare_time"


@pytest.fixture
def one(app_url):
    """A database with one connection, which every call uses."""
    with pgrecall.connect(app_url, pool_size=1, max_overflow=0) as database:
        yield database


@pytest.fixture
def store(one, tenant_id, space):
    made = one.tenant(tenant_id).vectors("handbook", space)
    made.upsert(chunks(30))
    made.query(vectors(1)[0], 5)  # the first of a process asks how large the collection is: another statement
    return made


def on_it(database, statement):
    """Run a statement on the database's one connection."""
    pooled = database.backend.engines._engine.raw_connection()
    try:
        cursor = pooled.driver_connection.execute(statement)
        return cursor.fetchall() if cursor.description else []
    finally:
        pooled.close()


def test_searches_by_a_vector_alone_are_prepared(one, store, tenant_id, space):
    """Searches by a vector alone share one prepared statement across tenants; nothing else is prepared."""
    right = [hit.chunk_id for hit in store.query(vectors(1)[0], 5)]
    for _ in range(7):
        assert [hit.chunk_id for hit in store.query(vectors(1)[0], 5)] == right
    other = one.tenant(f"{tenant_id}-other").vectors("handbook", space)
    assert other.query(vectors(1)[0], 5) == []
    other.upsert(chunks(3, prefix="other"))
    assert {hit.chunk_id[:5] for hit in other.query(vectors(1)[0], 5)} == {"other"}
    before = on_it(one, PREPARED)
    assert sum(used for _, used in before) >= 8 and all(name.startswith("pgrecall_") for name, _ in before)
    store.query(vectors(1)[0], 5, F.lang == "de")
    store.count()
    store.upsert(chunks(40))
    assert [name for name, _ in on_it(one, PREPARED)] == [name for name, _ in before]


def test_a_statement_is_prepared_again_after_a_while(one, store, monkeypatch):
    """A statement is prepared again after MAX_AGE_SECONDS, and the old one is deallocated."""
    for _ in range(3):
        store.query(vectors(1)[0], 5)
    first = on_it(one, PREPARED)
    monkeypatch.setattr(prepare_manager, "MAX_AGE_SECONDS", 0.0)
    store.query(vectors(1)[0], 5)
    then = on_it(one, PREPARED)
    assert len(first) == len(then) == 2 and len({name for name, _ in [*first, *then]}) == 3


@pytest.mark.parametrize("lost", ["forgotten", "taken"])
def test_a_name_that_is_lost_or_taken_costs_nothing_but_time(one, store, lost, caplog):
    """Behind a pooler without prepared statements the answer is right, and nothing is prepared from then on."""
    right = store.query(vectors(1)[0], 5)
    with caplog.at_level(logging.INFO, "pgrecall"):
        if lost == "forgotten":
            on_it(one, "DEALLOCATE ALL")
        else:
            pooled = one.backend.engines._engine.raw_connection()
            book = pooled.driver_connection._prepared
            book._names.clear()
            book._prepared_idx -= 1
            pooled.close()
        assert store.query(vectors(1)[0], 5) == right
    assert "no longer prepared" in caplog.text
    on_it(one, "DEALLOCATE ALL")
    assert store.query(vectors(1)[0], 5) == right
    assert on_it(one, PREPARED) == []


def test_both_modes_and_the_choice(app_url, tenant_id, space, store):
    """Both modes prepare searches; with `prepare=False` neither does."""

    async def ask(database):
        own = database.tenant(tenant_id).vectors("handbook", space)
        return [[hit.chunk_id for hit in await own.aquery(vectors(1)[0], 5)] for _ in range(3)]

    right = [hit.chunk_id for hit in store.query(vectors(1)[0], 5)]
    for prepare in (True, False):
        with pgrecall.connect(app_url, prepare=prepare, pool_size=1, max_overflow=0) as database:
            assert asyncio.run(ask(database)) == [right] * 3
            same = database.tenant(tenant_id).vectors("handbook", space)
            assert [[hit.chunk_id for hit in same.query(vectors(1)[0], 5)] for _ in range(3)] == [right] * 3
            assert bool(on_it(database, PREPARED)) is prepare


@pytest.mark.parametrize("prepare", [True, False])
def test_an_error_that_is_not_the_names_reaches_the_caller(url, database, prepare, monkeypatch):
    """An error with the SQLSTATE of a lost statement runs the read once more at most, and reaches the caller."""
    database.tenant("acme").vectors("handbook", SPACE).upsert(chunks(3))
    monkeypatch.setattr(prepared, "UNUSABLE", ("42P01",))
    with pgrecall.connect(url, prepare=prepare) as own:
        store = own.tenant("acme").vectors("handbook", SPACE)
        assert len(store.query(vectors(1)[0], 5)) == 3
        run(url, "ALTER TABLE pgrecall.chunks RENAME TO gone")
        with pytest.raises(pgrecall.MigrationRequired, match=r"gone|chunks"):
            store.query(vectors(1)[0], 5)


def test_pgrecall_works_without_the_drivers_private_module(app_url, store, tenant_id):
    """If psycopg has no private module for prepared statements, pgrecall imports and searches, unprepared."""
    url = app_url.render_as_string(hide_password=False)
    code = f"""
import sys
import psycopg, sqlalchemy.dialects.postgresql.psycopg
sys.modules["psycopg._preparing"] = None
import pgrecall
with pgrecall.connect({url!r}, pool_size=1, max_overflow=0) as database:
    store = database.tenant({tenant_id!r}).vectors("handbook", pgrecall.EmbedSpace("test", "eight", 8))
    for _ in range(3):
        assert len(store.query({vectors(1)[0].tolist()!r}, 5)) == 5
    held = database.backend.engines._engine.raw_connection().driver_connection.execute({PREPARED!r}).fetchall()
    assert held == [], held
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


CHANGES = {
    "the class is gone": lambda patch: patch.delattr(preparing, "PrepareManager"),
    "an attribute is gone": lambda patch: patch.setattr(preparing, "PrepareManager", type("PrepareManager", (), {})),
    "a method has other parameters": lambda patch: patch.setattr(preparing.PrepareManager, "key", lambda *given: given),
    "a constant is gone": lambda patch: patch.setattr(preparing, "Prepare", enum.IntEnum("Prepare", ["NO", "YES"])),
}


@pytest.mark.parametrize("change", CHANGES)
def test_searches_are_not_prepared_if_the_drivers_private_module_has_changed(app_url, tenant_id, store, space, change):
    """A member that is missing or has other parameters turns preparing off, and searches answer as before."""
    prepared._manager.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, prepare_manager.__name__)
        CHANGES[change](patch)
        assert prepared._manager() is None
    with pgrecall.connect(app_url, pool_size=1, max_overflow=0) as database:
        same = database.tenant(tenant_id).vectors("handbook", space)
        for _ in range(3):
            assert len(same.query(vectors(1)[0], 5)) == 5
        assert on_it(database, PREPARED) == []
    prepared._manager.cache_clear()
