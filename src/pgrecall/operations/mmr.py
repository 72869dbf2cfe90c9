"""Maximal marginal relevance: results that are near the query and unlike each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def unit(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Each row at length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    made: npt.NDArray[np.float32] = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return made


def order(query: npt.NDArray[np.float32], found: npt.NDArray[np.float32], k: int, lambda_mult: float) -> list[int]:
    """The rows of `found` (n × dim, best first) to take, in the order in which they are taken: `k`, or all where fewer.

    The first is the one most like the query; each next one has the greatest
    ``lambda_mult · cos(row, query) - (1 - lambda_mult) · max cos(row, taken)``, the earlier row at a tie
    (Carbonell and Goldstein, SIGIR 1998). Cosines whatever the space's distance is: both terms need one scale.
    """
    rows = unit(found)
    relevance = rows @ unit(query[None, :])[0]
    taken: list[int] = []
    nearest_taken = np.full(len(rows), -np.inf, dtype=np.float32)
    left = np.ones(len(rows), dtype=bool)
    for _ in range(min(k, len(rows))):
        # Multiplied only where something was taken: 0 · ∞ is no number.
        worth = relevance if not taken else lambda_mult * relevance - (1 - lambda_mult) * nearest_taken
        best = int(np.argmax(np.where(left, worth, -np.inf)))
        taken.append(best)
        left[best] = False
        nearest_taken = np.maximum(nearest_taken, rows @ rows[best])
    return taken
