"""Collections large enough for a graph, and what is truly nearest in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
import sqlalchemy as sa

from pgrecall import Chunk, EmbedSpace, Hit, PostgresVectorStore
from pgrecall.operations.search.routes import exact_max

DIM = 16
SPACE = EmbedSpace("test", "sixteen", DIM)
LARGE = exact_max(DIM) + 500
GRAPHS = "SELECT relname::text FROM pg_class WHERE relname LIKE 'chunk_vectors_graph%' ORDER BY 1"


def vectors(count: int, seed: int = 0) -> np.ndarray:
    """Unit vectors in all directions."""
    made = np.random.default_rng(seed).normal(size=(count, DIM))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def made(count: int, seed: int = 0, prefix: str = "c") -> list[Chunk]:
    """Chunks with them."""
    return [Chunk(f"{prefix}{n:05d}", f"text {n}", v) for n, v in enumerate(vectors(count, seed))]


def run(url: sa.URL, statement: str, *params: object) -> Any:
    """Run a statement as the database's superuser; its rows."""
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement, params or None)
        return cursor.fetchall() if cursor.description else None


def ids(hits: Sequence[Hit]) -> list[str]:
    """Their chunks' ids."""
    return [hit.chunk_id for hit in hits]


def truth(chunks: Sequence[Chunk], vector: Any, k: int = 10) -> list[str]:
    """The ids of the `k` nearest, by a scan in half precision."""
    matrix = np.array([c.embedding for c in chunks], dtype=np.float16).astype(np.float32)
    return [chunks[i].id for i in np.argsort(-(matrix @ np.asarray(vector, np.float32)), kind="stable")[:k]]


def recall(store: PostgresVectorStore, chunks: Sequence[Chunk], count: int = 20) -> float:
    """The share of what is truly nearest that searches find."""
    questions = vectors(count, 99)
    found = [len(set(ids(store.query(q, 10))) & set(truth(chunks, q))) / 10 for q in questions]
    return float(np.mean(found))
