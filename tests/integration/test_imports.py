"""Tables of other libraries come over whole: dry run, counts, again and again, and the same answers in both."""

from __future__ import annotations

import json
import uuid

import numpy as np
import psycopg
import pytest

import pgrecall
from conftest import as_dsn
from pgrecall import ConfigurationError, EmbedModel, InvalidInput, NotFound
from pgrecall.imports import chats, store, vectors
from pgrecall.imports.source import opened
from support.cli import run

MODEL = EmbedModel("test", "peer")

#: As langchain-postgres 0.0.19 makes them.
TABLES = """
CREATE TABLE "Docs" (
  langchain_id uuid PRIMARY KEY, content text NOT NULL, embedding vector(8) NOT NULL, tenant text, year int,
  langchain_metadata json);
CREATE TABLE langchain_pg_collection (uuid uuid PRIMARY KEY, name varchar UNIQUE NOT NULL, cmetadata json);
CREATE TABLE langchain_pg_embedding (
  id varchar PRIMARY KEY, collection_id uuid REFERENCES langchain_pg_collection, embedding vector, document varchar,
  cmetadata jsonb);
CREATE TABLE chat_history (
  id serial PRIMARY KEY, session_id uuid NOT NULL, message jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE store (
  prefix text NOT NULL, key text NOT NULL, value jsonb NOT NULL, created_at timestamptz DEFAULT now(),
  updated_at timestamptz DEFAULT now(), expires_at timestamptz, ttl_minutes int, PRIMARY KEY (prefix, key));
CREATE TABLE store_vectors (
  prefix text NOT NULL, key text NOT NULL, field_name text NOT NULL, embedding vector(8),
  PRIMARY KEY (prefix, key, field_name));
"""


def text(vector: np.ndarray) -> str:
    return "[" + ",".join(map(str, vector)) + "]"


@pytest.fixture(scope="module")
def peer(_databases):
    """A database with the peers' tables, filled."""
    url = _databases()
    made = np.random.default_rng(7).normal(size=(300, 8))
    sessions = [uuid.UUID(int=n) for n in (1, 2)]
    with psycopg.connect(as_dsn(url)) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute(TABLES)
        for n, vector in enumerate(made):
            row = (uuid.UUID(int=n), f"text {n}", text(vector), f"t{n % 2}", 2000 + n, json.dumps({"n": n}))
            connection.execute('INSERT INTO "Docs" VALUES (%s, %s, %s, %s, %s, %s)', row)
        collections = {name: uuid.uuid4() for name in ("handbook", "other")}
        for name, number in collections.items():
            connection.execute("INSERT INTO langchain_pg_collection VALUES (%s, %s, NULL)", (number, name))
            for n, vector in enumerate(made[:50]):
                row = (f"{name}-{n}", number, text(vector), f"{name} {n}", json.dumps({"n": n, "owner": f"o{n % 5}"}))
                connection.execute("INSERT INTO langchain_pg_embedding VALUES (%s, %s, %s, %s, %s)", row)
        for n in range(30):
            data = {"content": f"message {n}", "id": f"m{n}" if n % 3 == 0 else None, "additional_kwargs": {"n": n}}
            message = {"type": ("human", "ai")[n % 2], "data": data}
            row = (sessions[n % 2], json.dumps(message))
            connection.execute("INSERT INTO chat_history (session_id, message) VALUES (%s, %s)", row)
        for n in range(40):
            expires = ("now() - interval '1 day'", "now() + interval '1 day'", "NULL")[n % 3]
            made_by = f"INSERT INTO store VALUES (%s, %s, %s, now(), now(), {expires}, %s)"
            where = (f"users.u{n % 4}", f"k{n}")
            connection.execute(made_by, (*where, json.dumps({"n": n}), 30 if n % 3 == 1 else None))
            for field in ("text", "tags[*].0"):
                connection.execute("INSERT INTO store_vectors VALUES (%s, %s, %s, %s)", (*where, field, text(made[n])))
    return url


def test_a_vector_table_comes_over_with_the_same_answers(db, tenant_id, peer):
    """Ids, texts, metadata with columns, vectors; a second run changes nothing; the ten nearest agree."""
    with opened(peer) as source:
        rows = vectors.table(source, "Docs")
        assert vectors.load(db.tenant(tenant_id), rows, "docs", MODEL, dry_run=True) == vectors.Imported(
            300, 0, 0, dry_run=True
        )
        assert db.tenant(tenant_id).list_collections() == []
        calls = []
        progress = lambda done, total: calls.append((done, total))  # noqa: E731 the shortest there is
        first = vectors.load(db.tenant(tenant_id), rows, "docs", MODEL, progress=progress)
        assert (first.found, first.written, first.unchanged) == (300, 300, 0) and calls[-1] == (300, 300)
        assert first.compared == 200 and first.same >= 198
        again = vectors.load(db.tenant(tenant_id), rows, "docs", MODEL, questions=0)
        assert (again.written, again.unchanged, again.compared) == (0, 300, 0)
    [chunk] = db.tenant(tenant_id).vectors("docs").get([str(uuid.UUID(int=5))])
    assert (chunk.text, chunk.metadata) == ("text 5", {"n": 5, "tenant": "t1", "year": 2005})


