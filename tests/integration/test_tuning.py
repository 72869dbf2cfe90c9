"""`db tune`: under row-level security a filter uses the metadata's index, and back again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

import pgrecall
from conftest import as_dsn
from pgrecall import ConfigurationError, EmbedSpace, doctor
from pgrecall.admin import leakproof as tuning
from pgrecall.doctor import filters
from support.cli import run as cli
from support.data import chunks

PLAN = """EXPLAIN SELECT id FROM pgrecall.chunks WHERE tenant_id = 'acme' AND metadata @> '{"rare": 7}'"""


def plan(url):
    with psycopg.connect(as_dsn(url)) as connection:
        connection.execute("SET LOCAL ROLE pgrecall_app; SET LOCAL pgrecall.tenant_id = 'acme'")
        return "\n".join(row[0] for row in connection.execute(PLAN))


def test_marks_are_given_and_taken_back(new_database):
    """The plan of a filter, as the application's role, takes the GIN index exactly while the marks are there."""
    url = new_database(migrated=True)
    with pgrecall.connect(url) as db:
        db.tenant("acme").vectors("c", EmbedSpace("test", "eight", 8)).upsert(chunks(5000))
    with psycopg.connect(as_dsn(url), autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE pgrecall.chunks")
    assert "chunks_metadata_idx" not in plan(url)
    done = cli("db", "tune", "-u", as_dsn(url), "--json").json
    assert done == {"changed": list(tuning.FUNCTIONS), "leakproof": True}
    assert "chunks_metadata_idx" in plan(url)
    assert tuning.tune(url) == []
    assert "now NOT LEAKPROOF" in cli("db", "tune", "--undo", "-u", as_dsn(url)).out
    assert "chunks_metadata_idx" not in plan(url)


def test_a_login_that_is_no_superuser_gets_a_clear_error(admin_url, app_url):
    """The error says who may, and that nothing is wrong without it."""
    with pytest.raises(ConfigurationError, match="only a superuser"):
        tuning.tune(app_url)
    assert all(f"({a}, {b})" in "".join(tuning.FUNCTIONS) for a, b in (("jsonb", "jsonb"), ("tsvector", "tsquery")))


def test_processes_that_tune_at_the_same_moment_take_turns(new_database):
    """One finds it done by the other; neither fails on the function that both would change."""
    url = new_database()
    with ThreadPoolExecutor(8) as pool:
        for undo in (False, True, False):
            assert sorted(map(len, pool.map(lambda _, undo=undo: tuning.tune(url, undo=undo), range(8)))) == [0] * 7 + [
                2
            ]


def test_the_doctor_says_where_filters_read_too_much(new_database, monkeypatch):
    """A large collection warns until its functions are marked, or a key of it is indexed."""
    monkeypatch.setattr(filters, "SLOW_CHUNKS", 20)
    url = new_database(migrated=True)

    def found(db):
        return next((f.status, f.found) for f in doctor.diagnose(db) if f.check == "filters")

    with pgrecall.connect(url) as db:
        tenant = db.tenant("acme")
        tenant.vectors("small", EmbedSpace("test", "eight", 8)).upsert(chunks(20))
        assert found(db)[0] == "ok"
        tenant.vectors("large", EmbedSpace("test", "eight", 8)).upsert(chunks(21))
        status, text = found(db)
        assert status == "warn" and "the largest: 'large' of tenant 'acme', 21" in text
        tuning.tune(url)
        assert found(db) == ("ok", "jsonb_contains is LEAKPROOF, so filters use the index on metadata")
        tuning.tune(url, undo=True)
        assert found(db)[0] == "warn"
        tenant.index_key("large", "lang")
        assert found(db)[0] == "ok"
