"""The contract of a `VectorStore`: its writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pgrecall import (
    And,
    Chunk,
    DeleteReport,
    Document,
    EmbedSpace,
    EmbedSpaceMismatch,
    F,
    InvalidEmbedding,
    InvalidInput,
    Not,
    Or,
)
from pgrecall.testing.contract.base import ids_of
from pgrecall.testing.contract.data import chunks
from pgrecall.testing.contract.stores import OpensVectorStores


def counted(report: DeleteReport) -> dict[str, int]:
    """The report's counts that are not zero."""
    return {table: count for table, count in report.items() if count}


class VectorWritesContract(OpensVectorStores):
    """Upserts, documents, metadata and deletes."""

    def test_ids_come_back_one_an_input_and_the_last_wins(self, store: Any) -> None:
        """The last of two chunks with the same id is stored; the result lists the id of each input, in order."""
        first, second = Chunk("x", "first", [1.0] * 8), Chunk("x", "second", [2.0] + [1.0] * 7)
        result = store.upsert([first, Chunk("y", "other", [1.0] * 8), second])
        assert (result.ids, result.written, result.unchanged) == (["x", "y", "x"], 2, 0)
        assert store.get(["x"])[0].text == "second"

    def test_unchanged_chunks_are_not_written(self, store: Any) -> None:
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
    def test_each_change_is_written(self, store: Any, change: Any) -> None:
        """If one field of one chunk changes, only that chunk is written, and it is read back as given."""
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

    def test_a_generator_is_read_once(self, store: Any) -> None:
        """Chunks may come from a generator, which is read once and to its end."""
        drawn = []

        def generated() -> Iterator[Chunk]:
            for chunk in chunks(25):
                drawn.append(chunk.id)
                yield chunk

        assert store.upsert(generated()).ids == drawn == [c.id for c in chunks(25)]
        assert store.count() == 25

    def test_a_generator_that_fails_leaves_nothing(self, store: Any) -> None:
        """If the generator raises, its error reaches the caller and nothing is stored."""

        def broken() -> Iterator[Chunk]:
            yield from chunks(5)
            raise RuntimeError("the source broke")

        with pytest.raises(RuntimeError, match="the source broke"):
            store.upsert(broken())
        assert store.count() == 0

    def test_one_bad_chunk_leaves_nothing_of_the_call(self, store: Any) -> None:
        """If one chunk is invalid, no chunk of the call is stored or changed."""
        made = chunks(4)
        store.upsert(made[:2])
        changed = replace(made[0], text="new")
        with pytest.raises(InvalidEmbedding, match="'bad'"):
            store.upsert([changed, *made[2:], Chunk("bad", "text", [1.0] * 7)])
        assert (store.count(), store.get([made[0].id])[0].text) == (2, made[0].text)

    def test_the_vector_is_kept_if_the_text_is_unchanged(self, store: Any) -> None:
        """A chunk without an embedding keeps the stored one if its text is unchanged; a new text needs an embedding."""
        store.upsert([Chunk("1", "text", [1.0] * 8)])
        store.upsert([Chunk("1", "text", metadata={"seen": True})])
        assert store.query([1.0] * 8)[0].metadata == {"seen": True}
        for chunk in (Chunk("1", "new text"), Chunk("2", "text")):
            with pytest.raises(InvalidEmbedding):
                store.upsert([chunk])

    @pytest.mark.parametrize(
        "vector",
        [[1.0] * 7, [float("nan")] + [1.0] * 7, [0.0] * 8, ["1"] * 8],
        ids=["short", "NaN", "zeros", "strings"],
    )
    def test_a_wrong_vector_is_refused_in_and_out(self, store: Any, vector: Any) -> None:
        """A wrong vector is neither stored nor searched by; if a chunk has it, the error names the chunk."""
        with pytest.raises(InvalidEmbedding, match="'c'"):
            store.upsert([Chunk("c", "text", vector)])
        assert store.count() == 0
        store.upsert(chunks(2))
        with pytest.raises(InvalidEmbedding):
            store.query(vector)

    def test_another_models_vectors_are_refused(self, open_store: Any, store: Any) -> None:
        """A vector of another space of equal length raises an error that names the collection's space."""
        store.upsert(chunks(3))
        other = open_store(space=EmbedSpace("test", "other", 8))
        with pytest.raises(EmbedSpaceMismatch, match="test/eight"):
            other.upsert(chunks(1))
        with pytest.raises(EmbedSpaceMismatch, match="test/eight"):
            other.query([1.0] * 8)
        assert store.count() == 3

    def test_changing_a_value_later_changes_nothing_stored(self, store: Any) -> None:
        """Values are copied: changing an object that was passed or returned does not change what is stored."""
        metadata = {"tags": ["a"]}
        store.upsert([Chunk("1", "text", [1.0] * 8, metadata=metadata)])
        metadata["tags"].append("b")
        store.query([1.0] * 8)[0].metadata["tags"].append("c")
        store.get(["1"])[0].metadata["tags"].append("d")
        assert store.get(["1"])[0].metadata == {"tags": ["a"]}

    def test_replacing_a_document_removes_its_stale_chunks(self, store: Any) -> None:
        """After replace_document the document has exactly the given chunks; other documents are unchanged."""
        store.upsert(chunks(10))
        new = [Chunk("c0001", "kept id", [1.0] * 8), Chunk("n1", "new", [1.0] * 8, "c-doc-0")]
        result = store.replace_document(Document("c-doc-0", source="v2"), new)
        assert (result.ids, result.written, result.removed) == (["c0001", "n1"], 2, 4)
        assert ids_of(store.list_chunks(doc_ids=["c-doc-0"])) == ["c0001", "n1"]
        assert (store.count(), store.list_documents(["c-doc-0"])[0].source) == (7, "v2")
        assert store.replace_document(Document("c-doc-0"), []).removed == 2
        assert (store.count(doc_ids=["c-doc-0"]), len(store.list_documents())) == (0, 2)

    def test_a_replacement_takes_no_chunk_that_names_another_document(self, store: Any) -> None:
        """A chunk that names another document raises InvalidInput, and nothing changes."""
        store.upsert(chunks(5))
        with pytest.raises(InvalidInput):
            store.replace_document(Document("c-doc-0"), [Chunk("x", "text", [1.0] * 8, "other")])
        assert store.count() == 5

    def test_metadata_changes_without_the_vector(self, store: Any) -> None:
        """set_metadata merges or replaces the metadata of matching chunks, and returns how many changed."""
        store.upsert(chunks(9))
        before = store.get(["c0000"], with_embeddings=True)[0].embedding
        assert store.set_metadata({"lang": "xx", "new": 1}, filters=F.lang == "de") == 3
        assert store.set_metadata({"lang": "xx"}, filters=F.lang == "xx") == 0
        assert store.get(["c0000"])[0].metadata == {"n": 0, "lang": "xx", "tags": ["even"], "new": 1}
        assert store.set_metadata({"only": True}, ids=["c0000"], doc_ids=["c-doc-0"], replace=True) == 1
        now = store.get(["c0000"], with_embeddings=True)[0]
        assert (now.metadata, list(now.embedding)) == ({"only": True}, list(before))

    def test_delete_removes_exactly_what_matches(self, store: Any) -> None:
        """delete ANDs ids, documents and a filter; it counts exactly and leaves documents."""
        store.upsert(chunks(20))
        assert counted(store.delete(["c0000", "c0001", "nope"])) == {"vectors": 2, "chunks": 2}
        assert store.delete(filters=F.n >= 18).chunks == 2
        assert store.delete(["c0002", "c0003"], filters=F.n == 3).chunks == 1
        assert store.delete([]).chunks == store.delete(doc_ids=[]).chunks == 0
        assert ids_of(store.list_chunks()) == ["c0002", *(f"c{n:04d}" for n in range(4, 18))]
        assert store.delete(filters=F.n < 6, doc_ids=["c-doc-0", "c-doc-1", "nope"]).chunks == 3
        assert store.delete(["c0006", "c0012"], doc_ids=["c-doc-1"]).chunks == 1
        assert ids_of(store.list_chunks(limit=3)) == ["c0007", "c0008", "c0009"]
        assert len(store.list_documents()) == 4
        assert "c0000" not in ids_of(store.query([1.0] * 8, 50))

    @pytest.mark.parametrize(
        "everything",
        [None, And(), Not(Or()), And(And(), Not(Or())), Or(F.n == 1, And()), F.n.nin([])],
        ids=["nothing", "And()", "not Or()", "nested", "Or of all", "nin []"],
    )
    def test_an_empty_condition_never_means_everything(self, store: Any, everything: Any) -> None:
        """delete and set_metadata raise InvalidInput if the condition is empty or always true, in whatever form."""
        store.upsert(chunks(3))
        with pytest.raises(InvalidInput):
            store.delete(filters=everything)
        with pytest.raises(InvalidInput):
            store.set_metadata({"a": 1}, filters=everything)
        assert (store.count(), store.count(F.a == 1)) == (3, 0)
        assert store.delete(["c0001"], filters=everything).chunks == 1

    def test_a_document_goes_with_its_chunks(self, store: Any) -> None:
        """delete_by_doc_id removes the document with its chunks and vectors, and nothing else."""
        store.upsert(chunks(10))
        assert counted(store.delete_by_doc_id("c-doc-1")) == {"vectors": 5, "chunks": 5, "documents": 1}
        assert ids_of(store.list_chunks()) == [f"c{n:04d}" for n in range(5)]
        assert [d.id for d in store.list_documents()] == ["c-doc-0"]

    def test_a_dropped_collection_is_gone_and_its_name_free(self, open_store: Any, store: Any) -> None:
        """drop reports what it removed; a new collection of that name may have another space."""
        store.upsert(chunks(10))
        assert counted(store.drop()) == {"vectors": 10, "chunks": 10, "documents": 2, "collections": 1}
        assert (store.count(), store.list_documents()) == (0, [])
        other = open_store(space=EmbedSpace("test", "other", 3))
        other.upsert([Chunk("1", "text", [1.0, 2.0, 3.0])])
        assert ids_of(other.query([1.0, 2.0, 3.0])) == ["1"]

    def test_a_cleared_collection_is_empty_and_keeps_its_space(self, open_store: Any, store: Any) -> None:
        """clear reports what it removed; the collection keeps its space."""
        store.upsert(chunks(10))
        assert counted(store.clear()) == {"vectors": 10, "chunks": 10, "documents": 2}
        assert (store.count(), store.list_documents()) == (0, [])
        assert counted(store.clear()) == {}
        with pytest.raises(EmbedSpaceMismatch):
            open_store(space=EmbedSpace("test", "other", 3)).upsert([Chunk("1", "text", [1.0, 2.0, 3.0])])

    @pytest.mark.parametrize("elsewhere", [{"tenant": "b"}, {"collection": "other"}], ids=["tenant", "collection"])
    def test_tenants_and_collections_never_meet(self, open_store: Any, store: Any, elsewhere: Any) -> None:
        """Equal ids in another tenant or collection are other chunks, read, changed and deleted on their own."""
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
        assert store.list_documents() == [Document("d", "ours")]
