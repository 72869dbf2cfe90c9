"""Measures of a ranking against judgements: pure functions of ids and grades.

A ranking is a sequence of distinct ids, best first, in the order of the retriever. Scores are ignored, so rows with
equal scores keep their order (trec_eval would sort them by id). `judged` maps ids to grades; 0 means not relevant.
Ids without a judgement count as not relevant. An empty ranking scores 0 in every measure. The definitions are those of
trec_eval (https://trec.nist.gov/trec_eval/), which ir-measures computes too; a test compares with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pgrecall.errors import InvalidInput

Judged: TypeAlias = Mapping[str, float]
Ranking: TypeAlias = Sequence[str]
#: The gain of a grade in nDCG: the grade itself (Järvelin and Kekäläinen, TOIS 2002, trec_eval), or ``2^grade - 1``
#: (Burges et al., ICML 2005). For grades of 0 and 1 they are equal.
Gain: TypeAlias = Literal["linear", "exponential"]


def distinct(ids: Iterable[str]) -> list[str]:
    """The ids, each at its first position only: a document that is found by several chunks counts once."""
    return list(dict.fromkeys(ids))


def _relevant(judged: Judged) -> int:
    return sum(grade > 0 for grade in judged.values())


def _found(ranking: Ranking, judged: Judged, k: int | None) -> int:
    return sum(judged.get(i, 0) > 0 for i in ranking[:k])


def hit(ranking: Ranking, judged: Judged, k: int | None = None) -> float:
    """1 if a relevant id is among the first `k` (Success@k), else 0."""
    return float(_found(ranking, judged, k) > 0)


def recall(ranking: Ranking, judged: Judged, k: int | None = None) -> float:
    """The share of the relevant ids that are among the first `k`."""
    return _found(ranking, judged, k) / _relevant(judged) if _relevant(judged) else 0.0


def precision(ranking: Ranking, judged: Judged, k: int | None = None) -> float:
    """The share of the first `k` positions that have a relevant id; empty positions count as not relevant."""
    places = len(ranking) if k is None else k
    return _found(ranking, judged, k) / places if places else 0.0


def reciprocal_rank(ranking: Ranking, judged: Judged, k: int | None = None) -> float:
    """1 / rank of the first relevant id among the first `k`, else 0; the mean over queries is MRR."""
    ranks = (rank for rank, i in enumerate(ranking[:k], 1) if judged.get(i, 0) > 0)
    return 1 / first if (first := next(ranks, 0)) else 0.0


def average_precision(ranking: Ranking, judged: Judged, k: int | None = None) -> float:
    """The mean over the relevant ids of the precision at their rank, 0 if not found; the mean over queries is MAP."""
    total, found = 0.0, 0
    for rank, i in enumerate(ranking[:k], 1):
        if judged.get(i, 0) > 0:
            found += 1
            total += found / rank
    return total / _relevant(judged) if _relevant(judged) else 0.0


def _worth(grade: float, gain: Gain) -> float:
    if grade <= 0:
        return 0.0
    return grade if gain == "linear" else 2.0**grade - 1


def ndcg(ranking: Ranking, judged: Judged, k: int | None = None, *, gain: Gain = "linear") -> float:
    """The sum of gain / log2(rank + 1) over the first `k`, divided by the largest possible sum."""

    def cumulated(grades: Iterable[float]) -> float:
        return sum(_worth(grade, gain) / math.log2(rank + 1) for rank, grade in enumerate(grades, 1))

    ideal = cumulated(sorted(judged.values(), reverse=True)[:k])
    return cumulated(judged.get(i, 0) for i in ranking[:k]) / ideal if ideal else 0.0


_MEASURES: dict[str, Callable[[Ranking, Judged, int | None], float]] = {
    "hit": hit,
    "recall": recall,
    "precision": precision,
    "mrr": reciprocal_rank,
    "map": average_precision,
    "ndcg": ndcg,
    "ndcg_exp": lambda ranking, judged, k: ndcg(ranking, judged, k, gain="exponential"),
}
_NAME = re.compile(r"([a-z_]+)(?:@([1-9][0-9]{0,5}))?")


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure and its depth, such as ``ndcg@10``; without a depth the whole ranking counts."""

    measure: str
    k: int | None = None

    @classmethod
    def of(cls, name: str) -> Metric:
        """Parse a name such as ``ndcg@10``. Raises InvalidInput."""
        matched = _NAME.fullmatch(name) if isinstance(name, str) else None
        if matched is None or matched[1] not in _MEASURES:
            known = ", ".join(f"{measure}@k" for measure in _MEASURES)
            raise InvalidInput(f"metric {name!r:.60} is unknown; expected one of {known}, such as ndcg@10")
        return cls(matched[1], int(matched[2]) if matched[2] else None)

    def __str__(self) -> str:
        return self.measure if self.k is None else f"{self.measure}@{self.k}"

    def __call__(self, ranking: Ranking, judged: Judged) -> float:
        """Score one ranking, from 0 to 1."""
        return _MEASURES[self.measure](ranking, judged, self.k)


def in_order(names: Iterable[str]) -> list[str]:
    """Sort the names of metrics for a table: by measure and depth, then others, such as ragas', by name."""

    def key(name: str) -> tuple[int, int, str]:
        measure, _, k = name.partition("@")
        return _SHOWN.index(measure) if measure in _SHOWN else len(_SHOWN), int(k or 0), name

    return sorted(names, key=key)


_SHOWN = ("ndcg", "ndcg_exp", "recall", "precision", "mrr", "map", "hit")


def standard(depths: Sequence[int]) -> list[Metric]:
    """All measures except ndcg_exp, at each of the depths."""
    return [Metric(measure, k) for k in depths for measure in _MEASURES if measure != "ndcg_exp"]
