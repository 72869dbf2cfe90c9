"""Runs: what is kept, counted, resumed and refused."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from pgrecall import Chunk, EmbedSpace, InvalidInput, NotFound
from pgrecall.evaluation import (
    EvalQuery,
    EvalSet,
    Evaluations,
    aevaluate,
    evaluate,
    load_run,
    per_query,
)

SPACE = EmbedSpace("test", "words", 8)
WORDS = ["apple", "brick", "cloud", "dream", "eagle", "flame", "grape", "honey"]


def embed(texts):
    """Counts of eight words: texts that share words are near."""
    return [[text.count(word) + 0.01 for word in WORDS] for text in texts]


def eval_set(name="words", tenant=None):
    return EvalSet(name, tuple(EvalQuery(f"q{i}", f"the {w}?", {f"c{i}": 1}, tenant) for i, w in enumerate(WORDS)))


@pytest.fixture
def store(db, tenant_id):
    """A collection with a chunk about each word, two of a document."""
    made = db.tenant(tenant_id).vectors("words", SPACE, embed=embed)
    made.upsert([Chunk(f"c{i}", f"{w} and {w}", doc_id=f"d{i // 2}") for i, w in enumerate(WORDS)])
    return made


@pytest.fixture
def kept(db, tenant_id):
    return Evaluations(db.tenant(f"{tenant_id}-eval"))


def test_a_core_store_is_measured_and_the_run_is_kept_whole(store, kept):
    """Figures, configuration in full, and each query's rows, ranks, scores and latencies."""
    run = evaluate(store, eval_set(), store=kept, embed=embed, top_k=(1, 3), label="first")
    assert run.mean("ndcg@3") == run.mean("hit@1") == 1.0
    assert run.summary["queries"] == 8 and run.summary["failed"] == run.summary["empty"] == 0
    assert run.summary["metrics"]["precision@3"] == pytest.approx(
        {"mean": 1 / 3, "low": 1 / 3, "high": 1 / 3, "level": 0.95}
    )
    result = run.results[0]
    assert result.retrieved[0]["id"] == "c0" and len(result.retrieved) == 3
    assert set(result.latency) == {"embed", "search", "total"}
    again = load_run(kept, run.run_id)
    assert (again.results, again.summary, again.config) == (run.results, run.summary, run.config)
    config = again.config
    assert config["asked"]["retriever"]["space"]["model"] == "words"
    assert config["asked"]["retriever"]["rows"] == {"chunks": 8, "documents": 4}
    assert len(config["asked"]["retriever"]["fingerprint"]) == 64
    assert config["database"]["pgvector"] and config["versions"]["pgrecall"] and config["label"] == "first"
    [info] = kept.runs("words")
    assert (info.status, info.set_version, info.set_sha256) == ("done", 1, eval_set().sha256)


def test_documents_can_be_what_is_judged(store):
    """Two chunks of one document count once, at the rank of the first."""
    judged = EvalSet("docs", (EvalQuery("q", "apple brick", {"d0": 1}),))
    [result] = evaluate(store, judged, embed=embed, by="document", top_k=5, metrics=["mrr", "precision@2"]).results
    assert [row["id"] for row in result.retrieved][:2] == ["d0", "d0"]
    assert result.metrics == {"mrr": 1.0, "precision@2": 0.5}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_query_that_fails_is_recorded_and_an_empty_answer_counted(kept, is_async):
    """Both score 0 and none is dropped."""

    def retrieve(text, k):
        if "brick" in text:
            raise RuntimeError("no\0 bricks \ud800")
        return [] if "cloud" in text else ["c0"]

    if is_async:
        run = asyncio.run(aevaluate(retrieve, eval_set(), store=kept, top_k=1, concurrency=3))
    else:
        run = evaluate(retrieve, eval_set(), store=kept, top_k=1, concurrency=3)
    assert (run.summary["queries"], run.summary["failed"], run.summary["empty"]) == (8, 1, 1)
    assert run.results[1].error == "RuntimeError: no bricks ?" and run.results[1].metrics["hit@1"] == 0
    assert run.mean("hit@1") == 1 / 8
    assert load_run(kept, run.run_id).results == run.results


