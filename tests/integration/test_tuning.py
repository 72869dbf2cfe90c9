"""`db tune`: under row-level security a filter uses the metadata's index, and back again."""

from __future__ import annotations

import psycopg
import pytest

import pgrecall
from conftest import as_dsn
from pgrecall import ConfigurationError, EmbedSpace, migrate, tuning
from support.cli import run as cli
from support.data import chunks

PLAN = """EXPLAIN SELECT id FROM pgrecall.chunks WHERE tenant_id = 'acme' AND metadata @> '{"rare": 7}'"""


def plan(url):
    with psycopg.connect(as_dsn(url)) as connection:
        connection.execute("SET LOCAL ROLE pgrecall_app; SET LOCAL pgrecall.tenant_id = 'acme'")
        return "\n".join(row[0] for row in connection.execute(PLAN))


def test_marks_are_given_and_taken_back(new_database):
    """The plan of a filter, as the application's role, takes the GIN index exactly while the marks are there."""
    url = new_database()
    migrate.upgrade(url)
    with pgrecall.connect(url) as db:
        db.tenant("acme").vectors("c", EmbedSpace("test", "eight", 8)).upsert(chunks(5000))
    with psycopg.connect(as_dsn(url), autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE pgrecall.chunks")
    assert "chunks_metadata_idx" not in plan(url)
    done = cli("db", "tune", "-u", as_dsn(url), "--json").json
    assert done == {"changed": list(tuning.FUNCTIONS), "leakproof": True}
    assert "chunks_metadata_idx" in plan(url)
    assert tuning.tune(url) == []
    assert "NOT LEAKPROOF now" in cli("db", "tune", "--undo", "-u", as_dsn(url)).out
    assert "chunks_metadata_idx" not in plan(url)


def test_who_is_no_superuser_is_told_so(admin_url, app_url):
    """The error says who may, and that nothing is wrong without it."""
    with pytest.raises(ConfigurationError, match="only a superuser"):
        tuning.tune(app_url)
    assert all(f"({a}, {b})" in "".join(tuning.FUNCTIONS) for a, b in (("jsonb", "jsonb"), ("tsvector", "tsquery")))
