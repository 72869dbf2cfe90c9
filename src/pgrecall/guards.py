"""Checks of vectors before they are stored or compared: length, NaN, infinity, zero, half-precision overflow.

In a cosine space the unit vector is stored, so that half precision neither overflows nor underflows at any scale
of the model's output. The original norm is stored with it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pgrecall.errors import InvalidEmbedding
from pgrecall.types import EmbedSpace, Vector

HALF_MAX = float(np.finfo(np.float16).max)  # 65504
#: The fingerprints of one model must have at least this cosine. Hosted models vary by rounding, but less than that.
FINGERPRINT_COSINE = 0.999
#: The text whose vector is the fingerprint of a model. Never change it: collections store its vector.
FINGERPRINT_TEXT = "pgrecall: the quick brown fox jumps over the lazy dog, 0123456789."


class Stored(NamedTuple):
    """Vectors as they are stored, in half precision (n, dim), and the L2 norms that they had before (n,)."""

    vectors: npt.NDArray[np.float16]
    norms: npt.NDArray[np.float32]


def to_stored(vectors: Sequence[Vector], space: EmbedSpace, names: Sequence[str]) -> Stored:
    """Check `vectors` against `space` and convert them. `names` name the vectors in errors.

    Raises:
        InvalidEmbedding: A vector is invalid; the message names the first one.
    """
    given = _matrix(vectors, space, names)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", given, given))
        kept_norms = norms.astype(np.float32)
        # Usually a check of the norms is enough; only if it fails is every value checked, to name the problem.
        if not (np.isfinite(kept_norms) & (kept_norms > 0)).all():
            _refuse(~np.isfinite(given).all(axis=1), names, "has NaN or infinite values; expected finite numbers")
            _refuse(~given.any(axis=1), names, "is all zeros, which has no direction; embed a non-empty text")
            _refuse(
                ~np.isfinite(kept_norms) | (kept_norms == 0),
                names,
                "has a length beyond single precision (1e-38 to 3e38); scale the model's output",
            )
        if space.distance == "cosine":
            result = (given / norms[:, None]).astype(np.float16)
            again = _came_from_here(given, norms)
            result[again] = given[again]
        else:
            _refuse(
                np.abs(given).max(axis=1) > HALF_MAX,
                names,
                f"has a value above {HALF_MAX:g}, the most that half precision holds; scale the model's output, "
                "or use distance='cosine', where scale does not matter",
            )
            result = given.astype(np.float16)
            _refuse(
                ~result.any(axis=1),
                names,
                "is so small that half precision rounds it to zero (below 6e-8); scale the model's output, "
                "or use distance='cosine', where scale does not matter",
            )
    return Stored(result, kept_norms)


def _came_from_here(given: npt.NDArray[np.float64], norms: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Rows that are stored vectors passed in again; they are kept as they are, so that an import equals its export."""
    # The first column rules out nearly all other vectors, at a hundredth of the cost.
    rows = np.flatnonzero((np.abs(norms - 1) < 2e-3) & (given[:, 0].astype(np.float16) == given[:, 0]))
    same: npt.NDArray[np.bool_] = (given[rows].astype(np.float16) == given[rows]).all(axis=1)
    return rows[same]


def _matrix(vectors: Sequence[Vector], space: EmbedSpace, names: Sequence[str]) -> npt.NDArray[np.float64]:
    given = _from_lists(vectors, space.dim)
    if given is None:
        given = _numbers(vectors)
    if given is not None and given.shape == (len(vectors), space.dim):
        return given
    # At least one is invalid; find it, to name it.
    ones = []
    for vector, name in zip(vectors, names, strict=True):
        one = numbers(vector, name)
        if one.ndim != 1:
            raise InvalidEmbedding(f"the embedding of {name} has shape {one.shape}; expected ({space.dim},)")
        if len(one) != space.dim:
            raise InvalidEmbedding(
                f"the embedding of {name} has {len(one):,} dimensions; the space {space} has {space.dim:,}. "
                "Embed with the space's model"
            )
        ones.append(one)
    return np.stack(ones)


def numbers(vector: Any, name: str) -> npt.NDArray[np.float64]:
    """A vector of any length as an array. Raises InvalidEmbedding if it is not one."""
    one = _numbers(vector)
    if one is None or one.ndim == 0:
        raise InvalidEmbedding(
            f"the embedding of {name} is {type(vector).__name__} {vector!r:.60}; expected a flat list of numbers"
        )
    return one


def _from_lists(vectors: Sequence[Vector], dim: int) -> npt.NDArray[np.float64] | None:
    """Converts lists of Python floats, in half of numpy's time; None if they are anything else."""
    if any(type(v) is not list or len(v) != dim or type(v[0]) is not float for v in vectors):
        return None
    found = np.empty((len(vectors), dim))
    try:
        for row, vector in zip(found, vectors, strict=True):
            row[:] = array("d", vector)
    except (TypeError, OverflowError):
        return None
    return found


def _numbers(values: object) -> npt.NDArray[np.float64] | None:
    """`values` in double precision; None if they are ragged or not real numbers."""
    try:
        found = np.array(values)
        # Not straight to float64: numpy would read "1.5" as a number, None as NaN, and drop imaginary parts.
        return found.astype(np.float64, copy=False) if found.dtype.kind in "fiub" else None
    except (ValueError, TypeError, OverflowError):
        return None


def _refuse(bad: Any, names: Sequence[str], why: str) -> None:
    if bad.any():
        raise InvalidEmbedding(f"the embedding of {names[int(bad.argmax())]} {why}")


def same_model(now: Vector, then: Vector) -> float:
    """Cosine of two fingerprints; 0.0 if their lengths differ."""
    a, b = np.asarray(now, dtype=np.float64), np.asarray(then, dtype=np.float64)
    if a.shape != b.shape:
        return 0.0
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
