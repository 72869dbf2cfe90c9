"""What the vector store does beyond LangChain's own suites: ids, metadata, all or nothing, searches."""

from __future__ import annotations

import asyncio
import copy
import math

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_pgrecall import PGRecallVectorStore
from pgrecall import (
    ConfigurationError,
    EmbedModel,
    F,
    InvalidEmbedding,
    InvalidInput,
    ReciprocalRank,
)

TEXTS = ["cats purr softly", "dogs bark loudly", "birds sing early"]


def ids_of(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


# Ids and metadata


def test_a_tenant_cannot_overwrite_what_another_has_under_the_same_id(store):
    """Adding is an upsert within the tenant, and only there."""
    other = store.for_tenant(f"{store.tenant}-other")
    store.add_texts(["ours"], ids=["1"])
    other.add_texts(["theirs"], ids=["1"])
    other.delete(["1"])
    other.add_texts(["theirs again"], ids=["1"])
    assert [d.page_content for d in store.get_by_ids(["1"])] == ["ours"]
    store.add_texts(["ours, changed"], ids=["1"])
    assert [d.page_content for d in store.similarity_search("ours", k=10)] == ["ours, changed"]
    assert [d.page_content for d in other.get_by_ids(["1"])] == ["theirs again"]


def test_ids_are_any_text_and_the_last_of_one_id_wins(store):
    """No UUID is asked for; one id for each input comes back, in order; missing ones are made."""
    strange = ["a/b c", "ключ", "'; --", "%", "x" * 900]
    assert store.add_texts([f"text {n}" for n in range(5)], ids=strange) == strange
    assert ids_of(store.get_by_ids([*reversed(strange), "unknown"])) == strange[::-1]
    assert store.add_texts(["one", "two"], ids=["same", "same"]) == ["same", "same"]
    assert store.get_by_ids(["same"])[0].page_content == "two"
    first, second = store.add_documents([Document("new"), Document("named", id="named")])
    assert len(first) == 36 and second == "named"
    assert store.add_documents([Document("x", id="mine")], ids=["yours"]) == ["yours"]
    assert store.get_by_ids([]) == [] and store.get_by_ids(["mine"]) == []
    assert store.add_texts([]) == [] and store.add_documents([]) == []


def test_metadata_comes_back_exactly(store):
    """Keys named like columns, nested values, floats and ints, null, empty, unicode; a search's and a read's alike."""
    metadata = {
        "id": "not the id", "text": "t", "content": 1, "tenant_id": "nobody", "langchain_id": None,
        "n": 1, "x": 1.0, "big": 10**30, "small": 1e-300, "yes": True, "none": None, "list": [1, "a", None, {"b": []}],
        "nested": {"a.b": {"c": "d"}}, "": "empty key", "emoji 😀": "ключ", "quote'\"": "\\",
    }  # fmt: skip
    store.add_texts(["text"], [metadata], ids=["1"])
    for [found] in (store.get_by_ids(["1"]), store.similarity_search("text"), store.max_marginal_relevance_search("t")):
        assert found.metadata == metadata and found.id == "1"
        assert {k: type(v) for k, v in found.metadata.items()} == {k: type(v) for k, v in metadata.items()}


def test_inputs_are_not_changed(store):
    """Documents, metadatas, ids and filters are the caller's."""
    documents = [Document("a", metadata={"k": [1]}), Document("b", id="b")]
    metadatas, ids, condition = [{"k": {"x": 1}}, {}], ["1", None], {"k": {"$exists": True}}
    before = copy.deepcopy((documents, metadatas, ids, condition))
    store.add_documents(documents)
    store.add_texts(["a", "b"], metadatas, ids=ids)
    store.similarity_search("a", filter=condition)
    assert (documents, metadatas, ids, condition) == before


def test_generators_are_stored(store):
    """The peer stored nothing from a generator, which its first pass used up."""
    assert len(store.add_texts(text for text in TEXTS)) == 3
    vectors = [store.embeddings.embed_query(text) for text in TEXTS]
    given = [iter(column) for column in (TEXTS, vectors, [{"n": n} for n in range(3)], ["a", "b", "c"])]
    assert store.add_embeddings(*given) == ["a", "b", "c"]
    assert store.add_embeddings(TEXTS, np.array(vectors), ids=["d", "e", "f"]) == ["d", "e", "f"]
    assert len(store.add_documents(Document(text) for text in TEXTS)) == 3
    assert store.core.count() == 12


@pytest.mark.parametrize("columns", [{"metadatas": [{}]}, {"ids": ["1"]}, {"ids": ["1", "2", "3", "4"]}])
def test_a_length_mismatch_is_a_value_error_before_anything_is_written(store, words, columns):
    """Nothing is embedded either."""
    with pytest.raises(ValueError, match=r"has \d elements, expected 3, one per text; nothing was written"):
        store.add_texts(TEXTS, **columns)
    with pytest.raises(ValueError, match="embeddings has 2 elements, expected 3"):
        store.add_embeddings(TEXTS, [[0.1] * 16] * 2)
    with pytest.raises(ValueError, match="embeddings has 0 elements, expected 3"):
        store.add_embeddings(TEXTS, [])
    assert words.seen == [] and store.core.count() == 0


def test_one_text_or_document_is_no_list_of_them(store, words):
    """A text's letters would be stored, one document each; a document's fields, or a dict's keys."""
    arguments = {"connection": store.database, "tenant": "t", "space": EmbedModel("test", "words")}
    for attempt in (
        lambda: store.add_texts("hello"),
        lambda: store.add_texts(["a", "b"], ids="ab"),
        lambda: store.add_texts(["a"], {"lang": "en"}),
        lambda: store.add_documents(Document("one")),
        lambda: store.add_documents(["one"]),
        lambda: PGRecallVectorStore.from_texts("hello", words, **arguments),
        lambda: asyncio.run(store.aadd_texts("hello")),
    ):
        with pytest.raises(InvalidInput, match="expected a list"):
            attempt()
    assert words.seen == [] and store.core.count() == 0


def test_a_failing_batch_leaves_nothing(store):
    """The peer commits row by row, so it kept what came before the bad one."""
    vectors = [[0.1] * 16] * 2500
    for bad in ([0.1] * 15, [math.nan] * 16, [0.0] * 16):
        with pytest.raises(InvalidEmbedding):
            store.add_embeddings([f"t{n}" for n in range(2501)], [*vectors, bad])
    with pytest.raises(InvalidInput, match="expected a JSON value"):
        store.add_texts(TEXTS, [{}, {}, {"k": object()}])
    assert store.core.count() == 0


def test_a_nul_in_one_row_breaks_nothing(store):
    """It is refused when it is written, naming the chunk; filtered searches of the rest go on."""
    store.add_texts(TEXTS, [{"k": "x"}] * 3)
    for text, metadata in (("a\0b", {}), ("ab", {"k": "a\0b"})):
        with pytest.raises(InvalidInput, match="NUL"):
            store.add_texts([text], [metadata], ids=["bad"])
    assert len(store.similarity_search("cats", k=10, filter={"k": "x"})) == 3


def test_unchanged_texts_are_not_embedded_again(store, words):
    """An upsert of what is there costs no call of the model; changed metadata alone neither."""
    store.add_texts(TEXTS, ids=["1", "2", "3"])
    words.seen.clear()
    store.add_texts([*TEXTS[:2], "new text"], [{"tag": n} for n in range(3)], ids=["1", "2", "3"])
    assert words.seen == ["new text"]
    assert [d.metadata for d in store.get_by_ids(["1", "3"])] == [{"tag": 0}, {"tag": 2}]


# Searching


def test_mmr_gives_as_many_as_were_asked_for(store):
    """k=10 gives ten, whatever fetch_k says; and results unlike each other come first."""
    store.add_texts([f"cats purr {n}" for n in range(15)] + ["dogs bark"], ids=[str(n) for n in range(16)])
    assert len(store.max_marginal_relevance_search("cats", k=10)) == 10
    assert len(store.max_marginal_relevance_search("cats", k=10, fetch_k=3)) == 10
    diverse = store.max_marginal_relevance_search("cats purr", k=3, fetch_k=16, lambda_mult=0.0)
    assert "15" in ids_of(diverse)
    vector = store.embeddings.embed_query("cats purr")
    found = store.max_marginal_relevance_search_with_score_by_vector(vector, k=3, fetch_k=16, lambda_mult=0.0)
    assert [document for document, _ in found] == diverse
    assert diverse == store.max_marginal_relevance_search_by_vector(vector, k=3, fetch_k=16, lambda_mult=0.0)


def test_mmr_agrees_with_langchains_own_implementation(db, tenant_id):
    """The same texts, in the same order, as InMemoryVectorStore gives."""
    fake = DeterministicFakeEmbedding(size=24)
    ours = PGRecallVectorStore(fake, connection=db, tenant=tenant_id)
    theirs = InMemoryVectorStore(fake)
    texts = [f"text number {n}" for n in range(40)]
    for target in (ours, theirs):
        target.add_texts(texts)
    for query in ("anything else", "of another kind"):  # a stored text would tie with all others
        for mult in (0.2, 0.5, 0.9):
            asked = {"k": 8, "fetch_k": 25, "lambda_mult": mult}
            found = [target.max_marginal_relevance_search(query, **asked) for target in (ours, theirs)]
            assert [d.page_content for d in found[0]] == [d.page_content for d in found[1]]


def test_filters_reach_every_search_and_delete(store):
    """`$in: []` finds nothing and crashes nothing; two operators on one field; `$ne` keeps rows without the key."""
    metadatas = [{"year": 2019}, {"year": 2021, "tags": ["a", "b"]}, {"lang": "en"}]
    store.add_texts(TEXTS, metadatas, ids=["1", "2", "3"])

    def found(condition: dict[str, object]) -> list[str]:
        return sorted(ids_of(store.similarity_search("cats", k=10, filter=condition)))

    assert found({"year": {"$in": []}}) == []
    assert found({"year": {"$gte": 2020, "$lt": 2024}}) == ["2"]
    assert found({"year": {"$ne": 2019}}) == ["2", "3"]
    assert found({"year": {"$nin": [2021]}}) == ["1", "3"]
    assert found({"$not": {"year": 2019}}) == ["2", "3"]
    assert found({"tags": {"$contains": "b"}}) == ["2"]
    assert found({"year": {"$gt": "2000"}}) == []  # a number is no text
    assert found({}) == ["1", "2", "3"]
    assert ids_of(store.similarity_search("cats", filter=F.lang == "en")) == ["3"]
    assert ids_of(store.max_marginal_relevance_search("cats", filter={"lang": "en"})) == ["3"]
    vector = store.embeddings.embed_query("cats")
    assert ids_of(store.similarity_search_by_vector(vector, filter={"year": 2019})) == ["1"]
    assert store.delete(filter={"year": {"$lt": 2020}}) is True
    assert store.delete(["2", "3"], filter={"lang": "en"}) is True
    assert found({}) == ["2"]
    assert store.delete() is False and store.delete([]) is True and store.delete(["unknown"]) is True
    with pytest.raises(InvalidInput, match="the condition matches the whole collection"):
        store.delete(filter={})
    assert found({}) == ["2"]


DISTANCES = {
    "cosine": (lambda a, b: 1 - float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b)), lambda d: max(0.0, 1 - d)),
    "l2": (lambda a, b: float(np.linalg.norm(a - b)), lambda d: max(0.0, 1 - d / math.sqrt(2))),
    "ip": (lambda a, b: -float(a @ b), lambda d: min(1.0, max(0.0, -d))),
}


