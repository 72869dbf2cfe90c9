"""Generated chunks with known vectors."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import numpy.typing as npt

from pgrecall.testing.contract.data import chunks, vectors

__all__ = ["chunks", "hashed_words", "vectors"]


def hashed_words(texts: list[str]) -> npt.NDArray[np.float64]:
    """A deterministic stand-in for a model: words, hashed into a vector."""
    vectors = np.zeros((len(texts), 384))
    for vector, text in zip(vectors, texts, strict=True):
        for word in re.findall(r"\w+", text.lower()):
            vector[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % 384] += 1
    return vectors
