"""Maximal marginal relevance: results that are near the query and unlike each other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def unit(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Each row at length 1; a row of zeros stays one."""
    # By its largest value first: the squares of a query of 1e30, or of 1e-30, are no numbers that float32 has.
    largest = np.abs(rows).max(axis=-1, keepdims=True, initial=0)
    made: npt.NDArray[np.floating] = np.divide(rows, largest, out=np.zeros_like(rows), where=largest > 0)
    lengths = np.linalg.norm(made, axis=-1, keepdims=True)
    np.divide(made, lengths, out=made, where=lengths > 0)
    return made


def order(query: npt.NDArray[np.floating], found: npt.NDArray[np.float32], k: int, lambda_mult: float) -> list[int]:
    """The rows of `found` (n × dim, best first) to take, in the order in which they are taken: `k`, or all where fewer.

    The first is the one most like the query; each next one has the greatest
    ``lambda_mult · cos(row, query) - (1 - lambda_mult) · max cos(row, taken)``, the earlier row at a tie
    (Carbonell and Goldstein, SIGIR 1998). Cosines whatever the space's distance is: both terms need one scale.
    """
    rows = unit(found)
    relevance = rows @ unit(query[None, :])[0]
    taken: list[int] = []
    nearest_taken = np.full(len(rows), -np.inf)
    left = np.ones(len(rows), dtype=bool)
    for _ in range(min(k, len(rows))):
        # Multiplied only where something was taken: 0 · ∞ is no number.
        worth = relevance if not taken else lambda_mult * relevance - (1 - lambda_mult) * nearest_taken
        best = int(np.argmax(np.where(left, worth, -np.inf)))
        taken.append(best)
        left[best] = False
        nearest_taken = np.maximum(nearest_taken, rows @ rows[best])
    return taken
