"""LangGraph's store on facts: batches, filters, meaning, lifetimes, erasure, and an agent that remembers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchItem,
    SearchOp,
)

from langchain_pgrecall import PGRecallStore
from pgrecall import ConfigurationError, EmbedModel, FilterError, InvalidInput, SubjectErased
from support.words import Words

MODEL = EmbedModel("test", "words")
USER = ("users", "ana")


@pytest.fixture
def store(db, tenant_id) -> PGRecallStore:
    """A store without an index."""
    return PGRecallStore(connection=db, tenant=tenant_id)


@pytest.fixture
def indexed(db, tenant_id) -> PGRecallStore:
    """A store that embeds two fields of each item."""
    index = {"dims": 16, "embed": Words(), "fields": ["text", "tags[*]"]}
    return PGRecallStore(connection=db, tenant=tenant_id, index=index, space=MODEL)


def keys(items: list[SearchItem]) -> list[str]:
    return [item.key for item in items]


def vectors(admin_connection: Any, tenant: str) -> list[str]:
    """The fields that have a vector, from outside."""
    rows = admin_connection.execute(
        "SELECT f.key || '.' || v.field FROM pgrecall.fact_vectors v JOIN pgrecall.memory_facts f "
        "ON f.tenant_id = v.tenant_id AND f.id = v.fact_id WHERE v.tenant_id = %s ORDER BY 1",
        [tenant],
    )
    return [row[0] for row in rows]


def test_items_are_put_got_overwritten_and_deleted(store):
    """Values come back exactly; created_at survives an overwrite, updated_at grows; deleting twice is no error."""
    value = {"a": 1, "b": [1.5, None, {"c": "ключ"}], "empty": {}, "yes": True}
    store.put(USER, "k", value)
    first = store.get(USER, "k")
    assert isinstance(first, Item) and (first.namespace, first.key, first.value) == (USER, "k", value)
    store.put(USER, "k", {"a": 2})
    second = store.get(USER, "k")
    assert (second.value, second.created_at) == ({"a": 2}, first.created_at) and second.updated_at > first.updated_at
    store.delete(USER, "k")
    store.delete(USER, "k")
    assert store.get(USER, "k") is None and store.search(USER) == []
    store.put(USER, "k", {"a": 3})
    assert store.get(USER, "k").value == {"a": 3}


def test_both_faces_and_two_event_loops(store):
    """Put, get, search, list and delete awaited, in one loop after another, with sync calls between."""

    async def visit(n: int) -> list[str]:
        await store.aput(USER, f"k{n}", {"n": n})
        assert (await store.aget(USER, f"k{n}")).value == {"n": n}
        assert await store.alist_namespaces() == [USER]
        found = await store.asearch(("users",), filter={"n": {"$gte": 0}})
        return sorted(keys(found))

    assert asyncio.run(visit(1)) == ["k1"]
    store.put(USER, "k2", {"n": 2})
    assert asyncio.run(visit(3)) == ["k1", "k2", "k3"]
    asyncio.run(store.adelete(USER, "k1"))
    assert store.get(USER, "k1") is None


def test_a_batch_reads_before_it_writes(store):
    """Reads see what was there; of two writes of one item the last counts; results in the order of the operations."""
    store.put(USER, "old", {"n": 0})
    results = store.batch([
        PutOp(USER, "new", {"n": 1}),
        GetOp(USER, "new"),
        GetOp(USER, "old"),
        PutOp(USER, "old", None),
        SearchOp(USER),
        PutOp(USER, "new", {"n": 2}),
        ListNamespacesOp(),
        PutOp(USER, "gone", {"n": 9}),
        PutOp(USER, "gone", None),
        GetOp(("nobody",), "k"),
    ])  # fmt: skip
    assert [results[i] for i in (0, 1, 3, 5, 7, 8, 9)] == [None] * 7
    assert (results[2].value, keys(results[4]), results[6]) == ({"n": 0}, ["old"], [USER])
    assert store.get(USER, "old") is None and store.get(USER, "new").value == {"n": 2} and len(store.search(())) == 1
    assert store.batch([]) == []


@pytest.mark.parametrize("namespace", [(), ("a.b",), ("",), ("langgraph", "x"), (1,), ("users", None)])
def test_labels_are_checked_in_a_batch_too(store, namespace):
    """Before anything of the batch is written."""
    with pytest.raises(InvalidNamespaceError):
        store.batch([PutOp(USER, "fine", {"n": 1}), PutOp(namespace, "k", {"n": 1})])
    with pytest.raises(InvalidNamespaceError):
        asyncio.run(store.abatch([PutOp(namespace, "k", {"n": 1})]))
    assert store.search(()) == []
    with pytest.raises(InvalidInput, match="expected a dict"):
        store.batch([PutOp(USER, "k", "text")])
    with pytest.raises(InvalidInput, match="expected a langgraph Op"):
        store.batch(["put"])


def test_prefixes_are_whole_labels_taken_literally(store):
    """`acme` is no part of `acme-corp`, nor `_` and `%` any character."""
    for namespace in (("acme",), ("acme", "x"), ("acme-corp",), ("acme_corp", "x"), ("a%",), ("ab",)):
        store.put(namespace, "k", {"n": 1})
    assert sorted(i.namespace for i in store.search(("acme",))) == [("acme",), ("acme", "x")]
    assert [i.namespace for i in store.search(("acme_corp",))] == [("acme_corp", "x")]
    assert [i.namespace for i in store.search(("a%",))] == [("a%",)]
    assert store.search(("a",)) == [] and len(store.search(())) == 6
    assert store.list_namespaces(prefix=("acme",)) == [("acme",), ("acme", "x")]


def test_filters_compare_numbers_as_numbers_and_refuse_what_they_do_not_know(store):
    """Operators, nested objects, keys with dots; text is no number; unknown operators are errors."""
    for n in (2, 10, 100):
        store.put(USER, f"k{n}", {"n": n, "x": {"y": n, "z": 1}, "a.b": str(n)})
    store.put(USER, "text", {"n": "50"})

    def found(**conditions: Any) -> list[str]:
        return sorted(keys(store.search(USER, filter=conditions)))

    assert found(n={"$gt": 9}) == ["k10", "k100"] and found(n={"$gte": 10, "$lt": 100}) == ["k10"]
    assert found(n=2) == found(n={"$eq": 2}) == ["k2"]
    assert found(n={"$ne": 2}) == ["k10", "k100", "text"] and found(missing={"$ne": 1}) == sorted(found())
    assert found(x={"y": 10}) == ["k10"] and found(x={"y": {"$lte": 10}, "z": 1}) == ["k10", "k2"]
    assert found(**{"a.b": "100"}) == ["k100"] and found(n={"$gt": "4"}) == ["text"]
    for unknown in ({"n": {"$in": [1]}}, {"n": {"$gt": 1, "lt": 2}}):
        with pytest.raises(FilterError, match="unknown operator"):
            store.search(USER, filter=unknown)
    assert keys(store.search(USER)) == ["text", "k100", "k10", "k2"]  # the newest first
    assert keys(store.search(USER, limit=2, offset=1)) == ["k100", "k10"]


def test_namespaces_are_listed_by_prefix_suffix_wildcard_and_depth(store):
    """As LangGraph's own stores list them."""
    for path in ("users/ana/notes", "users/bob/notes", "users/bob/facts/v1", "docs/v1"):
        store.put(tuple(path.split("/")), "k", {})
    assert store.list_namespaces(suffix=("notes",)) == [("users", "ana", "notes"), ("users", "bob", "notes")]
    assert store.list_namespaces(prefix=("users", "*", "facts")) == [("users", "bob", "facts", "v1")]
    assert store.list_namespaces(max_depth=1) == [("docs",), ("users",)]
    assert store.list_namespaces(prefix=("users",), max_depth=2, limit=1, offset=1) == [("users", "bob")]
    conditions = (MatchCondition("prefix", ("users",)), MatchCondition("suffix", ("v1",)))
    assert store.batch([ListNamespacesOp(conditions)]) == [[("users", "bob", "facts", "v1")]]


