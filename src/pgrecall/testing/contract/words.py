"""The contract of a `VectorStore`: its searches by words, and by words and a vector."""

from __future__ import annotations

from typing import Any

import pytest

from pgrecall import Chunk, ConfigurationError, F, Hit, InvalidInput, ReciprocalRank, Weighted
from pgrecall.hits import Fusion
from pgrecall.testing.contract.base import ids_of
from pgrecall.testing.contract.stores import OpensVectorStores

TEXTS = {
    "a": "the wing of an aircraft",
    "b": "boundary layer",
    "c": "the layer at a boundary of the wing",
    "d": "birds with wing and feather",
    "e": "nothing to find here",
}
VECTORS = {
    "a": [1.0, 0.5, 0, 0, 0, 0, 0, 0],
    "b": [1.0, 0.9, 0, 0, 0, 0, 0, 0],
    "c": [1.0, 0.1, 0, 0, 0, 0, 0, 0],
    "d": [1.0, 1.5, 0, 0, 0, 0, 0, 0],
    "e": [1.0, 0.0, 0, 0, 0, 0, 0, 0],
}
QUERY = VECTORS["e"]
NEAREST = ["e", "c", "a", "b", "d"]
FUSIONS = [Weighted(), Weighted(alpha=0.2), ReciprocalRank(), ReciprocalRank(k=0, alpha=0.8)]


