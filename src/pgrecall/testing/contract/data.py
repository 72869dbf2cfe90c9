"""Generated chunks with known vectors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pgrecall import Chunk


def vectors(count: int, dim: int = 8, seed: int = 0) -> npt.NDArray[np.float32]:
    """Random unit vectors, the same for the same seed."""
    made = np.random.default_rng(seed).normal(size=(count, dim))
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), dtype=np.float32)


def chunks(count: int, dim: int = 8, seed: int = 0, prefix: str = "c", per_document: int = 5) -> list[Chunk]:
    """Chunks `c0000`…, five to a document, with metadata n, lang and tags."""
    made = vectors(count, dim, seed)
    return [
        Chunk(
            f"{prefix}{n:04d}",
            f"{prefix} text number {n}",
            made[n],
            doc_id=f"{prefix}-doc-{n // per_document}",
            index=n % per_document,
            metadata={"n": n, "lang": ("de", "en", "fr")[n % 3], "tags": ["even"] if n % 2 == 0 else []},
        )
        for n in range(count)
    ]
