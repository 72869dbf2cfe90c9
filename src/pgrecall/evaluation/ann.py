"""ANN recall: the share of an exact search's rows that a search of the same store finds. It needs no judgements."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pgrecall.errors import InvalidInput
from pgrecall.evaluation.retrievers import Answer, CoreRetriever, Retrieved, Retriever
from pgrecall.evaluation.sets import EvalQuery
from pgrecall.operations.models.embedding import Embed


@dataclass(frozen=True, slots=True)
class AnnRecall:
    """A scorer: ``ann_recall@k`` is the share of the first `k` chunks of the `exact` search that the answer contains.

    The exact search returns up to `depth` rows, as the search itself did. If it finds nothing, there is no score.
    """

    exact: CoreRetriever
    depths: Sequence[int]
    depth: int

    @property
    def names(self) -> list[str]:
        """The names of the scores, one for each depth."""
        return [f"ann_recall@{k}" for k in self.depths]

    @property
    def config(self) -> dict[str, Any]:
        """What the scores depend on."""
        return {"scorer": "ann_recall", "against": "exact", "depths": list(self.depths)}

    def __call__(self, query: EvalQuery, rows: Sequence[Retrieved]) -> dict[str, float | str]:
        """Return the score at each depth."""
        return self._scores(self.exact(query, self.depth), rows)

    async def ascore(self, query: EvalQuery, rows: Sequence[Retrieved]) -> dict[str, float | str]:
        """Like calling the scorer, asynchronously."""
        return self._scores(await self.exact.acall(query, self.depth), rows)

    def _scores(self, answer: Answer, rows: Sequence[Retrieved]) -> dict[str, float | str]:
        nearest, found = ([row.chunk_id for row in given] for given in (answer.rows, rows))
        if not nearest:
            return dict.fromkeys(self.names, "the exact search found nothing")
        shares = (len(set(found[:k]) & set(nearest[:k])) / len(nearest[:k]) for k in self.depths)
        return dict(zip(self.names, shares, strict=True))


@dataclass(slots=True)
class _Twice:
    """An embedding function that embeds a question once for two searches."""

    embed: Embed
    held: dict[str, Any] = field(default_factory=dict)

    def __call__(self, texts: Sequence[str]) -> Any:
        [text] = texts
        if text in self.held:
            return self.held.pop(text)
        made = self.embed([text])
        if inspect.isawaitable(made):
            return self._awaited(text, made)
        self.held[text] = made
        return made

    async def _awaited(self, text: str, made: Any) -> Any:
        self.held[text] = vectors = await made
        return vectors


def against_exact(retriever: Retriever, depths: Sequence[int], depth: int) -> tuple[CoreRetriever, AnnRecall]:
    """The retriever, and a scorer that compares it with its own exact search. Raises InvalidInput if it has none."""
    if not isinstance(retriever, CoreRetriever) or retriever.mode == "sparse":
        what = "in mode 'sparse'" if isinstance(retriever, CoreRetriever) else f"of {retriever.config.get('adapter')!r}"
        raise InvalidInput(
            f"ann_recall was requested for a retriever {what}, which has no exact search by vectors; expected a core "
            "store in mode 'dense' or 'hybrid'"
        )
    assert retriever.embed is not None
    asked_once = replace(retriever, embed=_Twice(retriever.embed))
    mmr = None if retriever.mmr is None else _exactly(retriever.mmr)
    exact = replace(asked_once, options=_exactly(retriever.options), mmr=mmr)
    return asked_once, AnnRecall(exact, depths, depth)


def _exactly(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "ef_search"} | {"exact": True}
