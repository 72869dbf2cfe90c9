"""Searches by words and by both on a real server: what they cost, which indexes serve, how they explain themselves."""

from __future__ import annotations

import numpy as np
import psycopg
import pytest

import pgrecall
from benchmarks.proxy import Proxy
from conftest import as_dsn
from pgrecall import Chunk, EmbedSpace, F, InvalidInput, ReciprocalRank, Weighted
from pgrecall.admin import leakproof as tuning
from pgrecall.operations.search import shapes as search
from support.data import chunks, vectors
from support.graphs import LARGE, SPACE, made, run


@pytest.fixture
def store(db, tenant_id, space):
    store = db.tenant(tenant_id).vectors("handbook", space, text_config="english")
    store.upsert(chunks(40))
    return store


def test_a_warm_hybrid_search_takes_one_round_trip(app_url, tenant_id, space):
    """Both legs, their fusion and the texts are one statement, and what explains the search counts the same."""
    with Proxy(app_url) as proxy, pgrecall.connect(proxy.url) as db:
        store = db.tenant(tenant_id).vectors("handbook", space, text_config="english")
        store.upsert(chunks(40))
        asked = {"vector": vectors(1)[0], "text": "number 7", "filters": F.lang == "en"}
        store.query(**asked)
        proxy.delay = 0.03
        with proxy.counting() as count:
            assert len(store.query(**asked)) == 10
        assert count.trips == 1
        explained = store.query(**asked, explain=True).explanation
        assert explained.round_trips == 1 and [step.name for step in explained.steps] == ["search exact"]


def test_an_explanation_tells_what_was_done(store):
    """Mode, shape, what each leg had to choose from, depths, fusion, language, times, and the plan where asked."""
    hits = store.query(vectors(1)[0], 3, text="number 7", fusion=ReciprocalRank(10), fetch_k=20, explain="plan")
    explained = hits.explanation
    assert (explained.mode, explained.shape, explained.fell_back, explained.top_k, explained.rows) == (
        "hybrid",
        "exact",
        False,
        3,
        40,
    )
    assert explained.depth == {"dense": 20, "sparse": 20} and explained.candidates == {"dense": 20, "sparse": 40}
    assert (explained.fusion, explained.text_config, explained.generation) == (ReciprocalRank(10), "english", None)
    assert 0 < explained.steps[-1].wait_ms < explained.total_ms
    assert "chunk_vectors_scan_idx" in explained.plan and "actual time" in explained.plan and "'[…]'" in explained.plan
    assert store.query(vectors(1)[0]).explanation is None
    sparse = store.query(text="number", explain=True).explanation
    assert (sparse.shape, sparse.candidates, sparse.depth, sparse.plan) == (
        "none",
        {"sparse": 40},
        {"sparse": 10},
        None,
    )
    mmr = store.query_mmr(vectors(1)[0], 2, text="number", explain=True)
    assert len(mmr) == 2 and mmr.explanation.mode == "hybrid"
    with pytest.raises(InvalidInput, match="explain is"):
        store.query(vectors(1)[0], explain="everything")


def test_what_is_asked_again_is_reported(db, store, tenant_id, space):
    """The first search of a process looks the collection up, and says so."""
    db.backend.routes.forget()
    steps = store.query(vectors(1)[0], explain=True).explanation.steps
    assert [step.name for step in steps][-2:] == ["route", "search exact"]


def test_the_dense_leg_takes_the_graph_where_a_search_would(new_database):
    """A hybrid search of a large collection uses the graph, the waiting rows and the words in one statement."""
    url = new_database(migrated=True)
    with pgrecall.connect(url, admin_url=url) as db:
        store = db.tenant("acme").vectors("large", SPACE, text_config="english")
        held = made(LARGE)
        store.upsert(held)
        db.maintain()
        vector = held[5].embedding
        for statistics in (False, True):
            if statistics:
                run(url, "ANALYZE pgrecall.chunks, pgrecall.chunk_vectors")
            hits = store.query(vector, text="7", explain="plan")
            explained = hits.explanation
            assert (explained.shape, explained.generation, explained.fell_back) == ("graph", 1, False)
            # The words' leg may scan a table of so few pages: it then reads less than by the index.
            scans = "Seq Scan on chunk_vectors" if statistics else "Seq Scan on chunk"
            assert "chunk_vectors_graph_1_1" in explained.plan and scans not in explained.plan
        assert {hits[0].chunk_id, hits[1].chunk_id} == {held[5].id, "c00007"}
        exact = {h.chunk_id for h in store.query(vector, 50)}
        assert {h.chunk_id for h in store.query(vector, 100, text="7") if h.dense_rank and h.dense_rank <= 50} >= exact
        few = store.query(vector, text="7", filters=F.nothing == 1, explain=True)
        assert few == [] and few.explanation.candidates == {"dense": 0, "sparse": 0, "filter": 0}


