"""What happens to one query of a run: it is answered, scored, and turned into a result, whatever goes wrong."""

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

#: The tenants that an id belongs to.
Owners: TypeAlias = Callable[[str], Collection[str]]


class Scorer(Protocol):
    """Scores an answer by more than its ids: `names` are those of its scores."""

    @property
    def names(self) -> Sequence[str]:
        """Of every score that it gives."""
        ...

    @property
    def config(self) -> dict[str, Any]:
        """What decides its scores, as JSON."""
        ...

    def __call__(self, query: EvalQuery, rows: Sequence[Retrieved]) -> dict[str, float | str]:
        """The scores by name; a string where there is none, which says why."""
        ...

    async def ascore(self, query: EvalQuery, rows: Sequence[Retrieved]) -> dict[str, float | str]:
        """As the call."""
        ...


@dataclass(slots=True)
class Job:
    """What one run does: the queries that are left, and how each becomes a result."""

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
        """Of every score that a result may have."""
        return [*map(str, self.metrics), *(name for scorer in self.scorers for name in scorer.names)]

    def scored(self, query: EvalQuery, answer: Answer, given: Mapping[str, float | str]) -> Result:
        """The result of an answer, with what scorers gave."""
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
        """The result of a query that raised: 0 in every score."""
        return Result(query.id, (), dict.fromkeys(self.names, 0.0), {}, 0, _told(exc))

    def answer(self, query: EvalQuery) -> Result:
        """Ask, and score what comes back."""
        try:
            answer = _storable(self.retriever(query, self.depth))
        except Exception as exc:  # noqa: BLE001 (a query that fails is a result, whatever its retriever raises)
            return self.failed(query, exc)
        given: dict[str, float | str] = {}
        for scorer in self.scorers:
            try:
                given |= scorer(query, answer.rows)
            except Exception as exc:  # noqa: BLE001 (what a scorer can't score is told, and the rest stands)
                given |= dict.fromkeys(scorer.names, _told(exc))
        return self.scored(query, answer, given)

    async def aanswer(self, query: EvalQuery) -> Result:
        """As `answer`."""
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
    """A text that Postgres stores, and not a page of it."""
    return text[:500].replace("\0", "").encode(errors="replace").decode()


def _storable(answer: Answer) -> Answer:
    """The answer, if it can be kept: else a row with a NaN or a NUL would take the results beside it along."""
    dumps([_compact(asdict(row)) for row in answer.rows], "the answer")
    return answer


def _compact(row: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a row: not its text, which belongs to its collection."""
    return {name: value for name, value in row.items() if value is not None and name != "text"}


def owners_of(eval_set: EvalSet, tenant_of: Callable[[str], str | None] | None) -> Owners:
    """Whose an id is: as the caller says, else the tenants of the questions that it answers; nobody's if unknown."""
    if tenant_of is not None:
        return lambda found: () if (owner := tenant_of(found)) is None else (owner,)
    made: defaultdict[str, set[str]] = defaultdict(set)
    for query in eval_set.queries:
        for judged, grade in query.judged.items():
            if query.tenant is not None and grade > 0:
                made[judged].add(query.tenant)
    return lambda found: made.get(found, ())
