"""Two stand-ins for embedding models: each text has one vector of its own in each, unlike every other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from pgrecall import EmbedSpace

OLD, NEW = EmbedSpace("test", "old", 8), EmbedSpace("test", "new", 16)


def model(space: EmbedSpace) -> Callable[[Sequence[str]], np.ndarray]:
    """Texts in, unit vectors out, the same for the same text."""

    def one(text: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(f"{space.model}\0{text}".encode()).digest()[:8], "big")
        made = np.random.default_rng(seed).normal(size=space.dim)
        return made / np.linalg.norm(made)

    return lambda texts: np.array([one(text) for text in texts])


old, new = model(OLD), model(NEW)