@pytest.mark.parametrize("distance", DISTANCES)
def test_scores_are_distances_and_relevance_is_between_zero_and_one(make, distance):
    """Nearest first, lower is better; relevance falls with distance, for the inner product too."""
    store = make(space=EmbedModel("test", f"words-{distance}", distance))
    store.add_texts(TEXTS, ids=["1", "2", "3"])
    query = np.array(store.embeddings.embed_query("dogs bark loudly"))
    measure, relevance = DISTANCES[distance]
    expected = {n: measure(query, np.array(store.embeddings.embed_query(t))) for n, t in zip("123", TEXTS, strict=True)}
    scored = store.similarity_search_with_score("dogs bark loudly", k=3)
    assert {d.id: score for d, score in scored} == pytest.approx(expected, abs=2e-3)
    assert [score for _, score in scored] == sorted(score for _, score in scored)
    relevant = store.similarity_search_with_relevance_scores("dogs bark loudly", k=3)
    assert [s for _, s in relevant] == pytest.approx([relevance(score) for _, score in scored])
    assert relevant[0][0].id == "2" and all(0 <= s <= 1 for _, s in relevant)
    assert relevant[0][1] > relevant[-1][1]
    threshold = (relevant[0][1] + relevant[1][1]) / 2
    keywords = {"score_threshold": threshold, "k": 3}
    retriever = store.as_retriever(search_type="similarity_score_threshold", search_kwargs=keywords)
    assert ids_of(retriever.invoke("dogs bark loudly")) == ["2"]


