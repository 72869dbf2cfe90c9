"""Comparing runs and sweeping grids."""

from __future__ import annotations

import pytest

from pgrecall import InvalidInput
from pgrecall.evaluation import EvalQuery, EvalSet, compare, evaluate, sweep
from pgrecall.evaluation.comparison import Moved

SET = EvalSet("ten", tuple(EvalQuery(f"q{i}", f"{i}", {f"c{i}": 1}) for i in range(10)))


def at_rank(rank, but=()):
    """A retriever that puts what is right at a rank, and misses some."""
    return lambda text: [] if text in but else [*(f"x{i}" for i in range(1, rank)), f"c{text}"]


def test_a_comparison_tells_the_difference_its_interval_and_p_and_who_moved():
    """The mean of paired differences; the queries that moved most, worst first."""
    before = evaluate(at_rank(2), SET, top_k=3)
    after = evaluate(at_rank(1, but=("3",)), SET, top_k=3)
    made = compare(before, after, ["mrr@3", "recall@3"])
    mrr = made.differences["mrr@3"]
    assert mrr.interval.mean == pytest.approx(after.mean("mrr@3") - before.mean("mrr@3")) == pytest.approx(0.4)
    assert (mrr.better, mrr.worse, mrr.same) == (9, 1, 0) and 0 < mrr.p < 0.05
    assert made.differences["recall@3"].interval.mean == pytest.approx(-0.1)
    assert made.regressions == (Moved("q3", 0.5, 0.0),)
    assert len(made.improvements) == 9 and made.improvements[0].after == 1.0
    assert compare(before, after, top=2).improvements == compare(before, after, top=2).improvements
    assert len(compare(before, after, ["mrr@3"], top=2).improvements) == 2


def test_runs_on_different_data_are_not_compared():
    """The message names both."""
    other = EvalSet("ten", SET.queries[:9])
    with pytest.raises(InvalidInput, match="expected runs on the same data"):
        compare(evaluate(at_rank(1), SET), evaluate(at_rank(1), other))


def test_metrics_that_one_run_lacks_are_refused():
    """And those that they share are named."""
    runs = evaluate(at_rank(1), SET, top_k=3), evaluate(at_rank(1), SET, top_k=(3, 5))
    assert set(compare(*runs).differences) == set(runs[0].summary["metrics"])
    with pytest.raises(InvalidInput, match="do not share ndcg@5; expected one of: hit@3"):
        compare(*runs, ["ndcg@5"])


def test_a_sweep_runs_the_grid_and_marks_the_frontier():
    """A slower point that finds no more is not on it."""

    def make(rank, delay):
        def retrieve(text):
            import time

            time.sleep(delay)
            return at_rank(rank)(text)

        return retrieve

    points = sweep(make, SET, {"rank": [1, 2], "delay": [0, 0.03]}, metric="mrr@3", top_k=3)
    assert [dict(p.settings) for p in points][:2] == [{"rank": 1, "delay": 0}, {"rank": 1, "delay": 0.03}]
    assert [p.quality for p in points] == [1, 1, 0.5, 0.5]
    assert points[0].on_frontier and not points[1].on_frontier and not points[3].on_frontier
    assert points[1].latency_ms > 30 and points[0].run.config["label"] == "rank=1 delay=0"
    with pytest.raises(InvalidInput, match="the grid is empty"):
        sweep(make, SET, {"rank": []})