class VectorWordsContract(OpensVectorStores):
    """Searches by words, and by words and a vector together."""

    @pytest.fixture
    def said(self, open_store: Any) -> Any:
        """A store with a few texts."""
        store = open_store(text_config="simple")
        store.upsert([Chunk(i, text, VECTORS[i], metadata={"bird": i == "d"}) for i, text in TEXTS.items()])
        return store

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("wing unheard-of", "acd"),
            ("WING feather boundary", "abcd"),
            ('"boundary layer"', "b"),
            ('feather "boundary layer"', "bd"),
            ("wing -birds", "ac"),
            ('layer -"boundary layer"', "c"),
            ("wing & ! | ( <-> :* '\" \\ \0", "acd"),
            ("-wing", ""),
            ("", ""),
            ("??? 😀", ""),
        ],
    )
    def test_any_of_the_words_is_enough(self, said: Any, text: Any, found: Any) -> None:
        """Words and phrases are OR-ed, a minus excludes, and punctuation is ignored; an empty query finds nothing."""
        assert sorted(ids_of(said.query(text=text))) == list(found)

    def test_more_words_rank_higher(self, said: Any) -> None:
        """A text with more of the words has a higher score and rank; a hit by words has no distance."""
        hits = said.query(text="aircraft wing")
        assert hits[0].chunk_id == "a"
        assert [h.sparse_rank for h in hits] == list(range(1, len(hits) + 1))
        assert [h.score for h in hits] == [h.text_score for h in hits] == sorted((h.score for h in hits), reverse=True)
        assert all(h.distance is None and h.dense_rank is None and h.score > 0 for h in hits)
        assert ids_of(said.query(text="aircraft wing", top_k=2)) == ids_of(hits)[:2]

    def test_equal_texts_come_by_id(self, said: Any) -> None:
        """Chunks with equal texts have equal scores and are ordered by id, by code points."""
        said.upsert([Chunk(i, "exactly the same", QUERY) for i in ("z", "é", "Z")])
        hits = said.query(text="same exactly")
        assert ids_of(hits) == ["Z", "z", "é"] and len({h.score for h in hits}) == 1

    def test_a_vector_alone_has_its_rank(self, said: Any) -> None:
        """A search by a vector ranks from 1 and returns neither text scores nor sparse ranks."""
        hits = said.query(QUERY)
        assert ids_of(hits) == NEAREST
        assert [(h.dense_rank, h.sparse_rank, h.text_score) for h in hits] == [(n, None, None) for n in range(1, 6)]

    @pytest.mark.parametrize("fusion", FUSIONS)
    def test_both_legs_are_fused_by_the_formula(self, said: Any, fusion: Any) -> None:
        """A fused hit has the ranks that each leg alone gives it, and the score that the formula gives for them."""
        legs = [said.query(QUERY), said.query(text="wing feather")]
        hits = said.query(QUERY, text="wing feather", fusion=fusion)
        assert sorted(ids_of(hits)) == sorted({*ids_of(legs[0]), *ids_of(legs[1])})
        for hit in hits:
            assert hit.dense_rank == place(legs[0], hit) and hit.sparse_rank == place(legs[1], hit)
            assert hit.score == pytest.approx(expected(hit, legs, fusion), abs=1e-5)
        assert ids_of(hits) == [h.chunk_id for h in sorted(hits, key=lambda h: (-h.score, h.chunk_id))]

    def test_alpha_leads_from_one_leg_to_the_other(self, said: Any) -> None:
        """With alpha=1 the order is that of the vector, with alpha=0 that of the words."""
        assert ids_of(said.query(QUERY, text="wing", fusion=Weighted(alpha=1))) == NEAREST
        words = ids_of(said.query(text="wing feather"))
        assert ids_of(said.query(QUERY, text="wing feather", fusion=ReciprocalRank(alpha=0)))[: len(words)] == words

    def test_each_leg_has_its_depth(self, said: Any) -> None:
        """fetch_k is the depth of both legs, sparse_k that of the words; top_k limits the fused hits."""
        hits = said.query(QUERY, text="wing", fetch_k=2, sparse_k=1)
        assert [h.dense_rank for h in hits].count(None) == 1 and sum(h.sparse_rank is not None for h in hits) == 1
        assert {h.chunk_id for h in hits if h.dense_rank} == {"e", "c"}
        assert len(said.query(QUERY, 1, text="wing", fetch_k=3)) == 1

    def test_conditions_narrow_both_legs(self, said: Any) -> None:
        """Filters and ids apply to searches by words, and to both legs of a fused search."""
        assert ids_of(said.query(text="wing", filters=F.bird == True)) == ["d"]  # noqa: E712
        hits = said.query(QUERY, text="wing", ids=["a", "d", "e"])
        assert sorted(ids_of(hits)) == ["a", "d", "e"]
        assert sorted((h.dense_rank, h.chunk_id) for h in hits) == [(1, "e"), (2, "a"), (3, "d")]
        assert said.query(text="wing", ids=[]) == said.query(QUERY, text="wing", doc_ids=["x"]) == []

    def test_a_mode_uses_only_what_it_needs(self, said: Any) -> None:
        """Arguments that the mode does not use are ignored; without one that it needs, it raises InvalidInput."""
        assert ids_of(said.query(QUERY, text="wing", mode="dense")) == NEAREST
        assert sorted(ids_of(said.query(QUERY, text="wing", mode="sparse"))) == ["a", "c", "d"]
        for mode, given in (
            (None, {}),
            ("dense", {"text": "x"}),
            ("sparse", {"vector": QUERY}),
            ("hybrid", {"text": "x"}),
            ("hybrid", {"vector": QUERY}),
        ):
            with pytest.raises(InvalidInput):
                said.query(**given, mode=mode)

    def test_words_need_full_text(self, open_store: Any) -> None:
        """A collection without full text raises ConfigurationError; one that does not exist finds nothing."""
        store = open_store()
        assert store.query(text="wing") == store.query(QUERY, text="wing") == []
        store.upsert([Chunk("a", "wing", QUERY)])
        for asked in ({"text": "wing"}, {"vector": QUERY, "text": "wing"}):
            with pytest.raises(ConfigurationError):
                store.query(**asked)
        assert ids_of(store.query(QUERY)) == ["a"]


def place(leg: list[Hit], hit: Hit) -> int | None:
    """The rank of a hit's chunk among the hits of one leg."""
    return next((n for n, other in enumerate(leg, 1) if other.chunk_id == hit.chunk_id), None)


def expected(hit: Hit, legs: list[list[Hit]], fusion: Fusion) -> float:
    """The score that follows from a hit's ranks and scores in each leg."""
    score = 0.0
    for leg, share in zip(legs, (fusion.alpha, 1 - fusion.alpha), strict=True):
        at = place(leg, hit)
        if at is None:
            continue
        if isinstance(fusion, ReciprocalRank):
            score += share * 2 / (fusion.k + at)
        else:
            low, high = leg[-1].score, leg[0].score
            score += share * ((leg[at - 1].score - low) / (high - low) if high > low else 1.0)
    return score