def test_an_interrupted_run_is_resumed_and_ends_with_the_same_figures(store, kept, monkeypatch):
    """What was kept is not asked again; what failed is."""
    monkeypatch.setattr("pgrecall.evaluation.runs.KEEP_EVERY", 2)
    asked = []

    def dies(text, k):
        asked.append(text)
        if len(asked) == 2:
            raise ValueError("once")
        if len(asked) == 6:
            raise KeyboardInterrupt
        return [h.chunk_id for h in store.query(embed([text])[0], k)]

    with pytest.raises(KeyboardInterrupt):
        evaluate(dies, eval_set(), store=kept, top_k=3, run_id="mine")
    assert kept.run_info("mine").status == "running" and len(kept.results("mine")) == 5
    with pytest.raises(InvalidInput, match="not finished; resume it"):
        load_run(kept, "mine")
    resumed = evaluate(dies, eval_set(), store=kept, top_k=3, run_id="mine")
    assert len(asked) == 6 + 4  # three that were never answered, and the one that failed
    whole = evaluate(lambda text, k: [h.chunk_id for h in store.query(embed([text])[0], k)], eval_set(), top_k=3)
    same = [(r.query_id, r.metrics, r.error) for r in whole.results]
    assert [(r.query_id, r.metrics, r.error) for r in resumed.results] == same
    assert {**resumed.summary, "latency": 0} == {**whole.summary, "latency": 0}
    assert {**load_run(kept, "mine").summary, "latency": 0} == {**whole.summary, "latency": 0}


def test_a_run_is_not_resumed_on_other_data_or_with_another_question(store, kept):
    """Its figures would mix two things; the message says which."""
    evaluate(store, eval_set(), store=kept, embed=embed, top_k=3, run_id="r")
    other = EvalSet("words", eval_set().queries[:3])
    with pytest.raises(InvalidInput, match="another version of its set"):
        evaluate(store, other, store=kept, embed=embed, top_k=3, run_id="r")
    with pytest.raises(InvalidInput, match="top_k was \\[3\\], is \\[5\\]"):
        evaluate(store, eval_set(), store=kept, embed=embed, top_k=5, run_id="r")


def test_two_runs_with_one_seed_are_identical_whatever_the_concurrency(store):
    """Results stand in the set's order; only latencies differ."""
    one = evaluate(store, eval_set(), embed=embed, seed=7)
    two = evaluate(store, eval_set(), embed=embed, seed=7, concurrency=4)
    three = asyncio.run(aevaluate(store, eval_set(), embed=embed, seed=7, concurrency=4))
    for other in (two, three):
        assert [(r.query_id, r.retrieved, r.metrics) for r in one.results] == [
            (r.query_id, r.retrieved, r.metrics) for r in other.results
        ]
        assert {**one.summary, "latency": 0} == {**other.summary, "latency": 0}


def test_rows_of_other_tenants_are_counted(db, tenant_id, store):
    """An id that answers another tenant's questions is a foreign row; a store for each tenant gives none."""
    mine, other = f"{tenant_id}-a", f"{tenant_id}-b"
    queries = [EvalQuery(q.id, q.text, q.judged, mine if i < 4 else other) for i, q in enumerate(eval_set().queries)]
    judged = EvalSet("two tenants", tuple(queries))
    pooled = evaluate(store, judged, embed=embed, top_k=8)
    assert pooled.summary["foreign_rows"] == 8 * 4 and pooled.summary["rows"] == 64
    foreign = evaluate(lambda text: ["c0", "unjudged"], judged, tenant_of={"c0": mine, "unjudged": other}.get)
    assert foreign.summary["foreign_rows"] == 4 + 4  # what no question asks for belongs to somebody too
    for tenant, part in ((mine, queries[:4]), (other, queries[4:])):
        chunks = [Chunk(c, f"{WORDS[int(c[1])]} twice") for q in part for c in q.judged]
        db.tenant(tenant).vectors("words", SPACE, embed=embed).upsert(chunks)
    from pgrecall.evaluation import CoreRetriever

    apart = CoreRetriever(lambda tenant: db.tenant(tenant).vectors("words", SPACE), embed)
    run = evaluate(apart, judged, top_k=8)
    assert run.summary["foreign_rows"] == 0 and run.mean("recall@8") == 1
    assert set(run.summary["tenants"]) == {mine, other} and run.summary["macro"]["recall@8"]["tenants"] == 2