def test_items_are_found_by_meaning_in_any_of_their_fields(indexed):
    """The best field counts; scores are similarities; filters and prefixes hold; without a query the newest come."""
    indexed.put(USER, "cats", {"text": "cats purr softly", "tags": ["animal", "quiet"]})
    indexed.put(USER, "dogs", {"text": "dogs bark loudly", "tags": ["animal"], "n": 1})
    indexed.put(("users", "bob"), "birds", {"text": "birds sing early"})
    found = indexed.search(("users",), query="dogs bark loudly")
    assert found[0].key == "dogs" and found[0].score == pytest.approx(1, abs=1e-2) and len(found) == 3
    assert indexed.search(("users",), query="quiet", limit=1)[0].key == "cats"
    assert keys(indexed.search(("users",), query="dogs", filter={"n": {"$lt": 5}})) == ["dogs"]
    assert keys(indexed.search(("users", "bob"), query="dogs")) == ["birds"]
    assert keys(asyncio.run(indexed.asearch(("users",), query="birds sing early", limit=1))) == ["birds"]
    assert [item.score for item in indexed.search(USER)] == [None, None]


def test_no_vector_stays_of_what_is_not_indexed_any_more(indexed, admin_connection, tenant_id):
    """Overwritten, un-indexed, emptied or deleted: only vectors of the value that is there."""
    indexed.put(USER, "k", {"text": "cats", "tags": ["a", "b"]})
    assert vectors(admin_connection, tenant_id) == ["k.tags[*].0", "k.tags[*].1", "k.text"]
    indexed.put(USER, "k", {"text": "dogs"})
    assert vectors(admin_connection, tenant_id) == ["k.text"]
    assert indexed.search(USER, query="cats")[0].score < 0.9
    indexed.put(USER, "k", {"text": "dogs", "title": "barking"}, index=["title"])
    assert vectors(admin_connection, tenant_id) == ["k.title"]
    indexed.put(USER, "k", {"text": "dogs"}, index=False)
    assert vectors(admin_connection, tenant_id) == [] and indexed.search(USER, query="dogs") == []
    assert indexed.get(USER, "k").value == {"text": "dogs"}
    indexed.put(USER, "k", {"text": "dogs"})
    indexed.delete(USER, "k")
    assert vectors(admin_connection, tenant_id) == []


