"""The vector store's everyday verbs, on both majors, as a login that owns nothing."""

from __future__ import annotations

import numpy as np
import pytest

from pgrecall import Chunk, Database, Document, EmbedSpace, EmbedSpaceMismatch, F, InvalidInput
from support.data import chunks, vectors


@pytest.fixture
def store(db: Database, tenant_id: str, space: EmbedSpace):
    return db.tenant(tenant_id).vectors("handbook", space)


def test_the_nearest_chunks_come_back_in_order_with_everything_known_of_them(store):
    """A query returns the exact top k, best first, with text, metadata and provenance."""
    made = chunks(50)
    store.upsert(made, documents=[Document("c-doc-0", source="wiki", uri="https://example.org/0")])
    query = vectors(1, seed=99)[0]
    cosine = np.array([c.embedding @ query for c in made])
    hits = store.query(query, 10)
    assert [h.chunk_id for h in hits] == [made[i].id for i in np.argsort(-cosine)[:10]]
    assert [h.score for h in hits] == pytest.approx(sorted(cosine, reverse=True)[:10], abs=2e-3)
    [first] = store.query(made[3].embedding, 1)
    assert (first.chunk_id, first.text, first.metadata) == ("c0003", made[3].text, made[3].metadata)
    assert (first.doc_id, first.index, first.source, first.uri) == ("c-doc-0", 3, "wiki", "https://example.org/0")
    assert first.score == pytest.approx(1, abs=1e-3) and first.distance == pytest.approx(0, abs=1e-3)


def test_a_second_upsert_of_the_same_chunks_writes_nothing(store):
    """Unchanged rows are left out; a changed one alone is written."""
    made = chunks(30)
    assert store.upsert(made).written == 30
    again = store.upsert(made)
    assert (again.written, again.unchanged, again.ids) == (0, 30, [c.id for c in made])
    made[4] = Chunk(made[4].id, "other text", made[4].embedding, made[4].doc_id, made[4].index, made[4].metadata)
    assert store.upsert(made).written == 1
    assert store.get(["c0004"])[0].text == "other text"


def test_filters_and_ids_narrow_a_query(store):
    """Every condition narrows the same search; k rows come back while k match."""
    made = chunks(60)
    store.upsert(made)
    query = made[0].embedding
    assert {h.metadata["lang"] for h in store.query(query, 20, F.lang == "de")} == {"de"}
    assert len(store.query(query, 20, F.lang == "de")) == 20
    assert {h.chunk_id for h in store.query(query, 10, ids=["c0007", "c0008", "nope"])} == {"c0007", "c0008"}
    assert {h.doc_id for h in store.query(query, 10, doc_ids=["c-doc-2"])} == {"c-doc-2"}
    assert store.query(query, 10, F.n > 1000) == []


def test_another_models_vectors_are_refused_both_ways(db, store, tenant_id):
    """A collection answers in its own space only, and says what it holds."""
    store.upsert(chunks(3))
    other = db.tenant(tenant_id).vectors("handbook", EmbedSpace("test", "other", 8))
    for call in (lambda: other.upsert(chunks(1)), lambda: other.query([1.0] * 8)):
        with pytest.raises(EmbedSpaceMismatch, match=r"test/eight \(8 dims, cosine\).*test/other"):
            call()


def test_reads_of_what_is_not_there_are_empty(store):
    """An unknown collection, id or document is no error to a reader."""
    assert store.query([1.0] * 8) == [] and store.get(["x"]) == [] and store.list_chunks() == [] and store.count() == 0
    assert set(store.delete(["x"]).values()) == {0}
    assert store.delete_by_doc_id("x").chunks == 0


def test_an_empty_condition_never_means_everything(store):
    """Deleting or re-tagging without saying which chunks is an error, and nothing is changed."""
    store.upsert(chunks(3))
    from pgrecall import And

    for call in (
        lambda: store.delete(),
        lambda: store.delete(filters=And()),
        lambda: store.set_metadata({"a": 1}),
    ):
        with pytest.raises(InvalidInput, match="the condition matches the whole collection"):
            call()
    assert store.count() == 3


def test_an_unchanged_vector_is_not_touched(db, tenant_id, space, admin_connection):
    """Not even locked: a lock writes to the row's page, and so to the write-ahead log."""
    store = db.tenant(tenant_id).vectors("handbook", space)
    store.upsert(chunks(20))
    assert store.upsert(chunks(20)).written == 0
    rows = admin_connection.execute(
        "SELECT count(*), count(*) FILTER (WHERE xmax::text = '0') FROM pgrecall.chunk_vectors WHERE tenant_id = %s",
        (tenant_id,),
    )
    assert rows.fetchone() == (20, 20)


def test_mmr_gives_unlike_chunks_in_its_own_order(db, tenant_id, space):
    """Of copies and one other chunk the other comes second, except where lambda asks for the nearest only."""
    store = db.tenant(tenant_id).vectors("c", space)
    near, far = np.eye(8)[0], np.eye(8)[0] + np.eye(8)[1]
    store.upsert([Chunk(f"copy{n}", "copy", near) for n in range(5)] + [Chunk("other", "other", far)])
    assert [h.chunk_id for h in store.query_mmr(near, 2, lambda_mult=0.3)] == ["copy0", "other"]
    assert [h.chunk_id for h in store.query_mmr(near, 3, lambda_mult=1)] == ["copy0", "copy1", "copy2"]
    assert [h.chunk_id for h in store.query_mmr(near, 2, fetch_k=2, lambda_mult=0)] == ["copy0", "copy1"]
    assert store.query_mmr(near, 2, ids=["nope"]) == []
    hit = store.query_mmr(near, 1)[0]
    assert (hit.score, hit.text) == (1.0, "copy")
    for wrong in (-0.1, 1.1, float("nan"), "half", True):
        with pytest.raises(InvalidInput, match="lambda_mult"):
            store.query_mmr(near, 2, lambda_mult=wrong)