def test_filters_of_queries_and_of_the_run_are_both_applied(db, tenant_id):
    """A query's filter is in its JSON form."""
    made = db.tenant(tenant_id).vectors("tagged", SPACE, embed=embed)
    made.upsert([Chunk(f"c{i}", w, metadata={"n": i, "odd": i % 2 == 1}) for i, w in enumerate(WORDS)])
    judged = EvalSet("f", (EvalQuery("q", "apple", {"c3": 1}, filters={"n": {"$gte": 2, "$lt": 5}}),))
    from pgrecall import F

    [result] = evaluate(made, judged, embed=embed, filters=F.odd == True, top_k=5).results  # noqa: E712
    assert [row["id"] for row in result.retrieved] == ["c3"]


def test_retrievers_of_any_kind_are_understood():
    """Ids, pairs, mappings, LangChain's documents and LlamaIndex's nodes, sync and async."""

    class Document:
        def __init__(self, own, metadata):
            self.id, self.metadata, self.page_content = own, metadata, "text"

    class LangChain:
        def invoke(self, text):
            return [Document("c0", {"doc_id": "d0"}), Document(None, {"id": "c1"})]

        async def ainvoke(self, text):
            return self.invoke(text)

    class Node:
        def __init__(self, node_id):
            self.node_id, self.ref_doc_id = node_id, "d0"

    class NodeWithScore:
        def __init__(self, node_id, score):
            self.node, self.score = Node(node_id), score

    class LlamaIndex:
        def retrieve(self, text):
            return [NodeWithScore("c0", np.float32(0.5))]

        async def aretrieve(self, text):
            return self.retrieve(text)

    async def aside(text):
        return ["c0"]

    one = EvalSet("one", (EvalQuery("q", "?", {"c0": 1}, tenant="acme"),))
    for retriever, ids in (
        (LangChain(), ["c0", "c1"]),
        (LlamaIndex(), ["c0"]),
        (per_query(lambda query, k: LlamaIndex()), ["c0"]),
        (lambda text: ["c0", "c9"], ["c0", "c9"]),
        (lambda tenant, k: [(f"c{k}", 0.5), ("c0", 0.2)] if tenant == "acme" else [], ["c3", "c0"]),
        (lambda query: [{"id": query.id, "score": 1}], ["q"]),
    ):
        for run in (
            evaluate(retriever, one, top_k=3),
            asyncio.run(aevaluate(retriever, one, top_k=3)),
        ):
            assert run.summary["failed"] == 0, run.results[0].error
            assert [row["id"] for row in run.results[0].retrieved] == ids
    assert evaluate(LangChain(), one, by="document").results[0].retrieved[0]["id"] == "d0"
    assert "call aevaluate" in (evaluate(aside, one).results[0].error or "")
    assert asyncio.run(aevaluate(aside, one)).summary["failed"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": ()}, "top_k is empty"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": "10"}, "top_k is '10'"),
        ({"metrics": "ndcg@10"}, "metrics is 'ndcg@10'; expected a list"),
        ({"store": "acme"}, "store is str; expected Evaluations"),
        ({"eval_set": "words"}, "eval_set is str; expected an EvalSet"),
        ({"metrics": ["accuracy"]}, "metric 'accuracy' is unknown"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"by": "page"}, "by is 'page'"),
        ({"mode": "hybrid"}, "for core stores"),
        ({"run_id": ""}, "run_id is empty"),
    ],
)
def test_what_a_run_can_not_do_is_refused_before_it_begins(options, message):
    """By name, and without asking a single query."""
    with pytest.raises(InvalidInput, match=message):
        evaluate(lambda text: pytest.fail("was asked"), **{"eval_set": eval_set(), **options})


