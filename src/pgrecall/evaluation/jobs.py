"""Answers and scores one query of a run; an error becomes a result too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeAlias

from pgrecall.evaluation.metrics import Metric, distinct
from pgrecall.evaluation.retrievers import Answer, Retrieved, Retriever
from pgrecall.evaluation.sets import EvalQuery, EvalSet
from pgrecall.evaluation.store import Result
from pgrecall.jsonable import dumps

#: Returns the tenants that an id belongs to.
Owners: TypeAlias = Callable[[str], Collection[str]]


class Scorer(Protocol):
    """Scores an answer by more than its ids."""

    @property
    def names(self) -> Sequence[str]:
        """The names of its scores."""
        ...

    @property
    def config(self) -> dict[str, Any]:
        """What its scores depend on, as JSON."""
        ...

    def __call__(self, query: EvalQuery, rows: Sequence[Retrieved]) -> dict[str, float | str]:
        """Return the scores by name; a string in place of a score says why there is none."""
        ...

    async def ascore(self, query: EvalQuery, rows: Sequence[Retrieved]) -> dict[str, float | str]:
        """Like calling the scorer, asynchronously."""
        ...


@dataclass(slots=True)
class EvaluationJob:
    """A run in progress: its remaining queries, and how each becomes a result."""

    retriever: Retriever
    eval_set: EvalSet
    metrics: Sequence[Metric]
    depth: int
    owners: Owners
    scorers: Sequence[Scorer] = ()
    done: dict[str, Result] = field(default_factory=dict)

    @property
    def left(self) -> list[EvalQuery]:
        """The queries that have no result yet."""
        return [q for q in self.eval_set.queries if q.id not in self.done]

    @property
    def names(self) -> list[str]:
        """The names of all scores that a result may have."""
        return [*map(str, self.metrics), *(name for scorer in self.scorers for name in scorer.names)]

    def scored(self, query: EvalQuery, answer: Answer, given: Mapping[str, float | str]) -> Result:
        """The result of an answer, with the scores of the scorers."""
        ids = distinct(row.id for row in answer.rows)
        metrics = {str(metric): metric(ids, query.judged) for metric in self.metrics}
        return Result(
            query.id,
            tuple(_compact(asdict(row)) for row in answer.rows),
            metrics | {name: score for name, score in given.items() if not isinstance(score, str)},
            dict(answer.latency),
            sum(self._foreign(row.id, row.tenant, query) for row in answer.rows),
            unscored={name: _clean(reason) for name, reason in given.items() if isinstance(reason, str)},
        )

    def _foreign(self, found: str, tenant: str | None, query: EvalQuery) -> bool:
        if query.tenant is None:
            return False
        if tenant is not None and tenant != query.tenant:
            return True
        owners = self.owners(found)
        return bool(owners) and query.tenant not in owners

    def failed(self, query: EvalQuery, exc: Exception) -> Result:
        """The result of a query that raised: every score is 0."""
        return Result(query.id, (), dict.fromkeys(self.names, 0.0), {}, 0, _told(exc))

    def answer(self, query: EvalQuery) -> Result:
        """Ask the retriever and score its answer."""
        try:
            answer = _storable(self.retriever(query, self.depth))
        except Exception as exc:  # noqa: BLE001 (any error of a retriever becomes a result)
            return self.failed(query, exc)
        given: dict[str, float | str] = {}
        for scorer in self.scorers:
            try:
                given |= scorer(query, answer.rows)
            except Exception as exc:  # noqa: BLE001 (any error of a scorer becomes its reason; the other scores are kept)
                given |= dict.fromkeys(scorer.names, _told(exc))
        return self.scored(query, answer, given)

    async def aanswer(self, query: EvalQuery) -> Result:
        """Like `answer`, asynchronously."""
        try:
            answer = _storable(await self.retriever.acall(query, self.depth))
        except Exception as exc:  # noqa: BLE001 (as above)
            return self.failed(query, exc)
        given: dict[str, float | str] = {}
        for scorer in self.scorers:
            try:
                given |= await scorer.ascore(query, answer.rows)
            except Exception as exc:  # noqa: BLE001 (as above)
                given |= dict.fromkeys(scorer.names, _told(exc))
        return self.scored(query, answer, given)


def _told(exc: Exception) -> str:
    return _clean(f"{type(exc).__name__}: {exc}")


def _clean(text: str) -> str:
    """The text without what Postgres can't store, truncated."""
    return text[:500].replace("\0", "").encode(errors="replace").decode()


def _storable(answer: Answer) -> Answer:
    """Return the answer, or raise if it can't be stored: its batch of results would fail because of it."""
    dumps([_compact(asdict(row)) for row in answer.rows], "the answer")
    return answer


def _compact(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it is stored: without its text, which the collection has."""
    return {name: value for name, value in row.items() if value is not None and name != "text"}


def owners_of(eval_set: EvalSet, tenant_of: Callable[[str], str | None] | None) -> Owners:
    """A function that returns an id's tenants: `tenant_of`, or the tenants of the queries for which it is relevant."""
    if tenant_of is not None:
        return lambda found: () if (owner := tenant_of(found)) is None else (owner,)
    made: defaultdict[str, set[str]] = defaultdict(set)
    for query in eval_set.queries:
        for judged, grade in query.judged.items():
            if query.tenant is not None and grade > 0:
                made[judged].add(query.tenant)
    return lambda found: made.get(found, ())
