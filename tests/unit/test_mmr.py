"""MMR against its definition, written out."""

from __future__ import annotations

import numpy as np
import pytest

from pgrecall.operations.search.mmr import order


def defined(query, found, k, lam):
    cos = lambda a, b: float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))  # noqa: E731 -- a formula
    taken = []
    while len(taken) < min(k, len(found)):
        worth = {
            i: cos(v, query) if not taken else lam * cos(v, query) - (1 - lam) * max(cos(v, found[t]) for t in taken)
            for i, v in enumerate(found)
            if i not in taken
        }
        taken.append(max(worth, key=worth.get))
    return taken


@pytest.mark.parametrize("lam", [0.0, 0.01, 0.3, 0.5, 0.9, 1.0])
def test_the_order_is_the_one_defined(lam):
    """Over the whole range of lambda, for vectors of any length."""
    rng = np.random.default_rng(3)
    query, found = rng.normal(size=12).astype(np.float32), rng.normal(size=(40, 12)).astype(np.float32) * 3
    assert order(query, found, 15, lam) == defined(query.astype(float), found.astype(float), 15, lam)


def test_all_are_taken_where_there_are_fewer_and_none_of_none():
    """k is a wish, not a promise."""
    found = np.eye(3, dtype=np.float32)
    assert sorted(order(found[0], found, 10, 0.5)) == [0, 1, 2]
    assert order(found[0], found[:0], 10, 0.5) == []


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
def test_the_length_of_the_query_changes_nothing(scale):
    """Its squares would overflow, or vanish, and with them what lambda weighs."""
    rng = np.random.default_rng(3)
    query, found = rng.normal(size=12), rng.normal(size=(40, 12)).astype(np.float32)
    assert order(query * scale, found, 15, 0.5) == order(query, found, 15, 0.5)