def test_expired_items_are_never_returned(db, tenant_id, store, admin_connection):
    """Fractions of a minute count; reads restart the time if asked to; sweeping removes the rest."""

    def pass_by(seconds):
        earlier = "UPDATE pgrecall.memory_facts SET expires_at = expires_at - %s * interval '1 s' WHERE tenant_id = %s"
        admin_connection.execute(earlier, [seconds, tenant_id])

    timed = PGRecallStore(connection=db, tenant=tenant_id, ttl={"default_ttl": 1.5, "refresh_on_read": True})
    timed.put(USER, "read", {"n": 1})
    timed.put(USER, "unread", {"n": 1})
    timed.put(("other",), "long", {"n": 1}, ttl=None)
    for _ in range(4):  # 90 s of life each
        pass_by(45)
        assert timed.get(USER, "read") is not None
    assert timed.get(USER, "unread") is None and timed.get(("other",), "long") is not None
    assert keys(timed.search(USER, refresh_ttl=False)) == ["read"]
    pass_by(91)
    assert timed.search(USER) == [] and timed.get(USER, "read") is None and timed.list_namespaces() == [("other",)]
    assert timed.sweep_ttl() >= 2


def test_deleting_erases_unless_it_shall_only_forget(db, tenant_id, admin_connection):
    """Erased: no row is left. Forgotten: it can be brought back within the grace time."""
    rows = "SELECT count(*) FROM pgrecall.memory_facts WHERE tenant_id = %s"
    erasing = PGRecallStore(connection=db, tenant=tenant_id)
    erasing.put(USER, "k", {"n": 1})
    erasing.put(USER, "k", {"n": 2})
    erasing.delete(USER, "k")
    assert admin_connection.execute(rows, [tenant_id]).fetchone() == (0,)
    forgetting = PGRecallStore(connection=db, tenant=tenant_id, on_delete="forget", actor="bot")
    forgetting.put(USER, "k", {"n": 3})
    forgetting.delete(USER, "k")
    assert forgetting.get(USER, "k") is None
    memory = db.tenant(tenant_id).memory(actor="admin")
    memory.restore(key="k", namespace=USER)
    assert forgetting.get(USER, "k").value == {"n": 3}
    assert {e.actor for e in memory.list_events(action="forget")} == {"bot"}


