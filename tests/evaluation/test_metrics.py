"""Measures of a ranking: against ir-measures, at the edges, and by name."""

from __future__ import annotations

import math

import ir_measures
import numpy as np
import pytest
from ir_measures import AP, RR, P, R, Success, nDCG

from pgrecall import InvalidInput
from pgrecall.evaluation import metrics
from pgrecall.evaluation.metrics import Metric

ORACLE = {
    "hit": lambda k: Success @ k,
    "recall": lambda k: R @ k,
    "precision": lambda k: P @ k,
    "mrr": lambda k: RR @ k,
    "map": lambda k: AP @ k,
    "ndcg": lambda k: nDCG @ k,
    # ir-measures has the exponential gain by way of a Perl script that takes TREC's ids only; linear gains of grades
    # that were raised beforehand are the same.
    "ndcg_exp": lambda k: nDCG @ k,
}


def random_data(seed, queries=60):
    """Judgements of 0 to 4 and rankings that hold some of them, at random; every query has something relevant."""
    rng = np.random.default_rng(seed)
    judged, rankings = {}, {}
    for number in range(queries):
        ids = [f"d{i}" for i in rng.permutation(60)]
        graded = {i: int(rng.integers(5)) for i in ids[: rng.integers(1, 30)]}
        graded[ids[0]] = max(1, graded[ids[0]])
        judged[f"q{number}"] = graded
        rankings[f"q{number}"] = [str(i) for i in rng.permutation(ids)[: rng.integers(1, 40)]]
    return judged, rankings


@pytest.mark.parametrize("k", [1, 3, 10, 25])
@pytest.mark.parametrize("measure", ORACLE)
def test_every_measure_equals_ir_measures_on_random_data(measure, k):
    """Score by score, to 1e-9, for graded judgements and rankings shorter and longer than k."""
    judged, rankings = random_data(seed=k)
    run = {q: {i: float(-rank) for rank, i in enumerate(ranking)} for q, ranking in rankings.items()}
    known = judged
    if measure == "ndcg_exp":
        known = {q: {i: 2**grade - 1 for i, grade in grades.items()} for q, grades in judged.items()}
    expected = {m.query_id: m.value for m in ir_measures.iter_calc([ORACLE[measure](k)], known, run)}
    metric = Metric.of(f"{measure}@{k}")
    assert len(expected) == len(judged)
    for query_id, value in expected.items():
        assert metric(rankings[query_id], judged[query_id]) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("measure", ORACLE)
def test_equal_scores_rank_as_they_were_retrieved(measure):
    """Ranks are the retriever's order, whatever its scores; ir-measures orders equal ones by their ids.

    Ordered by its rule the measures are its own; a query without judgements it leaves out, and we score 0.
    """
    judged, rankings = random_data(seed=4)
    tied = {q: {i: float(-(rank // 4)) for rank, i in enumerate(ranking)} for q, ranking in rankings.items()}
    known = {q: {i: 2**g - 1 if measure == "ndcg_exp" else g for i, g in some.items()} for q, some in judged.items()}
    metric = Metric.of(f"{measure}@10")

    def theirs(run):
        return {m.query_id: m.value for m in ir_measures.iter_calc([ORACLE[measure](10)], known, run)}

    by_rank = theirs({q: {i: float(-rank) for rank, i in enumerate(ranking)} for q, ranking in rankings.items()})
    assert {q: metric(rankings[q], judged[q]) for q in judged} == pytest.approx(by_rank, abs=1e-9)
    # Score, then id, both descending, as trec_eval has it; but RR@k, which trec_eval lacks, goes by ascending ids.
    sorted_as_theirs = {q: sorted(some, reverse=measure != "mrr") for q, some in tied.items()}
    for q, some in sorted_as_theirs.items():
        some.sort(key=lambda i: -tied[q][i])
    by_score = theirs(tied)
    assert {q: metric(sorted_as_theirs[q], judged[q]) for q in judged} == pytest.approx(by_score, abs=1e-9)
    if measure != "hit":
        assert by_rank != pytest.approx(by_score, abs=1e-9), "the two orders give different figures"
    assert "unjudged" not in theirs({**tied, "unjudged": {"d1": 1.0}}) and metric(["d1"], {}) == 0


@pytest.mark.parametrize("measure", ORACLE)
def test_an_empty_ranking_and_judgements_without_anything_relevant_score_zero(measure):
    """Neither divides by zero."""
    metric = Metric.of(f"{measure}@10")
    assert metric([], {"a": 1}) == 0
    assert metric(["a"], {"a": 0}) == 0
    assert Metric.of(measure)([], {"a": 1}) == 0


def test_a_perfect_ranking_scores_one():
    """In every measure but precision, whose empty places count."""
    judged = {"a": 3, "b": 1}
    for measure in ORACLE:
        assert Metric.of(f"{measure}@2")(["a", "b"], judged) == pytest.approx(1.0)
    assert Metric.of("precision@10")(["a", "b"], judged) == pytest.approx(0.2)
    assert Metric.of("precision")(["a", "x"], judged) == pytest.approx(0.5)


def test_gains_are_as_stated():
    """Linear takes the grade, exponential 2^grade - 1."""
    judged = {"a": 3, "b": 1}
    ideal = 3 + 1 / math.log2(3)
    assert metrics.ndcg(["b", "a"], judged) == pytest.approx((1 + 3 / math.log2(3)) / ideal)
    ideal = 7 + 1 / math.log2(3)
    assert metrics.ndcg(["b", "a"], judged, gain="exponential") == pytest.approx((1 + 7 / math.log2(3)) / ideal)


def test_a_negative_grade_gains_nothing():
    """As trec_eval has it: it is not relevant, and takes nothing away."""
    assert metrics.ndcg(["bad", "a"], {"a": 1, "bad": -2}, 2) == pytest.approx(1 / math.log2(3))


def test_ids_count_in_their_first_place_only():
    """A document that three of its chunks were found of is found once."""
    assert metrics.distinct(["a", "b", "a", "c", "b"]) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["ndcg@0", "ndcg@", "ndcg@-1", "accuracy@3", "", "NDCG@10", None, "recall@1e3"])
def test_an_unknown_metric_is_refused_by_name(name):
    """The message lists those that exist."""
    with pytest.raises(InvalidInput, match="expected one of hit@k"):
        Metric.of(name)


def test_a_metric_is_written_as_it_is_read():
    """`str` gives the name back."""
    assert [str(Metric.of(name)) for name in ("ndcg@10", "map", "ndcg_exp@5")] == ["ndcg@10", "map", "ndcg_exp@5"]
