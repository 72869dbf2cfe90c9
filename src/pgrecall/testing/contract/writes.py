"""What every vector store keeps and removes, whoever keeps its rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pgrecall import (
    And,
    Chunk,
    Document,
    EmbedSpace,
    EmbedSpaceMismatch,
    F,
    InvalidEmbedding,
    InvalidInput,
    Not,
    Or,
)
from pgrecall.testing.contract.base import Opened, ids_of
from pgrecall.testing.contract.data import chunks


def counted(report):
    """What a report counts, without the tables that had nothing."""
    return {table: count for table, count in report.items() if count}


class WritesContract(Opened):
    """Upserts, documents, metadata and deletes."""

    def test_ids_come_back_one_an_input_and_the_last_wins(self, store):
        """Of two chunks with one id the later is kept; every input gets its id, in order."""
        first, second = Chunk("x", "first", [1.0] * 8), Chunk("x", "second", [2.0] + [1.0] * 7)
        result = store.upsert([first, Chunk("y", "other", [1.0] * 8), second])
        assert (result.ids, result.written, result.unchanged) == (["x", "y", "x"], 2, 0)
        assert store.get(["x"])[0].text == "second"

    def test_what_is_the_same_is_left_alone(self, store):
        """A second upsert of the same chunks writes none of them."""
        made = chunks(12)
        assert store.upsert(made).written == 12
        again = store.upsert(made)
        assert (again.ids, again.written, again.unchanged) == ([c.id for c in made], 0, 12)

    @pytest.mark.parametrize(
        "change",
        [
            {"text": "new"},
            {"embedding": [1.0, 2, 3, 4, 5, 6, 7, 8]},
            {"doc_id": "other"},
            {"doc_id": None},
            {"index": 77},
            {"metadata": {"n": 1.5}},
            {"payload": {"a": 1}},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_each_change_is_written(self, store, change):
        """Whatever differs, that chunk alone is written and read back as given."""
        made = chunks(6)
        store.upsert(made)
        made[2] = replace(made[2], **change)
        assert store.upsert(made).written == 1
        [now] = store.get([made[2].id], with_embeddings=True)
        for name, value in change.items():
            if name == "embedding":
                assert np.dot(now.embedding, value) == pytest.approx(np.linalg.norm(value), rel=1e-3)
            else:
                assert getattr(now, name) == value

    def test_a_generator_is_read_once(self, store):
        """Chunks may come from a generator; nothing is read twice or left over."""
        drawn = []

        def generated():
            for chunk in chunks(25):
                drawn.append(chunk.id)
                yield chunk

        assert store.upsert(generated()).ids == drawn == [c.id for c in chunks(25)]
        assert store.count() == 25

    def test_a_generator_that_fails_leaves_nothing(self, store):
        """The caller's own error comes through, and none of the call's chunks is there."""

        def broken():
            yield from chunks(5)
            raise RuntimeError("the source broke")

        with pytest.raises(RuntimeError, match="the source broke"):
            store.upsert(broken())
        assert store.count() == 0

    def test_one_bad_chunk_leaves_nothing_of_the_call(self, store):
        """All or nothing: good chunks beside a bad one are not kept, old ones are not changed."""
        made = chunks(4)
        store.upsert(made[:2])
        changed = replace(made[0], text="new")
        with pytest.raises(InvalidEmbedding, match="'bad'"):
            store.upsert([changed, *made[2:], Chunk("bad", "text", [1.0] * 7)])
        assert (store.count(), store.get([made[0].id])[0].text) == (2, made[0].text)

    def test_a_vector_is_kept_where_the_text_is_the_same(self, store):
        """A chunk without an embedding keeps the stored one of the same text; a new text needs one."""
        store.upsert([Chunk("1", "text", [1.0] * 8)])
        store.upsert([Chunk("1", "text", metadata={"seen": True})])
        assert store.query([1.0] * 8)[0].metadata == {"seen": True}
        for chunk in (Chunk("1", "new text"), Chunk("2", "text")):
            with pytest.raises(InvalidEmbedding, match="no embedding"):
                store.upsert([chunk])

    @pytest.mark.parametrize(
        ("vector", "message"),
        [
            ([1.0] * 7, r"has 7 dimensions.* has 8\. Was another model used"),
            ([float("nan")] + [1.0] * 7, "NaN or infinite"),
            ([0.0] * 8, "all zeros"),
            (["1"] * 8, "expected a flat list of numbers"),
        ],
    )
    def test_a_wrong_vector_is_refused_in_and_out(self, store, vector, message):
        """It neither gets in, where the error names the chunk, nor is compared."""
        with pytest.raises(InvalidEmbedding, match=f"chunk 'c' .*{message}|chunk 'c' is .*{message}"):
            store.upsert([Chunk("c", "text", vector)])
        store.upsert(chunks(2))
        with pytest.raises(InvalidEmbedding, match=f"the query .*{message}"):
            store.query(vector)

    def test_another_models_vectors_are_refused(self, open_store, store):
        """A collection answers in its own space only, even where the length is the same, and says which."""
        store.upsert(chunks(3))
        other = open_store(space=EmbedSpace("test", "other", 8))
        for call in (lambda: other.upsert(chunks(1)), lambda: other.query([1.0] * 8)):
            with pytest.raises(EmbedSpaceMismatch, match=r"test/eight \(8 dims, cosine\).*test/other"):
                call()
        assert store.count() == 3

    def test_what_was_given_can_change_later(self, store):
        """Values are copied: changing an object that was given or returned changes nothing stored."""
        metadata = {"tags": ["a"]}
        store.upsert([Chunk("1", "text", [1.0] * 8, metadata=metadata)])
        metadata["tags"].append("b")
        store.query([1.0] * 8)[0].metadata["tags"].append("c")
        store.get(["1"])[0].metadata["tags"].append("d")
        assert store.get(["1"])[0].metadata == {"tags": ["a"]}

    def test_replacing_a_document_removes_its_stale_chunks(self, store):
        """Exactly the given chunks belong to it afterwards; other documents are untouched."""
        store.upsert(chunks(10))
        new = [Chunk("c0001", "kept id", [1.0] * 8), Chunk("n1", "new", [1.0] * 8, "c-doc-0")]
        result = store.replace_document(Document("c-doc-0", source="v2"), new)
        assert (result.ids, result.written, result.removed) == (["c0001", "n1"], 2, 4)
        assert ids_of(store.list(doc_ids=["c-doc-0"])) == ["c0001", "n1"]
        assert (store.count(), store.documents(["c-doc-0"])[0].source) == (7, "v2")
        assert store.replace_document(Document("c-doc-0"), []).removed == 2
        assert (store.count(doc_ids=["c-doc-0"]), len(store.documents())) == (0, 2)

    def test_a_replacement_takes_no_chunk_that_names_another_document(self, store):
        """It is an error, and nothing is changed."""
        store.upsert(chunks(5))
        with pytest.raises(InvalidInput, match="'x' names document 'other', not 'c-doc-0'"):
            store.replace_document(Document("c-doc-0"), [Chunk("x", "text", [1.0] * 8, "other")])
        assert store.count() == 5

    def test_metadata_changes_without_the_vector(self, store):
        """Merged or replaced for those that match; the number that changed comes back, vectors stay."""
        store.upsert(chunks(9))
        before = store.get(["c0000"], with_embeddings=True)[0].embedding
        assert store.set_metadata({"lang": "xx", "new": 1}, filters=F.lang == "de") == 3
        assert store.set_metadata({"lang": "xx"}, filters=F.lang == "xx") == 0
        assert store.get(["c0000"])[0].metadata == {"n": 0, "lang": "xx", "tags": ["even"], "new": 1}
        assert store.set_metadata({"only": True}, ids=["c0000"], doc_ids=["c-doc-0"], replace=True) == 1
        now = store.get(["c0000"], with_embeddings=True)[0]
        assert (now.metadata, list(now.embedding)) == ({"only": True}, list(before))

    def test_deletes_take_exactly_what_was_said(self, store):
        """By ids, by filter, by both; counts are exact and documents stay."""
        store.upsert(chunks(20))
        assert counted(store.delete(["c0000", "c0001", "nope"])) == {"vectors": 2, "chunks": 2}
        assert store.delete(filters=F.n >= 18).chunks == 2
        assert store.delete(["c0002", "c0003"], filters=F.n == 3).chunks == 1
        assert store.delete([]).chunks == 0
        assert ids_of(store.list()) == ["c0002", *(f"c{n:04d}" for n in range(4, 18))]
        assert len(store.documents()) == 4
        assert "c0000" not in ids_of(store.query([1.0] * 8, 50))

    @pytest.mark.parametrize(
        "everything",
        [None, And(), Not(Or()), And(And(), Not(Or())), Or(F.n == 1, And()), F.n.nin([])],
        ids=["nothing", "And()", "not Or()", "nested", "Or of all", "nin []"],
    )
    def test_an_empty_condition_never_means_everything(self, store, everything):
        """Deleting or re-tagging without saying which chunks is an error, however the nothing is spelled."""
        store.upsert(chunks(3))
        for call in (
            lambda: store.delete(filters=everything),
            lambda: store.set_metadata({"a": 1}, filters=everything),
        ):
            with pytest.raises(InvalidInput, match="would match the whole collection"):
                call()
        assert (store.count(), store.count(F.a == 1)) == (3, 0)
        assert store.delete(["c0001"], filters=everything).chunks == 1

    def test_a_document_goes_with_its_chunks(self, store):
        """delete_by_doc_id removes the document, its chunks and vectors, and nothing else."""
        store.upsert(chunks(10))
        assert counted(store.delete_by_doc_id("c-doc-1")) == {"vectors": 5, "chunks": 5, "documents": 1}
        assert ids_of(store.list()) == [f"c{n:04d}" for n in range(5)]
        assert [d.id for d in store.documents()] == ["c-doc-0"]

    def test_a_dropped_collection_is_gone_and_its_name_free(self, open_store, store):
        """drop says what it removed; the name can then hold another model's vectors."""
        store.upsert(chunks(10))
        assert counted(store.drop()) == {"vectors": 10, "chunks": 10, "documents": 2, "collections": 1}
        assert (store.count(), store.documents()) == (0, [])
        other = open_store(space=EmbedSpace("test", "other", 3))
        other.upsert([Chunk("1", "text", [1.0, 2.0, 3.0])])
        assert ids_of(other.query([1.0, 2.0, 3.0])) == ["1"]

    def test_a_cleared_collection_is_empty_and_keeps_its_space(self, open_store, store):
        """clear says what it removed, is nothing to do twice, and the name still holds the model's vectors alone."""
        store.upsert(chunks(10))
        assert counted(store.clear()) == {"vectors": 10, "chunks": 10, "documents": 2}
        assert (store.count(), store.documents()) == (0, [])
        assert counted(store.clear()) == {}
        with pytest.raises(EmbedSpaceMismatch):
            open_store(space=EmbedSpace("test", "other", 3)).upsert([Chunk("1", "text", [1.0, 2.0, 3.0])])

    @pytest.mark.parametrize("elsewhere", [{"tenant": "b"}, {"collection": "other"}], ids=["tenant", "collection"])
    def test_tenants_and_collections_never_meet(self, open_store, store, elsewhere):
        """The same ids elsewhere are other chunks: read, changed and deleted without touching these."""
        other = open_store(**elsewhere)
        store.upsert([Chunk("1", "ours", [1.0] * 8, "d")], documents=[Document("d", "ours")])
        assert other.get(["1"]) == other.query([1.0] * 8) == []
        other.upsert([Chunk("1", "theirs", [1.0] * 8, "d")], documents=[Document("d", "theirs")])
        for one, text in ((store, "ours"), (other, "theirs")):
            assert [(h.text, h.source) for h in one.query([1.0] * 8)] == [(text, text)]
        other.set_metadata({"a": 1}, ids=["1"])
        other.replace_document(Document("d"), [])
        other.drop()
        assert (store.get(["1"])[0].text, store.get(["1"])[0].metadata) == ("ours", {})
        assert store.documents() == [Document("d", "ours")]
