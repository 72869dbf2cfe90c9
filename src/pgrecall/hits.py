"""What a search gives: hits, how two ways of searching are fused into one, and how the search was answered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias

from pgrecall.errors import InvalidInput

#: What a search goes by: a vector, words, or both, fused.
SearchMode: TypeAlias = Literal["dense", "sparse", "hybrid"]
Mode: TypeAlias = SearchMode


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result.

    `score` is what it was ranked by, higher is better. For a vector, a similarity: cosine ``1 - distance``, inner
    product the product itself, Euclidean ``1 / (1 + distance)``. For words, `text_score`. For both, what
    `Weighted` or `ReciprocalRank` makes of the two.

    `distance` is pgvector's (inner product: negated), lower is better, and `dense_rank` the place among the nearest,
    from 1; both are None where the vector's leg did not find the chunk. `text_score` is how much of the words is in the
    text, the rare ones most (0 and up, comparable within one search only), and `sparse_rank` the place by it; both are
    None where the words' leg did not find it.
    """

    chunk_id: str
    score: float
    distance: float | None
    text: str
    metadata: dict[str, Any]
    doc_id: str | None
    index: int | None
    source: str | None
    uri: str | None
    payload: dict[str, Any] | None = None
    dense_rank: int | None = None
    sparse_rank: int | None = None
    text_score: float | None = None


def _share(alpha: object) -> None:
    if isinstance(alpha, bool) or not isinstance(alpha, Real) or not 0 <= float(alpha) <= 1:
        raise InvalidInput(f"alpha is {alpha!r:.40}; expected a number from 0, only words, to 1, only the vector")


@dataclass(frozen=True, slots=True)
class Weighted:
    """Fusion by scores: ``alpha · dense + (1 - alpha) · sparse``, each leg's scores stretched from 0 to 1.

    The best that a leg found has 1 and its last 0, as has what it did not find; `alpha` is from 0, only words, to 1,
    only the vector.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        _share(self.alpha)


@dataclass(frozen=True, slots=True)
class ReciprocalRank:
    """Fusion by ranks: ``2 · alpha / (k + dense_rank) + 2 · (1 - alpha) / (k + sparse_rank)``.

    With an `alpha` of 0.5 that is reciprocal rank fusion as published (Cormack, Clarke and Büttcher, SIGIR 2009). The
    larger `k`, from 0 to below 1e9, the less the first places count.
    """

    k: float = 60.0
    alpha: float = 0.5

    def __post_init__(self) -> None:
        _share(self.alpha)
        if isinstance(self.k, bool) or not isinstance(self.k, Real) or not 0 <= self.k < 1e9:
            raise InvalidInput(f"k is {self.k!r:.40}; expected a number from 0 to below 1e9")


Fusion: TypeAlias = Weighted | ReciprocalRank


@dataclass(frozen=True, slots=True)
class SearchStep:
    """One transaction of a search: milliseconds until it had a connection, and in all; round trips to the server."""

    name: str
    wait_ms: float
    total_ms: float
    round_trips: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a search was answered.

    `shape` is how the vector was looked for: "exact", by a scan, "graph", by the space's graph of generation
    `generation` beside a scan of what waits to enter it, or "none". `fell_back` says that the graph gave too few, and
    the answer came from the scan after all. `rows` are those of the collection as far as they were counted (once in
    some seconds, up to what makes a collection large). `candidates` counts what each leg had to choose from:
    "dense" nearest, "sparse" with the words, "filter" matching a filter (up to the most that are searched one by one).
    `settings` are the server's for this search, `depth` how many each leg gave; `exact` and `ef_search` are what the
    caller asked for: `shape` and `settings` show what came of it. `steps` are what was sent, in order; `plan` is
    EXPLAIN ANALYZE's text, where that was asked for.
    """

    mode: Mode
    shape: Literal["exact", "graph", "none"]
    fell_back: bool
    rows: int
    generation: int | None
    top_k: int
    depth: dict[str, int]
    candidates: dict[str, int]
    settings: dict[str, str]
    steps: tuple[SearchStep, ...]
    fusion: Fusion | None = None
    text_config: str | None = None
    exact: bool = False
    ef_search: int | None = None
    plan: str | None = None

    @property
    def round_trips(self) -> int:
        """Round trips to the server, the plan's own left out."""
        return sum(step.round_trips for step in self.steps)

    @property
    def total_ms(self) -> float:
        """Milliseconds of all steps."""
        return sum(step.total_ms for step in self.steps)


class Hits(list[Hit]):
    """Search results, best first: a list, with the `explanation` where one was asked for."""

    def __init__(self, hits: Iterable[Hit] = (), explanation: Explanation | None = None) -> None:
        super().__init__(hits)
        self.explanation = explanation