def test_items_belong_to_a_person_and_go_with_them(db, tenant_id):
    """`subject_of` ties a namespace to a subject; erasing the subject erases the items and refuses late ones."""

    def subject_of(namespace: tuple[str, ...]) -> str | None:
        return namespace[1] if namespace[0] == "users" else None

    store = PGRecallStore(connection=db, tenant=tenant_id, subject_of=subject_of)
    for user in ("ana", "bob"):
        store.put(("users", user), "likes", {"what": "tea"})
    store.put(("shared",), "k", {"n": 1})
    assert store.get(("users", "ana"), "likes").value == {"what": "tea"}
    db.tenant(tenant_id).erase_subject("ana", actor="admin")
    assert store.get(("users", "ana"), "likes") is None and store.get(("users", "bob"), "likes") is not None
    assert [i.namespace for i in store.search(())] == [("shared",), ("users", "bob")]
    with pytest.raises(SubjectErased):
        store.put(("users", "ana"), "late", {"n": 1})


def test_tenants_see_nothing_of_each_other(db, tenant_id):
    """The same namespace and key in two tenants are two items."""
    stores = [PGRecallStore(connection=db, tenant=f"{tenant_id}-{n}") for n in (1, 2)]
    for n, store in enumerate(stores):
        store.put(USER, "k", {"n": n})
    stores[1].delete(USER, "k")
    assert stores[0].get(USER, "k").value == {"n": 0} and stores[1].search(()) == []


def test_the_embedding_model_is_known_or_named(db, tenant_id):
    """A class that is known needs no space; a function does, and is called in both modes."""
    fake = DeterministicFakeEmbedding(size=16)
    known = PGRecallStore(connection=db, tenant=tenant_id, index={"dims": 16, "embed": fake})
    known.put(USER, "k", {"text": "whole values are embedded"})
    assert keys(known.search(USER, query="anything")) == ["k"]

    def embed(texts: list[str]) -> list[list[float]]:
        return fake.embed_documents(texts)

    with pytest.raises(ConfigurationError, match="space=EmbedModel"):
        PGRecallStore(connection=db, tenant=tenant_id, index={"dims": 16, "embed": embed})
    named = PGRecallStore(
        connection=db, tenant=f"{tenant_id}-2", index={"dims": 16, "embed": embed}, space=EmbedModel("me", "mine")
    )
    named.put(USER, "k", {"text": "x"})
    assert keys(asyncio.run(named.asearch(USER, query="x"))) == ["k"]


def test_a_configuration_that_would_say_nothing_is_refused(db, tenant_id, indexed):
    """Misspelt keys of the index and of the lifetimes, a text where fields are listed, another model's dimensions."""
    fake = DeterministicFakeEmbedding(size=16)
    for wrong, message in (
        ({"index": {"dims": 16, "embed": fake, "field": ["text"]}}, "index has the unknown key 'field'"),
        ({"index": {"dims": 16, "embed": fake, "fields": "text"}}, "expected a list of fields"),
        ({"index": {"dims": 3, "embed": fake}}, r"index\['dims'\] is 3"),
        ({"ttl": {"default": 5}}, "ttl has the unknown key 'default'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            PGRecallStore(connection=db, tenant=tenant_id, **wrong)
    with pytest.raises(InvalidInput, match="expected a list of fields, or False"):
        indexed.put(USER, "k", {"text": "x"}, index="text")