def test_retrievers_of_each_kind(store):
    """similarity and mmr, with k and filters, sync and async."""
    store.add_texts(TEXTS, [{"n": n} for n in range(3)], ids=["1", "2", "3"])
    for kind in ("similarity", "mmr"):
        retriever = store.as_retriever(search_type=kind, search_kwargs={"k": 2, "filter": {"n": {"$gte": 1}}})
        assert sorted(ids_of(retriever.invoke("dogs"))) == ["2", "3"]
        assert sorted(ids_of(asyncio.run(retriever.ainvoke("dogs")))) == ["2", "3"]
    assert "PGRecallVectorStore" in store.as_retriever().tags


def test_hybrid_search_finds_by_words_and_by_meaning(make, words):
    """By a call's keyword, a retriever's or the store's own; each query looks for its own words."""
    store = make(text_config="english")
    store.add_texts([*TEXTS, "the invoice X-4711 is overdue"], [{"n": n} for n in range(4)], ids=["1", "2", "3", "4"])
    assert store.similarity_search("X-4711", k=1, mode="hybrid")[0].id == "4"
    assert store.similarity_search("barking", k=1, mode="sparse")[0].id == "2"  # another form of the word
    assert store.similarity_search("X-4711", k=1, mode="hybrid")[0].id == "4"
    retriever = store.as_retriever(search_kwargs={"mode": "hybrid", "k": 1, "filter": {"n": {"$lt": 3}}})
    assert ids_of(retriever.invoke("invoice purr")) == ["1"]
    own = make(mode="hybrid", fusion=ReciprocalRank(k=10))
    for query, found in (("invoice", "4"), ("birds", "3"), ("invoice", "4")):
        assert own.similarity_search(query, k=1)[0].id == found
        assert asyncio.run(own.asimilarity_search(query, k=1))[0].id == found
    assert own.for_tenant(own.tenant).similarity_search("invoice", k=1)[0].id == "4"
    assert ids_of(own.max_marginal_relevance_search("invoice", k=1)) == ["4"]
    vector = words.embed_query("dogs bark loudly")
    assert own.similarity_search_by_vector(vector, k=1)[0].id == "2"
    assert own.similarity_search_by_vector(vector, k=1, text="invoice", mode="sparse")[0].id == "4"


def test_scores_of_hybrid_search_rise_and_relevance_stays_within_one(make, words):
    """The number is what the documents were ranked by; words alone cost no embedding."""
    store = make(text_config="english", mode="hybrid")
    store.add_texts(TEXTS, ids=["1", "2", "3"])
    for mode in ("hybrid", "sparse"):
        scores = [score for _, score in store.similarity_search_with_score("dogs bark", k=3, mode=mode)]
        assert scores == sorted(scores, reverse=True)
        relevant = store.similarity_search_with_relevance_scores("dogs bark", k=3, mode=mode)
        assert relevant[0][0].id == "2" and all(0 <= s <= 1 for _, s in relevant)
    distances = [d for _, d in store.similarity_search_with_score("dogs bark", k=3, mode="dense")]
    assert distances == sorted(distances)
    words.seen.clear()
    store.similarity_search("dogs", mode="sparse")
    assert words.seen == []
    for search in (store.similarity_search, store.max_marginal_relevance_search):
        with pytest.raises(InvalidInput, match="mode is 'both'"):
            search("dogs", mode="both")
    plain = make(collection="plain", mode="hybrid")
    plain.add_texts(TEXTS)
    with pytest.raises(ConfigurationError):
        plain.similarity_search("dogs")
