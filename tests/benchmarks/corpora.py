"""Chunks of many tenants of very different sizes, and questions about them, reproducible by (n, dim, tenants, seed).

Each tenant covers some of the topics. The largest of 200 tenants owns about a quarter of all rows, the smallest a few.
Questions are noisy copies of a tenant's own vectors, in three classes by the tenant's share of all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tests.benchmarks import data
from tests.benchmarks.data import Matrix

import pgrecall
from pgrecall import Chunk, EmbedSpace

K = 10
CLASSES = ("large", "medium", "small")
#: A tenant with more than this share of all rows is large, or medium. Tenants with fewer than K rows get no questions.
LARGE_SHARE, MEDIUM_SHARE = 0.05, 0.005
#: Texts repeat, because they are stored and fetched here but not searched.
TEXTS = 1_000
COLLECTION = "bench"


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A query vector for one tenant and its true nearest rows. `number` is its position in the corpus."""

    number: int
    kind: str
    tenant: int
    vector: Matrix
    nearest: frozenset[str]


@dataclass(frozen=True)
class Corpus:
    """Row i belongs to tenant `owners[i]` and has the vector `vectors[i]`. Its id is its number as text."""

    owners: np.ndarray
    vectors: Matrix
    questions: list[Question]

    @property
    def space(self) -> EmbedSpace:
        """The vectors' space."""
        return EmbedSpace("bench", "tenants", self.vectors.shape[1])

    @cached_property
    def texts(self) -> list[str]:
        """About 500 characters each; row i has the text i % TEXTS."""
        rng = np.random.default_rng(3)
        return [data.text(rng) for _ in range(TEXTS)]

    def rows(self, tenant: int) -> np.ndarray:
        """The numbers of a tenant's rows."""
        return np.flatnonzero(self.owners == tenant)

    def sizes(self) -> dict[int, int]:
        """Each tenant's number of rows, the largest first."""
        tenants, counts = np.unique(self.owners, return_counts=True)
        return {int(tenants[i]): int(counts[i]) for i in np.argsort(-counts, kind="stable")}

    def large(self) -> list[int]:
        """The tenants of the large class, the largest first."""
        return [tenant for tenant, rows in self.sizes().items() if rows > LARGE_SHARE * len(self.owners)]

    def chunk(self, row: int) -> Chunk:
        """One row as a Chunk."""
        return Chunk(str(row), self.texts[row % TEXTS], self.vectors[row], metadata={"n": int(row)})

    def of_class(self, kind: str) -> list[Question]:
        """The questions of one class."""
        return [q for q in self.questions if q.kind == kind]

    def save(self, folder: Path) -> None:
        """Save the corpus as arrays for another process."""
        np.save(folder / "owners.npy", self.owners)
        np.save(folder / "vectors.npy", self.vectors)
        np.save(folder / "texts.npy", np.array(self.texts))
        np.save(folder / "asked.npy", np.array([q.tenant for q in self.questions]))
        np.save(folder / "questions.npy", np.stack([q.vector for q in self.questions]))


def corpus(n: int, tenants: int, per_class: int, dim: int = data.DIM) -> Corpus:
    """Make `n` rows for `tenants` tenants, and `per_class` questions for each class."""
    owners, vectors = _rows(n, dim, tenants, seed=7)
    return Corpus(owners, vectors, list(_questions(owners, vectors, tenants, per_class, seed=11)))


def _rows(n: int, dim: int, tenants: int, seed: int) -> tuple[np.ndarray, Matrix]:
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(max(200, n // 250), dim)).astype(np.float32)
    topics /= np.linalg.norm(topics, axis=1, keepdims=True)
    zipf = 1 / np.arange(1, tenants + 1) ** 1.1
    owners = rng.choice(tenants, size=n, p=zipf / zipf.sum())
    talks_about = np.array([rng.choice(len(topics), size=min(len(topics), 40), replace=False) for _ in range(tenants)])
    chosen = talks_about[owners, rng.integers(talks_about.shape[1], size=n)]
    noise = rng.normal(scale=0.7 / np.sqrt(dim), size=(n, dim)).astype(np.float32)
    vectors = topics[chosen] + noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return owners, vectors.astype(np.float32)


def _questions(owners: np.ndarray, vectors: Matrix, tenants: int, count: int, seed: int) -> Iterator[Question]:
    rng = np.random.default_rng(seed)
    dim = vectors.shape[1]
    classes: dict[str, list[int]] = {kind: [] for kind in CLASSES}
    for tenant, rows in enumerate(np.bincount(owners, minlength=tenants)):
        if rows >= K:
            share = rows / len(owners)
            classes["large" if share > LARGE_SHARE else "medium" if share > MEDIUM_SHARE else "small"].append(tenant)
    asked = ((kind, members) for kind, members in classes.items() if members for _ in range(count))
    for number, (kind, members) in enumerate(asked):
        tenant = int(rng.choice(members))
        own = np.flatnonzero(owners == tenant)
        near = vectors[rng.choice(own)] + rng.normal(scale=0.5 / np.sqrt(dim), size=dim)
        vector = (near / np.linalg.norm(near)).astype(np.float32)
        nearest = own[np.argsort(-(vectors[own] @ vector))[:K]]
        yield Question(number, kind, tenant, vector, frozenset(map(str, nearest)))


def store(db: pgrecall.Database, tenant: int, space: EmbedSpace) -> pgrecall.PostgresVectorStore:
    """A tenant's store."""
    return db.tenant(f"t{tenant}").vectors(COLLECTION, space)


def fill(db: pgrecall.Database, corpus: Corpus) -> None:
    """Write the whole corpus, tenant by tenant."""
    for tenant in corpus.sizes():
        store(db, tenant, corpus.space).upsert([corpus.chunk(int(row)) for row in corpus.rows(tenant)])
