"""Realistic chunks, reproducible by seed: English sentences, metadata, clustered unit vectors."""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pgrecall import Chunk, EmbedSpace

DIM = 384
SPACE = EmbedSpace("bench", "clustered", DIM)
CHUNKS_PER_DOCUMENT = 10
CHARACTERS = 500
Matrix = npt.NDArray[np.float32]


@lru_cache(maxsize=1)
def sentences() -> tuple[str, ...]:
    """Sentences from the standard library's docstrings. Real words in real proportions matter to full text."""
    found: dict[str, None] = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:40]:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = " ".join((ast.get_docstring(node) or "").split())
                found.update(dict.fromkeys(s for s in re.split(r"(?<=[.:;])\s", text) if 30 < len(s) < 250))
    return tuple(found)


def text(rng: np.random.Generator) -> str:
    """About 500 characters."""
    pool, parts, size = sentences(), [], 0
    while size < CHARACTERS - 50:
        parts.append(pool[int(rng.integers(len(pool)))])
        size += len(parts[-1]) + 1
    return " ".join(parts)


def vectors(count: int, seed: int, dim: int = DIM) -> Matrix:
    """Unit vectors around forty topics."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    made = centres[rng.integers(40, size=count)] + rng.normal(scale=0.7 / np.sqrt(dim), size=(count, dim))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def chunks(count: int, seed: int = 0, block: int = 1_000) -> Iterator[Chunk]:
    """Yield chunks, ten per document. Vectors are made `block` at a time, so that memory stays small."""
    rng = np.random.default_rng(seed)
    for start in range(0, count, block):
        for n, vector in enumerate(vectors(min(block, count - start), seed + start), start):
            metadata = {
                "page": n % 97,
                "lang": ("en", "de", "fr")[n % 3],
                "section": f"part {n % 13}",
                "tags": ["public"] if n % 2 else ["internal", "draft"],
            }
            yield Chunk(
                f"chunk-{n:07d}",
                text(rng),
                vector,
                doc_id=f"document-{n // CHUNKS_PER_DOCUMENT:06d}",
                index=n % CHUNKS_PER_DOCUMENT,
                metadata=metadata,
            )