@pytest.mark.parametrize("row", [("c0", float("nan")), "c\0", "c\ud800"], ids=["nan", "nul", "surrogate"])
def test_an_answer_that_can_not_be_kept_is_a_failed_query(kept, row):
    """The failed query has the reason, and the other queries are kept."""
    run = evaluate(lambda text: [row] if "apple" in text else ["c1"], eval_set(), store=kept)
    assert run.summary["failed"] == 1 and "the answer[0]" in run.results[0].error
    assert len(kept.results(run.run_id)) == 8


class Callable:
    """An object that is called, asynchronously."""

    async def __call__(self, text, k):
        await asyncio.sleep(0)
        return ["c0"] * 3


def endless(text, k):
    yield "c0"
    while True:
        yield "x"


@pytest.mark.parametrize(
    ("retrieve", "expected"),
    [
        (
            lambda text, k: ["x", "x", "c0", "c0", "x"],
            {"mrr@3": 1 / 2, "precision@3": 1 / 3, "recall@3": 1, "map@3": 1 / 2},
        ),
        (endless, {"mrr@3": 1, "precision@3": 1 / 3, "recall@3": 1, "ndcg@3": 1}),
        (Callable(), {"mrr@3": 1, "precision@3": 1 / 3, "recall@3": 1, "map@3": 1}),
        (lambda text, k: [{"id": "c0", "tenant": "acme"}, {"id": "z", "tenant": "globex"}], {"mrr@3": 1, "foreign": 1}),
        (lambda text, k: {"c0", "x"}, "returned set"),
        (lambda text, k: "c0", "returned str 'c0'; expected a list"),
        (lambda text, k: None, "returned NoneType"),
        (lambda text, k: [("c0", "high")], "could not convert"),
        (lambda text, k: [{"score": 1}], "expected 'id'"),
    ],
    ids=["duplicates", "endless", "async", "another-tenant", "set", "text", "none", "score", "no-id"],
)
def test_what_a_retriever_should_not_give_is_counted_or_refused(retrieve, expected):
    """Duplicates count once, in their first place; no more than k is read; what has no order is not a ranking."""
    one = EvalSet("one", (EvalQuery("q", "?", {"c0": 1}, tenant="acme"),))
    for concurrency in (1, 4):
        run = asyncio.run(aevaluate(retrieve, one, top_k=3, concurrency=concurrency))
        [result] = run.results
        if isinstance(expected, str):
            assert run.summary["failed"] == 1 and expected in (result.error or "")
        else:
            assert result.error is None, result.error
            assert {**result.metrics, "foreign": result.foreign_rows} == pytest.approx(
                {**result.metrics, "foreign": 0, **expected}
            )


def test_more_depth_than_rows_is_fewer_rows_and_not_a_failure(store):
    """Places that stay empty count against precision alone."""
    run = evaluate(store, eval_set(), embed=embed, top_k=50)
    assert run.summary["rows"] == 8 * 8 and run.summary["failed"] == 0
    assert run.mean("recall@50") == 1 and run.mean("precision@50") == pytest.approx(1 / 50)


