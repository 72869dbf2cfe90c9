"""The messages of the errors that the contracts check only by class."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgrecall import (
    Chunk,
    ConfigurationError,
    Document,
    EmbedSpace,
    EmbedSpaceMismatch,
    F,
    Fact,
    InvalidEmbedding,
    InvalidInput,
    NotFound,
    RunConflict,
    RunState,
)

SPACE = EmbedSpace("test", "eight", 8)
ONES = [1.0] * 8


def test_a_vector_stores_errors_say_what_was_expected(db, tenant_id):
    """Each names what was given, and most what to pass instead."""
    store = db.tenant(tenant_id).vectors("plain", SPACE)
    with pytest.raises(NotFound, match="collection 'plain' does not exist"):
        store.drop()
    store.upsert([Chunk("1", "text", ONES)])
    other = db.tenant(tenant_id).vectors("plain", EmbedSpace("test", "other", 8))
    with pytest.raises(EmbedSpaceMismatch, match=r"test/eight \(8 dims, cosine\).*test/other"):
        other.query(ONES)
    with pytest.raises(InvalidInput, match=r"chunk 'x' has doc_id 'other'; expected 'd' or None"):
        store.replace_document(Document("d"), [Chunk("x", "text", ONES, "other")])
    for everything in (None, F.n.nin([])):
        with pytest.raises(InvalidInput, match="the condition matches the whole collection"):
            store.delete(filters=everything)
    with pytest.raises(InvalidInput, match="mode 'hybrid' needs a vector, but none was given"):
        store.query(text="x", mode="hybrid")
    with pytest.raises(InvalidInput, match="mode 'sparse' needs a text, but none was given"):
        store.query(ONES, mode="sparse")
    with pytest.raises(ConfigurationError, match="collection 'plain' has no full-text search"):
        store.query(text="x")
    for vector, message in (
        ([1.0] * 7, "has 7 dimensions; the space .* has 8. Embed with the space's model"),
        ([float("nan")] * 8, "NaN or infinite"),
        ([0.0] * 8, "all zeros"),
        (["1"] * 8, "expected a flat list of numbers"),
    ):
        for what, call in (
            ("chunk 'c'", lambda v: store.upsert([Chunk("c", "text", v)])),
            ("the query", store.query),
        ):
            with pytest.raises(InvalidEmbedding, match=f"{what} .*{message}"):
                call(vector)


def test_a_memory_stores_errors_say_which_facts_are_meant(db, tenant_id):
    """An ambiguous key lists the facts, and a restore names what stands in its way."""
    memory = db.tenant(tenant_id).memory(actor="me", space=SPACE)
    old = memory.put_fact(Fact("ann", "preference", "diet", 1))
    memory.delete(old.id)
    with pytest.raises(NotFound, match="no such forgotten fact, or its grace period is over"):
        memory.restore(key="other")
    memory.put_facts([Fact("ann", "preference", "diet", 2), Fact("bob", "preference", "diet", 3)])
    with pytest.raises(InvalidInput, match=r"preference/diet of 'ann' cannot be restored.*newer version"):
        memory.restore(old.id)
    with pytest.raises(InvalidInput, match=r"'diet' matches 2 facts.*'ann'.*'bob'.*Select one by subject="):
        memory.delete(key="diet")
    with pytest.raises(InvalidInput, match="no fact was named; pass its id, or key="):
        memory.delete()
    with pytest.raises(InvalidInput, match="a fact's id was given together with"):
        memory.delete(old.id, kind="preference")
    with pytest.raises(InvalidInput, match="expected a datetime with a time zone"):
        memory.search_facts(as_of="today")
    with pytest.raises(InvalidInput, match="mode is 'sparse', but there is nothing to search by; pass text="):
        memory.search_facts(mode="sparse")
    with pytest.raises(InvalidInput, match=r"finite number|NaN|nan"):
        memory.put_fact(Fact("ann", "k", "bad", float("nan")))


def test_a_run_stores_conflict_says_both_versions(db, tenant_id):
    """The message has the stored version and that of the put."""
    runs = db.tenant(tenant_id).runs()
    first = runs.put(RunState("r", subject="ana"))
    with pytest.raises(RunConflict, match="run 'r' is at version 1, but this put is based on version 3"):
        runs.put(replace(first, state_version=3))
    with pytest.raises(RunConflict, match=r"run 'none' does not exist or was deleted.*version 4"):
        runs.put(RunState("none", state_version=4))
    with pytest.raises(InvalidInput, match="belongs to another subject than 'ben'"):
        runs.put(replace(first, subject="ben"))
