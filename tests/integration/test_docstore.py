"""The document store of the core: entries by id, hashes, what came from each document."""

from __future__ import annotations

import asyncio

import pytest

from conftest import as_dsn
from pgrecall import Chunk, DocstoreEntry, Document, InvalidInput, NotFound, TenantErased
from pgrecall.testing.contract.base import AsyncFace
from pgrecall.testing.contract.data import chunks


@pytest.fixture(params=["sync", "async"])
def docstore(request, db, tenant_id):
    made = db.tenant(tenant_id).docstore("handbook")
    if request.param == "sync":
        yield made
    else:
        with asyncio.Runner() as runner:
            yield AsyncFace(made, runner)
            db.close()


def entry(n: int, **values):
    return DocstoreEntry(
        f"e{n}", **{"hash": f"h{n}", "ref_doc_id": "d", "metadata": {"n": n}, "payload": {"p": n}} | values
    )


def test_entries_come_back_in_the_order_they_came_in(docstore):
    """By ids in the order asked, all in the order written; the same again changes nothing, a part changes that part."""
    entries = [entry(n) for n in (3, 1, 2)]
    assert docstore.put([*entries, entry(1)]) == 3
    assert docstore.put(entries) == 0
    assert docstore.get(["e1", "nope", "e3"]) == [entry(1), entry(3)]
    assert docstore.put([DocstoreEntry("e1", hash="new"), DocstoreEntry("e9", hash="h9")]) == 2
    assert docstore.list_entries() == [entry(3), entry(2), entry(1, hash="new"), DocstoreEntry("e9", "h9")]
    assert docstore.hashes() == {"e3": "h3", "e2": "h2", "e1": "new", "e9": "h9"}
    assert docstore.hashes(["e9", "nope"]) == {"e9": "h9"}
    assert docstore.put([]) == 0 and docstore.get([]) == []


def test_new_only_refuses_what_is_there_with_a_payload(docstore):
    """A hash alone is no entry yet; nothing of a refused call is written."""
    docstore.put([entry(1), DocstoreEntry("e2", hash="h")])
    assert docstore.put([entry(2)], new_only=True) == 1
    with pytest.raises(InvalidInput, match="'e1' already exists"):
        docstore.put([entry(0), entry(1, hash="other")], new_only=True)
    assert docstore.get(["e0", "e1"]) == [entry(1)]


def test_what_came_from_a_document_is_entries_and_chunks(docstore, db, tenant_id, space):
    """Both by one call, each once; metadata is the entries', merged, or what the collection knows of the document."""
    docstore.put([entry(1), entry(2), entry(3, ref_doc_id="other"), entry(4, ref_doc_id=None)])
    db.tenant(tenant_id).vectors("handbook", space).upsert(
        [Chunk("e2", "t", [1.0] * 8, "d"), Chunk("c", "t", [1.0] * 8, "d"), Chunk("x", "t", [1.0] * 8, "alone")],
        documents=[Document("alone", metadata={"k": 1})],
    )
    found = docstore.references()
    assert {doc: of.ids for doc, of in found.items()} == {"d": ["e1", "e2", "c"], "other": ["e3"], "alone": ["x"]}
    assert (found["d"].metadata, found["alone"].metadata) == ({"n": 2}, {"k": 1})
    assert docstore.references(["alone", "nope"]) == {"alone": found["alone"]}


def test_deletes_take_a_document_s_own_entry_with_its_last_part(docstore):
    """delete says how many of the ids there were; delete_document takes the entry and all that came from it."""
    docstore.put([DocstoreEntry("d", "h"), entry(1), entry(2), entry(3, ref_doc_id=None)])
    assert docstore.delete(["e1", "nope"]) == 1
    assert docstore.hashes().keys() == {"d", "e2", "e3"}
    assert docstore.delete(["e2"]) == 1
    assert docstore.hashes().keys() == {"e3"}
    docstore.put([DocstoreEntry("d", "h"), entry(1), entry(2)])
    assert docstore.delete_document("d") == 3
    assert docstore.delete_document("d") == docstore.delete(["d"]) == 0
    assert docstore.hashes().keys() == {"e3"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (DocstoreEntry(""), "id is empty"),
        (DocstoreEntry("a", hash="x\0"), "the hash of entry 'a'"),
        (DocstoreEntry("a", ref_doc_id="x" * 1001), "the ref_doc_id of entry 'a'"),
        (DocstoreEntry("a", metadata={"k": float("nan")}), "the metadata of entry 'a'"),
        (DocstoreEntry("a", payload={"k": "\0"}), "the payload of entry 'a'"),
        ("a", "expected pgrecall.DocstoreEntry"),
    ],
)
def test_a_bad_entry_is_named_and_nothing_is_written(docstore, wrong, message):
    """Whatever of it can't be stored."""
    with pytest.raises(InvalidInput, match=message):
        docstore.put([entry(1), wrong])
    assert docstore.list_entries() == []


def test_nul_characters_can_be_stripped(docstore):
    """From payload and metadata, on request."""
    assert docstore.put([entry(1, payload={"k": "a\0b"}, metadata={"m\0": 1})], on_nul="strip") == 1
    assert docstore.get(["e1"]) == [entry(1, payload={"k": "ab"}, metadata={"m": 1})]


def test_entries_go_with_their_collection_and_tenant_and_stay_when_it_is_emptied(db, tenant_id, space):
    """drop and delete_tenant take them, clear does not; a deleted tenant's store refuses late writers."""
    tenant = db.tenant(tenant_id)
    docstore, store = tenant.docstore("handbook"), tenant.vectors("handbook", space)
    other = tenant.docstore("other")
    for one in (docstore, other):
        one.put([entry(1)])
    with pytest.raises(NotFound):
        store.drop()
    store.upsert(chunks(3))
    assert store.clear().chunks == 3 and docstore.list_entries() == [entry(1)]
    store.upsert(chunks(3))
    assert store.drop().docstore == 1 and docstore.list_entries() == [] and other.list_entries() == [entry(1)]
    assert db.delete_tenant(tenant_id).deleted["docstore"] == 1
    with pytest.raises(TenantErased):
        other.put([entry(1)])


def test_the_document_s_entries_are_found_by_an_index_without_statistics(admin_url, new_database):
    """On tables that were never analyzed, what came from one document is looked up, not searched for."""
    import psycopg

    from pgrecall.statements import docstore as sql

    url = new_database(migrated=True)
    values = {"tenant": "t", "collection": "c", "ids": ["d"]}
    with psycopg.connect(as_dsn(url)) as connection:
        for statement, index in (
            (sql.ENTRIES_OF, "docstore_ref_doc_idx"),
            (sql.CHUNKS_OF, "chunks_document_idx"),
            (sql.DELETE_DOCUMENT, "docstore_ref_doc_idx"),
        ):
            plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {statement}", values, prepare=False))
            assert index in plan, plan
