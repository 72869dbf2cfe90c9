"""ragas' measures as scorers of a run: by ids, by texts, and judged by a language model.

ragas is imported only when a scorer is made. Its telemetry is turned off, unless the user has set
``RAGAS_DO_NOT_TRACK``.
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

#: Metrics by what they need: the retrieved ids, the retrieved texts, or a language model.
BY_ID = ("id_based_context_precision", "id_based_context_recall")
BY_TEXT = ("non_llm_context_precision_with_reference", "non_llm_context_recall")
BY_MODEL = ("context_precision", "context_recall", "faithfulness")

#: Writes a response from a question and the retrieved texts, sync or async; `faithfulness` judges it.
Respond: TypeAlias = Callable[[str, list[str]], Any]


def import_ragas() -> Any:
    """Import ragas with its telemetry off. Raises ConfigurationError if it is not installed."""
    os.environ.setdefault("RAGAS_DO_NOT_TRACK", "true")
    try:
        import ragas
    except ImportError as exc:
        raise ConfigurationError(f"ragas can't be imported: {exc}; {install_extra('eval')}") from exc
    return ragas


class RagasScorer:
    """Scores each answer of a run by ragas' measures: ``evaluate(…, scorers=[RagasScorer([…])])``.

    If ragas can't give a score, the result has the reason in its place.

    Args:
        metrics: Names of `BY_ID` (the default), `BY_TEXT` and `BY_MODEL`. Those of `BY_TEXT` need the query's
            `contexts` or `texts_of`, those of `BY_MODEL` need `llm`, and the query's `answer` as reference.
        llm: The model that judges, made by ragas' `llm_factory` or by `framework_llm`.
        texts_of: Returns the texts of ids that are judged relevant.
        respond: Writes the response that ``faithfulness`` judges, from a question and the retrieved texts, sync or
            async.
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
            raise InvalidInput(f"ragas metric {', '.join(sorted(unknown))} is unknown; expected some of {known}")
        if set(metrics) & set(BY_MODEL) and llm is None:
            raise InvalidInput(f"llm is None; {', '.join(sorted(set(metrics) & set(BY_MODEL)))} need a model")
        if "faithfulness" in metrics and respond is None:
            raise InvalidInput("respond is None; faithfulness needs a function that writes the response to judge")
        import_ragas()
        self._llm, self._texts_of, self._respond = llm, texts_of, respond
        self._metrics = {name: _made(name, llm) for name in metrics}

    @property
    def names(self) -> list[str]:
        """The names of the metrics in a run: ragas' own, with the prefix ``ragas_``."""
        return [f"ragas_{name}" for name in self._metrics]

    @property
    def config(self) -> dict[str, Any]:
        """What the scores depend on."""
        model = None if self._llm is None else getattr(self._llm, "model", type(self._llm).__name__)
        return {"scorer": "ragas", "metrics": list(self._metrics), "llm": None if model is None else str(model)}

    def __call__(self, query: EvalQuery, rows: Sequence[Retrieved]) -> dict[str, float | str]:
        """The scores of one answer by name; a string in place of a score says why there is none."""
        with _ONE:
            loop = _loop()
        return asyncio.run_coroutine_threadsafe(self.ascore(query, rows), loop).result()

    async def ascore(self, query: EvalQuery, rows: Sequence[Retrieved]) -> dict[str, float | str]:
        """Like calling the scorer, asynchronously."""
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
    # Imported from their own modules: `ragas.metrics` warns that they move to `collections`, which lacks them so far.
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
        return 0.0  # ragas would return NaN; an empty answer counts as 0
    if name in BY_ID:
        sample = SingleTurnSample(retrieved_context_ids=[*found], reference_context_ids=[*wanted])
        return _number(await metric.single_turn_ascore(sample))
    if not texts:
        return "the retrieved rows have no texts"
    if name in BY_TEXT:
        if not contexts:
            return "the query has no reference contexts; give them, or pass texts_of="
        sample = SingleTurnSample(retrieved_contexts=texts, reference_contexts=contexts)
        return _number(await metric.single_turn_ascore(sample))
    asked = {"user_input": query.text, "retrieved_contexts": texts}
    if name == "faithfulness":
        if not response:
            return "there is no response to judge"
        return _number((await metric.ascore(**asked, response=response)).value)
    if not query.answer:
        return "the query has no reference answer"
    return _number((await metric.ascore(**asked, reference=query.answer)).value)


def _number(value: Any) -> float | str:
    number = float(value)
    return "ragas returned NaN" if math.isnan(number) else number


_ONE = threading.Lock()


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """One event loop for the synchronous calls of all threads: a model's client is bound to one loop."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="ragas", daemon=True).start()
    return loop


def framework_llm(model: Any) -> Any:
    """Make a ragas model of a LangChain chat model or a LlamaIndex LLM, by its structured output.

    They are recognised by their methods ``with_structured_output`` and ``as_structured_llm``. Raises InvalidInput.
    """
    import_ragas()
    from ragas.llms.base import InstructorBaseRagasLLM

    if not hasattr(model, "with_structured_output") and not hasattr(model, "as_structured_llm"):
        raise InvalidInput(
            f"llm is {type(model).__name__}; expected a LangChain chat model or a LlamaIndex LLM. Pass a model "
            "of ragas' llm_factory to RagasScorer as it is"
        )

    class FrameworkLLM(InstructorBaseRagasLLM):
        """A framework's model with ragas' interface."""

        def __init__(self) -> None:
            self.model = getattr(model, "model_name", None) or getattr(model, "model", type(model).__name__)

        def generate(self, prompt: str, response_model: Any) -> Any:
            """The model's answer as an instance of `response_model`."""
            if hasattr(model, "with_structured_output"):
                return model.with_structured_output(response_model).invoke(prompt)
            return model.as_structured_llm(response_model).complete(prompt).raw

        async def agenerate(self, prompt: str, response_model: Any) -> Any:
            """Like `generate`, asynchronously."""
            if hasattr(model, "with_structured_output"):
                return await model.with_structured_output(response_model).ainvoke(prompt)
            return (await model.as_structured_llm(response_model).acomplete(prompt)).raw

    return FrameworkLLM()
