"""Tables of LlamaIndex's own stores in Postgres come over whole, again and again, with the same answers."""

from __future__ import annotations

import json

import numpy as np
import psycopg
import pytest
from llama_index.core.base.llms.types import ChatMessage, ImageBlock
from llama_index.core.schema import IndexNode, TextNode
from llama_index.core.vector_stores.utils import node_to_metadata_dict
from llama_index.storage.chat_store.pgrecall import PGRecallBufferChatStore
from llama_index.vector_stores.pgrecall import PGRecallVectorStore

from conftest import as_dsn
from pgrecall import ConfigurationError, EmbedModel
from pgrecall.imports import llamaindex, vectors
from pgrecall.imports.source import opened
from support.cli import run
from support.llama import source as source_of

MODEL = EmbedModel("test", "peer")
#: As llama-index-vector-stores-postgres 0.9.0, llama-index-storage-chat-store-postgres 0.5.0 and Memory make them.
TABLES = """
CREATE TABLE data_essays (
  id bigserial PRIMARY KEY, text varchar NOT NULL, metadata_ json, node_id varchar, embedding vector(8));
CREATE TABLE chatstore (id serial PRIMARY KEY, key varchar NOT NULL UNIQUE, value json[]);
CREATE TABLE llama_index_memory (
  id serial PRIMARY KEY, key varchar NOT NULL, timestamp bigint NOT NULL, role varchar NOT NULL,
  status varchar NOT NULL, data json NOT NULL);
"""


def node(n):
    metadata = {"zeta": n, "alpha": {"b": 1, "a": n % 3}, "owner": f"o{n % 2}"}
    made = TextNode(
        id_=f"n{n}", text=f"text {n}", metadata=metadata, relationships=source_of(f"d{n % 5}", file_name=f"{n % 5}.md")
    )
    return made if n else IndexNode(id_="n0", text="text 0", index_id="i", metadata=metadata)


def said(n):
    blocks = [ImageBlock(image=b"\x89PNG\r\n\x1a\n")] if n == 3 else []
    message = ChatMessage(role=("user", "assistant")[n % 2], content=f"message {n}", additional_kwargs={"n": n})
    message.blocks += blocks
    return message


@pytest.fixture(scope="module")
def peer(_databases):
    url = _databases()
    made = np.random.default_rng(3).normal(size=(200, 8))
    with psycopg.connect(as_dsn(url)) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute(TABLES)
        for n in [*range(200), 7]:  # adding a node again made a second row
            row = (
                f"text {n}",
                json.dumps(node_to_metadata_dict(node(n), remove_text=True)),
                f"n{n}",
                str(made[n].tolist()),
            )
            connection.execute(
                "INSERT INTO data_essays (text, metadata_, node_id, embedding) VALUES (%s, %s, %s, %s)", row
            )
        for key in ("a", "b"):
            values = [said(n).model_dump_json() for n in range(6)]
            connection.execute("INSERT INTO chatstore (key, value) VALUES (%s, %s::json[])", (key, values))
        for n in range(6):
            row = (
                "s",
                n,
                said(n).role.value,
                "archived" if n < 2 else "active",
                json.dumps(said(n).model_dump(mode="json")),
            )
            connection.execute(
                "INSERT INTO llama_index_memory (key, timestamp, role, status, data) VALUES (%s, %s, %s, %s, %s)", row
            )
    return url


def test_nodes_come_over_exactly_with_the_same_answers(db, tenant_id, peer):
    """Class, text, metadata in its order, sources; a second run changes nothing; the ten nearest agree."""
    with opened(peer) as source:
        rows = llamaindex.table(source, "essays")
        assert vectors.load(db.tenant(tenant_id), rows, "essays", MODEL, dry_run=True).found == 201
        first = vectors.load(db.tenant(tenant_id), rows, "essays", MODEL)
        again = vectors.load(db.tenant(tenant_id), rows, "essays", MODEL, questions=0)
    assert (first.found, first.written, again.written, again.unchanged) == (201, 200, 0, 200)
    assert first.compared == 200 and first.same >= 196
    store = PGRecallVectorStore(connection=db, tenant=tenant_id, collection="essays")
    for n, found in zip((0, 7), store.get_nodes(["n0", "n7"]), strict=True):
        found.embedding = None
        assert found == node(n) and found.hash == node(n).hash and list(found.metadata) == ["zeta", "alpha", "owner"]
    [described] = store.client.list_documents(["d2"])
    assert (described.source, described.content_hash) == ("2.md", "hash of d2")


def test_one_tenants_nodes_come_over_alone(db, tenant_id, peer):
    """By a key of the metadata; what is no such table says what was expected."""
    with opened(peer) as source:
        rows = llamaindex.table(source, "data_essays", only=vectors.Only("owner", "o1"))
        result = vectors.load(db.tenant(tenant_id), rows, "mine", MODEL)
        assert result.written == 100 and result.same >= 0.98 * result.compared > 0
        with pytest.raises(ConfigurationError, match="has no column embedding, metadata_"):
            llamaindex.table(source, "chatstore")
        with pytest.raises(ConfigurationError, match="expected key, value \\(PostgresChatStore"):
            llamaindex.load_chats(db.tenant(tenant_id), source, "essays")


@pytest.mark.parametrize(("table", "keys"), [("chatstore", ["a", "b"]), ("llama_index_memory", ["s"])])
def test_chats_come_over_in_their_order_and_only_once(db, tenant_id, peer, table, keys):
    """Messages exactly, what was archived too; a second run adds nothing."""
    tenant = db.tenant(tenant_id)
    with opened(peer) as source:
        assert llamaindex.load_chats(tenant, source, table, dry_run=True).found == 6 * len(keys)
        first, again = (llamaindex.load_chats(tenant, source, table) for _ in range(2))
    assert (first.written, again.written, again.unchanged) == (6 * len(keys), 0, 6 * len(keys))
    store = PGRecallBufferChatStore(connection=db, tenant=tenant_id)
    assert sorted(store.get_keys()) == keys
    for key in keys:
        assert store.get_messages(key) == [said(n) for n in range(6)]
    if table == "llama_index_memory":
        assert [m.text for m in tenant.chat("s").list_messages(status="archived")] == ["message 0", "message 1"]


def test_the_commands(app_url, admin_url, tenant_id, peer):
    """From the shell: counts as JSON, nodes and messages in the tenant, a wrong option named."""
    url = peer.render_as_string(hide_password=False)
    env = {"PGRECALL_URL": app_url.render_as_string(hide_password=False)}
    output = run(
        "import",
        "llamaindex-postgres",
        "essays",
        "-t",
        tenant_id,
        "--model",
        "test/peer",
        "--from",
        url,
        "--json",
        env=env,
    )
    assert output.code == 0 and output.json["written"] == 200
    output = run("import", "llamaindex-chat", "chatstore", "-t", tenant_id, "--from", url, "--json", env=env)
    assert output.code == 0 and output.json["written"] == 12
    output = run("import", "llamaindex-postgres", "essays", "-t", tenant_id, "--model", "x/y", "--only", "x", env=env)
    assert output.code == 2 and "expected KEY=VALUE" in output.err
