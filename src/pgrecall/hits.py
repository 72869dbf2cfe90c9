"""Search results: hits, the fusion of dense and sparse results, and the explanation of how a search ran."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias

from pgrecall.arguments import fraction
from pgrecall.errors import InvalidInput

#: The constant k of reciprocal rank fusion, as published; see `ReciprocalRank`.
RANK_CONSTANT = 60.0
#: Dense searches by vector, sparse by words (full text), hybrid by both with their results fused.
SearchMode: TypeAlias = Literal["dense", "sparse", "hybrid"]


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result.

    Hits are ranked by `score`; higher is better. In dense mode it is a similarity: ``1 - distance`` for cosine, the
    product itself for inner product, ``1 / (1 + distance)`` for Euclidean. In sparse mode it is `text_score`. In hybrid
    mode it is computed by `Weighted` or `ReciprocalRank`.

    `distance` is pgvector's distance (the negated inner product for ``ip``); lower is better. `dense_rank` is the rank
    by it, from 1. Both are None if the dense search did not find the chunk. `text_score` measures how well the text
    matches the words, with rare words weighing most. It is 0 or more, and comparable only within one search.
    `sparse_rank` is the rank by it, from 1. Both are None if the sparse search did not find the chunk.
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


@dataclass(frozen=True, slots=True)
class Weighted:
    """Fusion by score: ``alpha · dense + (1 - alpha) · sparse``, after min-max normalization of both sides.

    Normalization gives a side's best result the score 1 and its last result 0. A chunk that a side did not find has 0
    there, too. `alpha` is from 0 (words only) to 1 (vector only).
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        fraction(self.alpha, "alpha", "0 is words only, 1 is the vector only")


@dataclass(frozen=True, slots=True)
class ReciprocalRank:
    """Fusion by rank (RRF): ``2 · alpha / (k + dense_rank) + 2 · (1 - alpha) / (k + sparse_rank)``.

    With `alpha` 0.5 this is reciprocal rank fusion as published by Cormack, Clarke and Büttcher (SIGIR 2009). `alpha`
    is from 0 (words only) to 1 (vector only). A larger `k`, from 0 to below 1e9, makes the top ranks count less.
    """

    k: float = RANK_CONSTANT
    alpha: float = 0.5

    def __post_init__(self) -> None:
        fraction(self.alpha, "alpha", "0 is words only, 1 is the vector only")
        if isinstance(self.k, bool) or not isinstance(self.k, Real) or not 0 <= self.k < 1e9:
            raise InvalidInput(f"k is {self.k!r:.40}; expected a number from 0 to below 1e9")


Fusion: TypeAlias = Weighted | ReciprocalRank


@dataclass(frozen=True, slots=True)
class SearchStep:
    """One transaction of a search.

    `wait_ms` is the time until it had a connection, `total_ms` the total time, `round_trips` those to the server.
    """

    name: str
    wait_ms: float
    total_ms: float
    round_trips: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a search was answered.

    Attributes:
        mode: The search mode.
        shape: How the nearest vectors were found: "exact" by a scan, "graph" by the space's HNSW graph combined with a
            scan of the rows that are not in it yet, or "none" if the mode is sparse.
        fell_back: Whether the graph returned too few rows, so that the search was repeated as a scan.
        rows: The collection's row count, capped at 10,000 and cached for 10 seconds.
        generation: The graph's generation, None if no graph was used.
        top_k: The number of hits that were requested.
        depth: How many results each side could return, by "dense" and "sparse".
        candidates: How many results each side chose from: "dense" nearest rows, "sparse" rows with the words, and
            "filter" rows that match the filter. The last is capped at 1,000, or at the depth if that is larger.
        settings: Server settings that were set for this search.
        steps: The transactions of the search, in order.
        fusion: How the two sides of a hybrid search were fused.
        text_config: The text search configuration, None in dense mode.
        exact: Whether the caller requested an exact search.
        ef_search: The `ef_search` that the caller requested; `settings` has the one that was used.
        plan: The output of EXPLAIN ANALYZE if the caller requested it.
    """

    mode: SearchMode
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
        """Round trips to the server, without the one that made the plan."""
        return sum(step.round_trips for step in self.steps)

    @property
    def total_ms(self) -> float:
        """Total time of all steps, in milliseconds."""
        return sum(step.total_ms for step in self.steps)


class Hits(list[Hit]):
    """Search results, best first: a list with an `explanation`, which is None unless it was requested."""

    def __init__(self, hits: Iterable[Hit] = (), explanation: Explanation | None = None) -> None:
        super().__init__(hits)
        self.explanation = explanation
