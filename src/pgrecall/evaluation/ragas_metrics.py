"""ragas' measures of what was retrieved, as scorers of a run: by ids, by texts, and judged by a language model.

ragas is imported when a scorer is made, and never by anything else. Its telemetry is off, unless the user set
``RAGAS_DO_NOT_TRACK`` to something else before.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from pgrecall.errors import ConfigurationError, InvalidInput
from pgrecall.evaluation.retrievers import Retrieved
from pgrecall.evaluation.sets import EvalQuery
from pgrecall.extras import install_extra

#: What it takes to judge: the ids that were found, their texts, or a language model's opinion.
BY_ID = ("id_based_context_precision", "id_based_context_recall")
BY_TEXT = ("non_llm_context_precision_with_reference", "non_llm_context_recall")
BY_MODEL = ("context_precision", "context_recall", "faithfulness")

#: Writes a response from a question and what was retrieved, sync or async; `faithfulness` judges it.
Respond: TypeAlias = Callable[[str, list[str]], Any]


def import_ragas() -> Any:
    """The module ragas, telemetry off. Raises ConfigurationError where it is not installed."""
    os.environ.setdefault("RAGAS_DO_NOT_TRACK", "true")
    try:
        import ragas
    except ImportError as exc:
        raise ConfigurationError(f"ragas can't be imported: {exc}; {install_extra('eval')}") from exc
    return ragas


class RagasScorer:
    """Scores each answer of a run by ragas' measures: ``evaluate(…, scorers=[RagasScorer([…])])``.

    `metrics` are of `BY_ID` (which need nothing else), `BY_TEXT` (the query's `contexts`, or the texts that
    `texts_of(ids)` finds for what is judged relevant), and `BY_MODEL` (`llm`, a model as ragas' `llm_factory` makes it,
    or `framework_llm`; the query's `answer` as reference). ``faithfulness`` judges the response that
    `respond(question, texts)` writes. A score that ragas can't give is left out of the result, and the reason kept.
    """

    def __init__(
        self,
        metrics: Sequence[str] = BY_ID,
        *,
        llm: Any = None,
        texts_of: Callable[[Sequence[str]], Sequence[str]] | None = None,
        respond: Respond | None = None,
    ) -> None:
        if unknown := set(metrics) - {*BY_ID, *BY_TEXT, *BY_MODEL}:
            known = ", ".join([*BY_ID, *BY_TEXT, *BY_MODEL])
            raise InvalidInput(f"ragas metric {', '.join(sorted(unknown))} is not known here; expected some of {known}")
        if set(metrics) & set(BY_MODEL) and llm is None:
            raise InvalidInput(f"{', '.join(sorted(set(metrics) & set(BY_MODEL)))} need llm=, the model that judges")
        if "faithfulness" in metrics and respond is None:
            raise InvalidInput("faithfulness needs respond=, which writes the response that is judged")
        import_ragas()
        self._llm, self._texts_of, self._respond = llm, texts_of, respond
        self._metrics = {name: _made(name, llm) for name in metrics}

    @property
    def names(self) -> list[str]:
        """The metrics' names in a run: ragas' own, behind ``ragas_``."""
        return [f"ragas_{name}" for name in self._metrics]

    @property
    def config(self) -> dict[str, Any]:
        """What decides the scores."""
        model = None if self._llm is None else getattr(self._llm, "model", type(self._llm).__name__)
        return {"scorer": "ragas", "metrics": list(self._metrics), "llm": None if model is None else str(model)}

    def __call__(self, query: EvalQuery, rows: Sequence[Retrieved]) -> dict[str, float | str]:
        """The scores of one answer by name; a string where there is none, which says why."""
        with _ONE:
            loop = _loop()
        return asyncio.run_coroutine_threadsafe(self.ascore(query, rows), loop).result()

    async def ascore(self, query: EvalQuery, rows: Sequence[Retrieved]) -> dict[str, float | str]:
        """As the call."""
        wanted = [i for i, grade in query.judged.items() if grade > 0]
        found = list(dict.fromkeys(row.id for row in rows))
        texts = [row.text for row in rows if row.text]
        response = None
        if self._respond is not None:
            made = self._respond(query.text, texts)
            response = await made if inspect.isawaitable(made) else made
        made_scores: dict[str, float | str] = {}
        for name, metric in self._metrics.items():
            made_scores[f"ragas_{name}"] = await _score(
                name, metric, query, found, texts, wanted, self._contexts(name, query, wanted), response
            )
        return made_scores

    def _contexts(self, name: str, query: EvalQuery, wanted: list[str]) -> list[str]:
        if name not in BY_TEXT or query.contexts or self._texts_of is None:
            return list(query.contexts)
        return list(self._texts_of(wanted))


def _made(name: str, llm: Any) -> Any:
    if name in BY_MODEL:
        from ragas.metrics import collections

        kinds = {
            "context_precision": collections.ContextPrecision,
            "context_recall": collections.ContextRecall,
            "faithfulness": collections.Faithfulness,
        }
        return kinds[name](llm=llm)
    # From their own modules: `ragas.metrics` warns that they move to `collections`, where they are not yet.
    from ragas.metrics._context_precision import IDBasedContextPrecision, NonLLMContextPrecisionWithReference
    from ragas.metrics._context_recall import IDBasedContextRecall, NonLLMContextRecall

    made = (IDBasedContextPrecision, IDBasedContextRecall, NonLLMContextPrecisionWithReference, NonLLMContextRecall)
    return dict(zip([*BY_ID, *BY_TEXT], made, strict=True))[name]()


async def _score(
    name: str,
    metric: Any,
    query: EvalQuery,
    found: list[str],
    texts: list[str],
    wanted: list[str],
    contexts: list[str],
    response: str | None,
) -> float | str:
    from ragas import SingleTurnSample

    if not found and name != "faithfulness":
        return 0.0  # ragas would call it no number; an empty answer counts as 0
    if name in BY_ID:
        sample = SingleTurnSample(retrieved_context_ids=[*found], reference_context_ids=[*wanted])
        return _number(await metric.single_turn_ascore(sample))
    if not texts:
        return "what was retrieved has no texts"
    if name in BY_TEXT:
        if not contexts:
            return "the query has no reference contexts; give them, or texts_of="
        sample = SingleTurnSample(retrieved_contexts=texts, reference_contexts=contexts)
        return _number(await metric.single_turn_ascore(sample))
    asked = {"user_input": query.text, "retrieved_contexts": texts}
    if name == "faithfulness":
        if not response:
            return "there is no response to judge"
        return _number((await metric.ascore(**asked, response=response)).value)
    if not query.answer:
        return "the query has no answer to judge by"
    return _number((await metric.ascore(**asked, reference=query.answer)).value)


def _number(value: Any) -> float | str:
    number = float(value)
    return "ragas gave no number" if math.isnan(number) else number


_ONE = threading.Lock()


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """One for all synchronous calls, of whatever thread: a model's client keeps its connections in one."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="ragas", daemon=True).start()
    return loop


def framework_llm(model: Any) -> Any:
    """A ragas model over a LangChain chat model or a LlamaIndex LLM, by its own structured output.

    Both are known by their methods (``with_structured_output``, ``structured_predict``). Raises InvalidInput.
    """
    import_ragas()
    from ragas.llms.base import InstructorBaseRagasLLM

    if not hasattr(model, "with_structured_output") and not hasattr(model, "as_structured_llm"):
        raise InvalidInput(
            f"llm is {type(model).__name__}; expected a LangChain chat model, a LlamaIndex LLM, or what ragas' "
            "llm_factory makes"
        )

    class FrameworkLLM(InstructorBaseRagasLLM):
        """A framework's model as ragas asks it."""

        def __init__(self) -> None:
            self.model = getattr(model, "model_name", None) or getattr(model, "model", type(model).__name__)

        def generate(self, prompt: str, response_model: Any) -> Any:
            """The model's answer as an instance of `response_model`."""
            if hasattr(model, "with_structured_output"):
                return model.with_structured_output(response_model).invoke(prompt)
            return model.as_structured_llm(response_model).complete(prompt).raw

        async def agenerate(self, prompt: str, response_model: Any) -> Any:
            """As `generate`."""
            if hasattr(model, "with_structured_output"):
                return await model.with_structured_output(response_model).ainvoke(prompt)
            return (await model.as_structured_llm(response_model).acomplete(prompt)).raw

    return FrameworkLLM()