@pytest.mark.parametrize("tuned", [True, False])
def test_the_index_of_words_serves_under_row_level_security_once_tuned(new_database, tuned):
    """With the LEAKPROOF marks a rare word is found by GIN; without, by a scan that ends with the tenant's rows."""
    url = new_database(migrated=True)
    with pgrecall.connect(url) as db:
        tuning.tune(url, undo=not tuned)
        for tenant in ("acme", "other"):
            store = db.tenant(tenant).vectors("c", EmbedSpace("test", "eight", 8), text_config="english")
            store.upsert(chunks(2000))
        with psycopg.connect(as_dsn(url), autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE pgrecall.chunks")
        explained = store.query(text="1234", explain="plan")
        assert [h.chunk_id for h in explained] == ["c1234"]
        assert ("chunks_text_search_idx" in explained.explanation.plan) is tuned


def test_a_rare_word_weighs_more_than_a_common_one(db, tenant_id, space):
    """Of two texts with one of the words each, the one with the rarer word comes first."""
    store = db.tenant(tenant_id).vectors("words", space, text_config="english")
    texts = ["common ground"] * 30 + ["rare ground"]
    store.upsert([Chunk(f"c{n:02d}", text, [1.0] * 8) for n, text in enumerate(texts)])
    hits = store.query(text="rare common", top_k=31)
    assert hits[0].chunk_id == "c30" and hits[0].score > 2 * hits[1].score
    assert [h.chunk_id for h in hits[1:]] == [f"c{n:02d}" for n in range(30)]


def test_very_many_matches_are_pooled(store, monkeypatch):
    """Where more match than are weighed word by word, the best by a rough rank are, and as many come as asked for."""
    monkeypatch.setattr(search, "POOL", 12)
    hits = store.query(text="number 7 text", top_k=10, explain=True)
    assert len(hits) == 10 and hits[0].chunk_id == "c0007" and hits.explanation.candidates == {"sparse": 12}
    monkeypatch.setattr(search, "RANKED", 5)
    assert len(store.query(text="number text", top_k=10)) == 5


def test_a_huge_text_is_answered(store):
    """A text of 100 kB is searched by its beginning, in no more time than its words allow."""
    for text in ("number " * 15_000, " ".join(f"w{n}" for n in range(20_000)), '"number 7" ' * 9_000, "-x " * 30_000):
        assert len(store.query(vectors(1)[0], text=text)) == 10


@pytest.mark.parametrize(
    "bad",
    [
        {"mode": "keyword"},
        {"fusion": "rrf"},
        {"fetch_k": 0},
        {"sparse_k": 1.5},
        {"text": b"bytes"},
        {"top_k": 0},
    ],
)
def test_what_cannot_be_asked_is_refused(store, bad):
    """Each is an InvalidInput that names the argument or what was found."""
    with pytest.raises(InvalidInput):
        store.query(**{"vector": vectors(1)[0], "text": "x", **bad})


@pytest.mark.parametrize("make", [Weighted, lambda alpha: ReciprocalRank(60, alpha)])
@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan"), True, "0.5", None])
def test_a_share_is_from_0_to_1(make, alpha):
    """Anything else is refused when the fusion is made."""
    with pytest.raises(InvalidInput, match="alpha is"):
        make(alpha)


@pytest.mark.parametrize("k", [-1, float("nan"), float("inf"), "60"])
def test_the_k_of_ranks_is_a_number(k):
    """Negative, infinite and no numbers are refused."""
    with pytest.raises(InvalidInput, match="k is"):
        ReciprocalRank(k)


@pytest.mark.parametrize("distance", ["l2", "ip"])
def test_each_distance_can_be_fused(db, tenant_id, distance):
    """Whatever the space's distance, the nearest has the whole of the vector's share and the farthest none."""
    space = EmbedSpace("test", f"eight-{distance}", 8, distance)
    store = db.tenant(tenant_id).vectors(distance, space, text_config="english")
    axes = np.eye(8, dtype=np.float32)
    store.upsert([Chunk(f"c{n}", "text", axes[0] * (n + 1)) for n in range(3)])
    hits = store.query(axes[0] * 3, text="nothing", fusion=Weighted(0.8))
    assert [(h.chunk_id, h.score) for h in hits][::2] == [("c2", pytest.approx(0.8)), ("c0", 0)]