def test_one_tenants_rows_of_a_table_come_over_alone(db, tenant_id, peer):
    """By a column or by a key of the metadata; the comparison goes by those rows too."""
    with opened(peer) as source:
        rows = vectors.table(source, "Docs", only=vectors.Only("tenant", "t1"))
        result = vectors.load(db.tenant(tenant_id), rows, "docs", EmbedModel("test", "peer", "l2"))
        assert (result.found, result.written) == (150, 150) and result.same >= 0.98 * result.compared > 0
        owned = vectors.table(source, "langchain_pg_embedding", collection="handbook", only=vectors.Only("owner", "o3"))
        assert vectors.load(db.tenant(tenant_id), owned, "owned", MODEL).written == 10
    assert {c.id for c in db.tenant(tenant_id).vectors("owned").list_chunks()} == {
        f"handbook-{n}" for n in range(3, 50, 5)
    }


def test_collections_of_the_older_store_come_over(db, tenant_id, peer):
    """Each by its name; none named is an error that names them."""
    with opened(peer) as source:
        rows = vectors.table(source, "langchain_pg_embedding", collection="other")
        assert vectors.load(db.tenant(tenant_id), rows, "other", EmbedModel("test", "peer", "ip")).written == 50
        with pytest.raises(InvalidInput, match="expected one of: handbook, other"):
            vectors.table(source, "langchain_pg_embedding")
    assert db.tenant(tenant_id).vectors("other").get(["other-7"])[0].metadata == {"n": 7, "owner": "o2"}


def test_chats_come_over_in_their_order_and_only_once(db, tenant_id, peer):
    """Session by session; messages as LangChain's adapter reads them; a second run adds nothing."""
    pytest.importorskip("langchain_pgrecall", reason="the adapter is not installed")
    tenant = db.tenant(tenant_id)
    with opened(peer) as source:
        assert chats.load(tenant, source, "chat_history", dry_run=True).found == 30 and tenant.list_chats() == []
        first, again = (chats.load(tenant, source, "chat_history") for _ in range(2))
    assert (first.found, first.written, first.unchanged) == (30, 30, 0)
    assert (again.written, again.unchanged) == (0, 30)
    messages = tenant.chat(str(uuid.UUID(int=1))).list_messages()
    assert [m.text for m in messages] == [f"message {n}" for n in range(0, 30, 2)]
    assert {m.role for m in messages} == {"user"} and messages[0].framework == "langchain"


def test_a_store_comes_over_with_its_vectors_and_lifetimes(db, tenant_id, peer):
    """Namespaces, keys, values; expired items stay behind; a second run changes nothing; the nearest is the nearest."""
    tenant = db.tenant(tenant_id)
    with opened(peer) as source:
        assert store.load(tenant, source, dry_run=True).found == 26
        first, again = (store.load(tenant, source, model=MODEL) for _ in range(2))
        [(asked,)] = source.rows(psycopg.sql.SQL("SELECT embedding::text FROM store_vectors WHERE key = 'k5' LIMIT 1"))
    assert (first.written, again.written, again.unchanged) == (26, 0, 26)
    memory = tenant.memory(actor="test")
    assert memory.search_facts(vector=json.loads(asked), top_k=1)[0].key == "k5"
    lives = {f.key: f.ttl for f in memory.search_facts(namespace=("users", "u1"), top_k=100)}
    assert lives["k1"] == 1800 and lives["k5"] is None and "k9" not in lives


def test_what_is_no_table_of_theirs_is_refused(db, tenant_id, peer):
    """Missing tables and strange ones, with what was found."""
    with opened(peer) as source:
        with pytest.raises(NotFound, match="table 'nothing' does not exist"):
            vectors.table(source, "nothing")
        with pytest.raises(ConfigurationError, match="has no column langchain_id, content"):
            vectors.table(source, "chat_history")
        with pytest.raises(ConfigurationError, match="has no column id, message, session_id"):
            chats.load(db.tenant(tenant_id), source, "Docs")
    with pytest.raises(pgrecall.Unavailable), opened("postgresql://localhost:1/nothing"):
        pass


def test_the_command_line_imports(admin_url, app_url, tenant_id, peer, monkeypatch):
    """Dry run, import with the check, again; a file is still what else is named."""
    monkeypatch.setenv("PGRECALL_URL", as_dsn(app_url))
    monkeypatch.setenv("PGRECALL_ADMIN_URL", as_dsn(admin_url))
    given = ["import", "langchain-postgres", "Docs", "-t", tenant_id, "--model", "test/peer", "--from", as_dsn(peer)]
    assert run(*given, "--dry-run", "--json").json["found"] == 300
    calls = run(*given, "-c", "docs", "--json").json
    assert (calls["written"], calls["compared"]) == (300, 200) and calls["same"] >= 198
    assert "300 unchanged" in run(*given, "-c", "docs").out
    assert run("import", "langchain-postgres", "nothing", *given[3:]).code == 1
    assert run(*given, "--distance", "hamming").code == 2
    assert run("import", "no-such-file.jsonl").code == 2
    history = ["import", "langchain-history", "chat_history", "-t", tenant_id, "--from", as_dsn(peer), "--dry-run"]
    assert "30 messages found" in run(*history).out
