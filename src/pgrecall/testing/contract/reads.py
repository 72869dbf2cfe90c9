"""The contract of a `VectorStore`: its reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pgrecall import (
    Chunk,
    Document,
    EmbedSpace,
    F,
    InvalidInput,
    NotFound,
)
from pgrecall.testing.contract.base import ids_of
from pgrecall.testing.contract.data import chunks, vectors
from pgrecall.testing.contract.stores import OpensVectorStores


def cosine_order(made: list[Chunk], query: Any) -> list[str]:
    """The ids of chunks with unit vectors, the nearest first."""
    scores = np.array([c.embedding for c in made]) @ query
    return [made[i].id for i in np.argsort(-scores)]


class VectorReadsContract(OpensVectorStores):
    """Searches by a vector, and the other reads."""

    @pytest.mark.parametrize("distance", ["cosine", "l2", "ip"])
    def test_the_exact_nearest_come_best_first(self, open_store: Any, distance: Any) -> None:
        """A search finds exactly the nearest chunks in the space's distance, with the scores of that distance."""
        store = open_store(space=EmbedSpace("test", "eight", 8, distance))
        scale = np.random.default_rng(5).uniform(0.5, 2, 60)
        made = [replace(c, embedding=c.embedding * s) for c, s in zip(chunks(60), scale, strict=True)]
        store.upsert(made)
        query, given = vectors(1, seed=99)[0], np.array([c.embedding for c in made])
        apart = {
            "cosine": 1 - given @ query / np.linalg.norm(given, axis=1),
            "l2": np.linalg.norm(given - query, axis=1),
            "ip": -(given @ query),
        }[distance]
        score = {"cosine": 1 - apart, "l2": 1 / (1 + apart), "ip": -apart}[distance]
        best = np.argsort(apart)[:10]
        hits = store.query(query, 10)
        assert ids_of(hits) == [made[i].id for i in best]
        assert [h.distance for h in hits] == pytest.approx(list(apart[best]), abs=4e-3)
        assert [h.score for h in hits] == pytest.approx(list(score[best]), abs=4e-3)

    def test_ties_come_by_id(self, store: Any) -> None:
        """Chunks at the same distance are ordered by id, by code points."""
        ids = ["b", "a", "Z", "é", "a1"]
        store.upsert([Chunk(i, "same", [1.0] * 8) for i in ids])
        assert ids_of(store.query([1.0] * 8, 3)) == sorted(ids)[:3]

    def test_fewer_than_k_are_all(self, store: Any) -> None:
        """A `top_k` above the number of chunks returns every chunk once."""
        store.upsert(chunks(7))
        assert sorted(ids_of(store.query([1.0] * 8, 100_000))) == [c.id for c in chunks(7)]
        assert len(store.query([1.0] * 8)) == 7

    @pytest.mark.parametrize("top_k", [0, -1, True, 1.5, "3", None])
    def test_top_k_is_a_positive_whole_number(self, store: Any, top_k: Any) -> None:
        """Anything else raises InvalidInput; it is neither rounded nor ignored."""
        with pytest.raises(InvalidInput):
            store.query([1.0] * 8, top_k)

    def test_a_hit_has_every_field_of_its_chunk(self, store: Any) -> None:
        """A hit has every field of its chunk, and the source and URI of the document."""
        chunk = Chunk("1", "text", [1.0] * 8, "d", 3, {"k": [1, {"x": None}]}, {"type": "Document"})
        store.upsert([chunk], documents=[Document("d", "wiki", "https://example.org/d", "hash", {"m": 1})])
        [hit] = store.query([1.0] * 8)
        assert (hit.text, hit.metadata, hit.payload) == (
            "text",
            {"k": [1, {"x": None}]},
            {"type": "Document"},
        )
        assert (hit.doc_id, hit.index, hit.source, hit.uri) == ("d", 3, "wiki", "https://example.org/d")

    def test_a_chunk_needs_no_document(self, store: Any) -> None:
        """A chunk without a document is found; its hit has no source."""
        store.upsert([Chunk("1", "text", [1.0] * 8)])
        [hit] = store.query([1.0] * 8)
        assert (hit.doc_id, hit.index, hit.source, hit.uri, hit.metadata, hit.payload) == (None,) * 4 + (
            {},
            None,
        )
        assert store.list_documents() == []

    def test_every_condition_narrows(self, store: Any) -> None:
        """Filters, ids and documents are ANDed in query, list and count."""
        made = chunks(60)
        store.upsert(made)
        wanted = [c.id for c in made if c.metadata["lang"] == "de" and c.doc_id in ("c-doc-1", "c-doc-2")]
        narrow = {"filters": F.lang == "de", "doc_ids": ["c-doc-1", "c-doc-2", "nope"]}
        assert store.count(**narrow) == len(wanted) > 2
        assert ids_of(store.list_chunks(**narrow)) == wanted
        assert sorted(ids_of(store.query(made[0].embedding, 60, **narrow))) == wanted
        assert sorted(ids_of(store.query(made[0].embedding, 60, **narrow, ids=[*wanted[:2], "nope"]))) == wanted[:2]
        assert store.query(made[0].embedding, 10, ids=[]) == [] == store.list_chunks(doc_ids=[])

    def test_k_rows_come_while_k_match(self, store: Any) -> None:
        """With a filter, a search returns the nearest of the chunks that match."""
        made = chunks(60)
        store.upsert(made)
        matching = [c for c in made if c.metadata["lang"] == "fr"]
        query = made[0].embedding
        assert ids_of(store.query(query, 15, F.lang == "fr")) == cosine_order(matching, query)[:15]

    def test_get_answers_in_the_order_asked(self, store: Any) -> None:
        """get returns chunks in the order of the ids, without unknown ones; embeddings come on request only."""
        made = chunks(5)
        store.upsert(made)
        found = store.get(["c0003", "nope", "c0001", "c0003"], with_embeddings=True)
        assert ids_of(found) == ["c0003", "c0001", "c0003"]
        assert found[0].embedding == pytest.approx(made[3].embedding, abs=1e-3)
        assert replace(found[0], embedding=None) == replace(made[3], embedding=None) == store.get(["c0003"])[0]
        assert store.get([]) == []
        [listed] = store.list_chunks(ids=["c0003", "nope"], with_embeddings=True)
        assert listed == found[0]

    def test_list_pages_in_code_point_order(self, store: Any) -> None:
        """Pages have neither gaps nor overlaps; the order is that of Python's strings."""
        ids = ["b", "a", "Z", "é", "z", "ａ", "😀", "a-1", "a1"]
        store.upsert([Chunk(i, i, [1.0] * 8) for i in ids])
        pages = [ids_of(store.list_chunks(limit=4, offset=offset)) for offset in (0, 4, 8, 12)]
        assert [len(p) for p in pages] == [4, 4, 1, 0]
        assert [i for page in pages for i in page] == sorted(ids)
        assert store.list_chunks(limit=0) == []
        for bad in ({"limit": -1}, {"offset": -1}, {"limit": 1.5}, {"offset": True}):
            with pytest.raises(InvalidInput):
                store.list_chunks(**bad)

    def test_counts_follow_filters(self, store: Any) -> None:
        """count returns how many chunks list finds."""
        store.upsert(chunks(20))
        assert len(store.list_chunks(F.n >= 15)) == 5
        assert (store.count(), store.count(F.n >= 15), store.count(F.n > 99)) == (20, 5, 0)
        assert store.count(F.lang == "de", doc_ids=["c-doc-0"]) == 2
        assert store.count(F.lang == "de", ids=["c0000", "c0001", "nope"]) == 1 and store.count(ids=[]) == 0

    def test_documents_keep_their_provenance(self, store: Any) -> None:
        """Documents come back as given; a document that only a chunk names has nothing but its id."""
        described = Document("c-doc-1", "wiki", "https://example.org/1", "abc", {"team": "x"})
        store.upsert(chunks(15), documents=[described])
        store.upsert([Chunk("late", "text", [1.0] * 8, "c-doc-1")])
        assert store.list_documents() == [Document("c-doc-0"), described, Document("c-doc-2")]
        assert store.list_documents(["c-doc-1", "nope"]) == [described]
        assert store.list_documents(limit=1, offset=2) == [Document("c-doc-2")]
        store.upsert([], documents=[replace(described, source="other")])
        assert store.list_documents(["c-doc-1"])[0].source == "other"

    def test_readers_of_what_is_not_there_find_nothing(self, store: Any) -> None:
        """Reads and deletes of rows treat an unknown collection, id or document as empty; drop raises NotFound."""
        assert store.query([1.0] * 8) == store.get(["x"]) == store.list_chunks() == store.list_documents() == []
        assert store.count() == store.set_metadata({"a": 1}, ids=["x"]) == 0
        for report in (store.delete(["x"]), store.delete_by_doc_id("x"), store.clear()):
            assert set(report.values()) == {0}
        with pytest.raises(NotFound):
            store.drop()

    def test_an_id_must_be_a_list_of_ids(self, store: Any) -> None:
        """A string in place of a list of ids raises InvalidInput."""
        with pytest.raises(InvalidInput):
            store.get("abc")
        with pytest.raises(InvalidInput):
            store.delete("abc")
        with pytest.raises(InvalidInput):
            store.list_chunks(doc_ids="abc")
