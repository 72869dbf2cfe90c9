"""Intervals and tests over per-query scores."""

from __future__ import annotations

import numpy as np
import pytest

from pgrecall.evaluation.statistics import bootstrap, macro, paired


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    """Of 200 samples of a known mean, 95 % intervals hold it in at least 90 %."""
    rng = np.random.default_rng(1)
    made = [bootstrap(rng.uniform(size=80), seed=seed, draws=400) for seed in range(200)]
    assert sum(i.low <= 0.5 <= i.high for i in made) >= 180


def test_the_same_seed_gives_the_same_figures():
    """And another seed others."""
    scores = np.random.default_rng(2).uniform(size=50)
    assert bootstrap(scores, seed=3) == bootstrap(scores, seed=3)
    assert bootstrap(scores, seed=3) != bootstrap(scores, seed=4)


def test_one_score_is_its_own_interval_and_none_gives_nan():
    """Neither is an error."""
    assert bootstrap([0.4]).low == bootstrap([0.4]).high == 0.4
    assert np.isnan(bootstrap([]).mean)


def test_few_differences_give_the_exact_p():
    """Three differences of one sign: two of eight patterns are as extreme."""
    assert paired([0, 0, 0], [1, 1, 1]).p == pytest.approx(2 / 8)


def test_no_difference_has_p_one():
    """Whatever the scores are."""
    same = paired([0.2, 0.9], [0.2, 0.9])
    assert (same.p, same.better, same.worse, same.same) == (1.0, 0, 0, 2)


def test_p_is_small_where_a_difference_is_real_and_large_where_it_is_noise():
    """With the signs of the differences counted."""
    rng = np.random.default_rng(5)
    before = rng.uniform(size=300)
    real = paired(before, before + 0.05 + rng.normal(scale=0.05, size=300), draws=2_000)
    noise = paired(before, before + rng.normal(scale=0.05, size=300), draws=2_000)
    assert 0 < real.p < 0.001 and real.interval.low > 0 and real.better > real.worse
    assert noise.p > 0.01 and noise.interval.low < 0 < noise.interval.high


def test_under_the_null_p_is_uniform():
    """At most some 7 % of 300 null samples have p below .05."""
    rng = np.random.default_rng(6)
    low = [paired(np.zeros(40), rng.normal(size=40), seed=s, draws=300).p < 0.05 for s in range(300)]
    assert sum(low) <= 27


def test_the_macro_mean_weighs_tenants_alike_and_names_the_worst():
    """A large tenant does not hide a small one."""
    made = macro({"large": [1.0] * 98, "small": [0.0, 0.5]})
    assert made is not None
    assert (made.mean, made.worst, made.worst_mean, made.tenants) == (0.625, "small", 0.25, 2)
    assert macro({}) is None