def test_a_cancelled_asynchronous_run_keeps_what_it_has_and_is_resumed(store, kept):
    """With queries under way at once; it ends with the figures of a run that nobody stopped."""
    asked = []

    async def first_try(text, k):
        asked.append(text)
        if len(asked) > 4:
            await asyncio.Event().wait()
        return [h.chunk_id for h in await store.aquery(embed([text])[0], k)]

    async def stopped():
        task = asyncio.create_task(
            aevaluate(first_try, eval_set(), store=kept, top_k=3, run_id="stopped", concurrency=3)
        )
        while len(asked) < 7:  # three hang
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(stopped())
    assert len(kept.results("stopped")) == 4 and kept.run_info("stopped").status == "running"

    def second_try(text, k):
        asked.append(text)
        return [h.chunk_id for h in store.query(embed([text])[0], k)]

    resumed = evaluate(second_try, eval_set(), store=kept, top_k=3, run_id="stopped", concurrency=3)
    assert len(asked) == 7 + 4
    whole = evaluate(second_try, eval_set(), top_k=3)
    assert [(r.query_id, r.retrieved, r.metrics) for r in resumed.results] == [
        (r.query_id, r.retrieved, r.metrics) for r in whole.results
    ]
    assert {**resumed.summary, "latency": 0} == {**whole.summary, "latency": 0}


def test_concurrency_is_a_bound(store):
    """Never more queries are under way than were allowed."""
    under_way, most, lock = 0, 0, threading.Lock()

    def slow(text, k):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.01)
        with lock:
            under_way -= 1
        return ["c0"]

    evaluate(slow, eval_set(), concurrency=3)
    assert 2 <= most <= 3


def test_sets_are_kept_in_versions(kept):
    """The same content is the same version; another one the next; a deleted one leaves its runs."""
    first = kept.save_set(eval_set())
    assert kept.save_set(eval_set()) == first and first.version == 1 and first.queries == 8
    second = kept.save_set(EvalSet("words", eval_set().queries[:2], "mine", "CC0", left_out={"bad": 1}))
    assert [(s.version, s.licence) for s in kept.sets("words")] == [(2, "CC0"), (1, None)]
    assert kept.load_set("words").sha256 == second.sha256 and kept.load_set("words", 1) == eval_set()
    assert kept.load_set("words").left_out == {"bad": 1}
    evaluate(lambda text: [], kept.load_set("words", 1), store=kept, run_id="r")
    assert kept.delete_set("words") == 2
    with pytest.raises(NotFound, match="eval set 'words' version 1 does not exist"):
        kept.load_set("words", 1)
    assert kept.run_info("r").set_version == 1 and kept.delete_run("r") and not kept.delete_run("r")
    with pytest.raises(NotFound, match="run 'r' does not exist"):
        kept.run_info("r")


def test_what_one_tenant_keeps_another_does_not_see(db, tenant_id, kept):
    """Sets, runs, results and records."""
    kept.save_set(eval_set())
    evaluate(lambda text: [], eval_set(), store=kept, run_id="r")
    kept.save_records("datasets", "d", [{"a": 1}])
    other = Evaluations(db.tenant(f"{tenant_id}-other"))
    assert other.sets() == [] and other.runs() == [] and other.results("r") == []
    assert other.record_names("datasets") == [] and other.delete_set("words") == 0 and not other.delete_run("r")
    for asked in (lambda: other.load_set("words"), lambda: other.run_info("r"), lambda: other.records("datasets", "d")):
        with pytest.raises(NotFound):
            asked()
    assert kept.records("datasets", "d") == [{"a": 1}] and len(kept.results("r")) == 8


def test_records_are_kept_as_given(kept):
    """In order, replaced whole, and an empty list is not nothing."""
    kept.save_records("experiments", "e", [{"n": i, "deep": {"x": [None, 1.5, "ü"]}} for i in range(3)])
    assert [r["n"] for r in kept.records("experiments", "e")] == [0, 1, 2]
    kept.save_records("experiments", "e", [])
    assert kept.records("experiments", "e") == [] and kept.record_names("experiments") == ["e"]
    with pytest.raises(InvalidInput, match="record 1"):
        kept.save_records("experiments", "e", [{}, {"bad": float("nan")}])
    assert kept.records("experiments", "e") == []
