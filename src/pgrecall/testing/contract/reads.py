"""What every vector store finds, whoever keeps its rows."""

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
from pgrecall.testing.contract.base import Opened, ids_of
from pgrecall.testing.contract.data import chunks, vectors


def cosine_order(made: list[Chunk], query: Any) -> list[str]:
    scores = np.array([np.dot(c.embedding, query) for c in made])
    return [made[i].id for i in np.argsort(-scores)]


class ReadsContract(Opened):
    """Search, and the other ways to read."""

    @pytest.mark.parametrize("distance", ["cosine", "l2", "ip"])
    def test_the_exact_nearest_come_best_first(self, open_store, distance):
        """The k nearest in the space's distance are found exactly, with the score that belongs to it."""
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

    def test_ties_come_by_id(self, store):
        """Chunks at the same distance come in code point order of their ids, so pages of k agree."""
        ids = ["b", "a", "Z", "é", "a1"]
        store.upsert([Chunk(i, "same", [1.0] * 8) for i in ids])
        assert ids_of(store.query([1.0] * 8, 3)) == sorted(ids)[:3]

    def test_fewer_than_k_are_all(self, store):
        """A `top_k` above the number of chunks returns every chunk once."""
        store.upsert(chunks(7))
        assert sorted(ids_of(store.query([1.0] * 8, 100_000))) == [c.id for c in chunks(7)]
        assert len(store.query([1.0] * 8)) == 7

    @pytest.mark.parametrize("top_k", [0, -1, True, 1.5, "3", None])
    def test_top_k_is_a_positive_whole_number(self, store, top_k):
        """Anything else is refused, never rounded or ignored."""
        with pytest.raises(InvalidInput, match=r"top_k is .*whole number of at least 1"):
            store.query([1.0] * 8, top_k)

    def test_a_hit_carries_all_that_is_known_of_its_chunk(self, store):
        """Text, metadata, payload, index, document, and the document's source and uri."""
        chunk = Chunk("1", "text", [1.0] * 8, "d", 3, {"k": [1, {"x": None}]}, {"type": "Document"})
        store.upsert([chunk], documents=[Document("d", "wiki", "https://example.org/d", "hash", {"m": 1})])
        [hit] = store.query([1.0] * 8)
        assert (hit.text, hit.metadata, hit.payload) == (
            "text",
            {"k": [1, {"x": None}]},
            {"type": "Document"},
        )
        assert (hit.doc_id, hit.index, hit.source, hit.uri) == ("d", 3, "wiki", "https://example.org/d")

    def test_a_chunk_needs_no_document(self, store):
        """A chunk without a document is found, with nothing known of a source."""
        store.upsert([Chunk("1", "text", [1.0] * 8)])
        [hit] = store.query([1.0] * 8)
        assert (hit.doc_id, hit.index, hit.source, hit.uri, hit.metadata, hit.payload) == (None,) * 4 + (
            {},
            None,
        )
        assert store.documents() == []

    def test_every_condition_narrows(self, store):
        """Filters, ids and documents are ANDed, the same way in query, list and count."""
        made = chunks(60)
        store.upsert(made)
        wanted = [c.id for c in made if c.metadata["lang"] == "de" and c.doc_id in ("c-doc-1", "c-doc-2")]
        narrow = {"filters": F.lang == "de", "doc_ids": ["c-doc-1", "c-doc-2", "nope"]}
        assert store.count(**narrow) == len(wanted) > 2
        assert ids_of(store.list(**narrow)) == wanted
        assert sorted(ids_of(store.query(made[0].embedding, 60, **narrow))) == wanted
        assert sorted(ids_of(store.query(made[0].embedding, 60, **narrow, ids=[*wanted[:2], "nope"]))) == wanted[:2]
        assert store.query(made[0].embedding, 10, ids=[]) == [] == store.list(doc_ids=[])

    def test_k_rows_come_while_k_match(self, store):
        """A filter does not thin out the k nearest: they are the k nearest of those that match."""
        made = chunks(60)
        store.upsert(made)
        matching = [c for c in made if c.metadata["lang"] == "fr"]
        query = made[0].embedding
        assert ids_of(store.query(query, 15, F.lang == "fr")) == cosine_order(matching, query)[:15]

    def test_get_answers_in_the_order_asked(self, store):
        """Chunks come as asked for, unknown ids left out, embeddings only where wanted."""
        made = chunks(5)
        store.upsert(made)
        found = store.get(["c0003", "nope", "c0001", "c0003"], with_embeddings=True)
        assert ids_of(found) == ["c0003", "c0001", "c0003"]
        assert found[0].embedding == pytest.approx(made[3].embedding, abs=1e-3)
        assert replace(found[0], embedding=None) == replace(made[3], embedding=None) == store.get(["c0003"])[0]
        assert store.get([]) == []

    def test_list_pages_in_code_point_order(self, store):
        """Pages follow each other without a gap or an overlap; the order is that of Python's strings."""
        ids = ["b", "a", "Z", "é", "z", "ａ", "😀", "a-1", "a1"]
        store.upsert([Chunk(i, i, [1.0] * 8) for i in ids])
        pages = [ids_of(store.list(limit=4, offset=offset)) for offset in (0, 4, 8, 12)]
        assert [len(p) for p in pages] == [4, 4, 1, 0]
        assert [i for page in pages for i in page] == sorted(ids)
        assert store.list(limit=0) == []
        for bad in ({"limit": -1}, {"offset": -1}, {"limit": 1.5}, {"offset": True}):
            with pytest.raises(InvalidInput, match="whole number"):
                store.list(**bad)

    def test_counts_follow_filters(self, store):
        """count says how many list and query would find."""
        store.upsert(chunks(20))
        assert (store.count(), store.count(F.n >= 15), store.count(F.n > 99)) == (20, 5, 0)
        assert store.count(F.lang == "de", doc_ids=["c-doc-0"]) == 2

    def test_documents_keep_their_provenance(self, store):
        """Described documents come back as given, named ones bare; naming a described one changes nothing."""
        described = Document("c-doc-1", "wiki", "https://example.org/1", "abc", {"team": "x"})
        store.upsert(chunks(15), documents=[described])
        store.upsert([Chunk("late", "text", [1.0] * 8, "c-doc-1")])
        assert store.documents() == [Document("c-doc-0"), described, Document("c-doc-2")]
        assert store.documents(["c-doc-1", "nope"]) == [described]
        assert store.documents(limit=1, offset=2) == [Document("c-doc-2")]
        store.upsert([], documents=[replace(described, source="other")])
        assert store.documents(["c-doc-1"])[0].source == "other"

    def test_readers_of_what_is_not_there_find_nothing(self, store):
        """An unknown collection, id or document is no error to a reader, nor to a delete of rows."""
        assert store.query([1.0] * 8) == store.get(["x"]) == store.list() == store.documents() == []
        assert store.count() == store.set_metadata({"a": 1}, ids=["x"]) == 0
        for report in (store.delete(["x"]), store.delete_by_doc_id("x"), store.clear()):
            assert set(report.values()) == {0}
        with pytest.raises(NotFound, match="does not exist"):
            store.drop()

    def test_an_id_must_be_a_list_of_ids(self, store):
        """One string where ids belong is an error, not a list of its letters."""
        for call in (
            lambda: store.get("abc"),
            lambda: store.delete("abc"),
            lambda: store.list(doc_ids="abc"),
        ):
            with pytest.raises(InvalidInput, match="expected a list of ids"):
                call()
