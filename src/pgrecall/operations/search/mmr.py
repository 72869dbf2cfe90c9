"""Maximal marginal relevance (MMR): results that are similar to the query and dissimilar to each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def unit(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Normalize each row to length 1. Rows of zeros stay zero."""
    # Divide by the largest value first, because the square of 1e30 or 1e-30 does not fit a float32.
    largest = np.abs(rows).max(axis=-1, keepdims=True, initial=0)
    made: npt.NDArray[np.floating] = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
    lengths = np.linalg.norm(made, axis=-1, keepdims=True)
    np.divide(made, lengths, out=made, where=lengths > 0)
    return made


def order(query: npt.NDArray[np.floating], found: npt.NDArray[np.float32], k: int, lambda_mult: float) -> list[int]:
    """Indexes of up to `k` rows of `found` (n × dim, best first), in MMR order (Carbonell and Goldstein, SIGIR 1998).

    The first row is the one most similar to the query. Each next row maximizes
    ``lambda_mult · cos(row, query) - (1 - lambda_mult) · max cos(row, taken)``; ties go to the earlier row. Cosine is
    used whatever the space's distance is, because both terms need the same scale.
    """
    rows = unit(found)
    relevance = rows @ unit(query[None, :])[0]
    taken: list[int] = []
    nearest_taken = np.full(len(rows), -np.inf)
    left = np.ones(len(rows), dtype=bool)
    for _ in range(min(k, len(rows))):
        # Only if a row was taken, because 0 · ∞ is NaN.
        worth = relevance if not taken else lambda_mult * relevance - (1 - lambda_mult) * nearest_taken
        best = int(np.argmax(np.where(left, worth, -np.inf)))
        taken.append(best)
        left[best] = False
        nearest_taken = np.maximum(nearest_taken, rows @ rows[best])
    return taken
