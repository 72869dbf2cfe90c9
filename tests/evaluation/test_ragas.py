"""ragas in a run, and ragas' own datasets and experiments in our tables."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from pgrecall import InvalidInput
from pgrecall.evaluation import EvalQuery, EvalSet, aevaluate, evaluate, from_ragas
from pgrecall.evaluation.ragas_metrics import BY_ID, BY_MODEL, BY_TEXT, RagasScorer, framework_llm
from support.openai_server import openai_server

pytestmark = [
    pytest.mark.filterwarnings("default"),  # ragas' own imports warn of what they deprecated
    # Of what it would send it makes the user's id, though it sends nothing, and leaves that file open.
    pytest.mark.filterwarnings("ignore:unclosed file .*uuid.json:ResourceWarning"),
]

TEXTS = {
    "c0": "Normandy is a region in the north of France.",
    "c1": "The Normans gave their name to Normandy.",
    "c2": "Cheese is made of milk.",
}
SET = EvalSet(
    "normans",
    (
        EvalQuery("q0", "Where is Normandy?", {"c0": 1}, answer="In France.", contexts=(TEXTS["c0"],)),
        EvalQuery("q1", "Who named Normandy?", {"c1": 1, "c2": 0}, answer="The Normans."),
    ),
)


def retrieve(text, k):
    """Both right, in second place for the second question; with texts."""
    ids = ["c0", "c2"] if "Where" in text else ["c2", "c1"]
    return [{"id": i, "text": TEXTS[i]} for i in ids]


def test_importing_pgrecall_or_its_evaluation_does_not_import_ragas():
    """Nor anything of langchain; ragas comes with the first scorer, and its telemetry is off then."""
    code = (
        "import sys, pgrecall, pgrecall.evaluation, pgrecall.cli\n"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('ragas', 'langchain_core', 'openai')], sys.modules\n"
        "from pgrecall.evaluation.ragas_metrics import RagasScorer\n"
        "import os; assert 'RAGAS_DO_NOT_TRACK' not in os.environ\n"
        "RagasScorer()\n"
        "from ragas._analytics import do_not_track; assert do_not_track()\n"
        "print('ok')"
    )
    backend = (
        "from ragas.backends import get_registry; get_registry()['pgrecall']\n"
        "from ragas._analytics import do_not_track; assert do_not_track()\nprint('ok')"
    )
    environ = {k: v for k, v in os.environ.items() if k != "RAGAS_DO_NOT_TRACK"}
    for script in (code, backend):
        command = [sys.executable, "-c", script]
        shown = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
        assert shown.stdout.strip().endswith("ok"), shown.stderr


def test_measures_by_id_and_by_text_are_scores_of_a_run():
    """Precision and recall of ids; by texts against the query's contexts, or those that `texts_of` finds."""
    scorer = RagasScorer([*BY_ID, *BY_TEXT], texts_of=lambda ids: [TEXTS[i] for i in ids])
    for run in (
        evaluate(retrieve, SET, top_k=2, scorers=[scorer]),
        asyncio.run(aevaluate(retrieve, SET, top_k=2, scorers=[scorer])),
    ):
        assert [r.error for r in run.results] == [None, None] and not any(r.unscored for r in run.results)
        first, second = (r.metrics for r in run.results)
        assert first["ragas_id_based_context_precision"] == second["ragas_id_based_context_precision"] == 0.5
        assert first["ragas_id_based_context_recall"] == second["ragas_id_based_context_recall"] == 1.0
        assert first["ragas_non_llm_context_precision_with_reference"] == pytest.approx(1.0)
        assert second["ragas_non_llm_context_precision_with_reference"] == pytest.approx(0.5)
        assert first["ragas_non_llm_context_recall"] == 1.0
        assert run.summary["metrics"]["ragas_id_based_context_recall"]["mean"] == 1.0


def test_what_can_not_be_scored_is_left_out_and_reported(db, tenant_id):
    """An empty answer is 0; a query without contexts is unscored, and the mean is of the others."""
    from pgrecall.evaluation import Evaluations, load_run

    kept = Evaluations(db.tenant(tenant_id))
    scorer = RagasScorer(["id_based_context_precision", "non_llm_context_recall"])
    run = evaluate(retrieve, SET, top_k=2, scorers=[scorer], store=kept)
    assert run.results[1].unscored == {
        "ragas_non_llm_context_recall": "the query has no reference contexts; give them, or pass texts_of="
    }
    assert run.summary["metrics"]["ragas_non_llm_context_recall"]["mean"] == 1.0
    assert run.summary["unscored"] == {"ragas_non_llm_context_recall": 1}
    assert load_run(kept, run.run_id).results == run.results
    empty = evaluate(lambda text: [], SET, scorers=[scorer])
    assert empty.mean("ragas_id_based_context_precision") == 0


def judge(name, request):
    """A model that finds every text useful but those about cheese, and every statement supported."""
    prompt = request["messages"][-1]["content"]
    prompt = prompt if isinstance(prompt, str) else prompt[0]["text"]
    final = prompt.rsplit("Now perform", 1)[-1]
    if name.startswith("StatementGenerator"):
        return {"statements": ["It is in France."]}
    if name.startswith("NLIStatement"):
        return {"statements": [{"statement": "It is in France.", "reason": "r", "verdict": 1}]}
    if name.startswith("ContextPrecision"):
        return {"reason": "r", "verdict": int("Cheese" not in final)}
    assert name.startswith("ContextRecall"), name
    return {"classifications": [{"statement": "s", "reason": "r", "attributed": 1}]}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_language_model_judges_by_an_openai_style_server(is_async):
    """ragas' own llm_factory, offline; faithfulness of the response that the caller writes."""
    from openai import AsyncOpenAI
    from ragas.llms import llm_factory

    with openai_server(judge) as (url, seen):
        llm = llm_factory("scripted", client=AsyncOpenAI(base_url=url, api_key="none"))
        scorer = RagasScorer(BY_MODEL, llm=llm, respond=lambda question, texts: f"It is in France. {len(texts)}")
        if is_async:
            run = asyncio.run(aevaluate(retrieve, SET, top_k=2, scorers=[scorer], concurrency=2))
        else:
            run = evaluate(retrieve, SET, top_k=2, scorers=[scorer], concurrency=2)
    assert [r.unscored for r in run.results] == [{}, {}]
    first, second = (r.metrics for r in run.results)
    assert first["ragas_context_precision"] == pytest.approx(1.0)
    assert second["ragas_context_precision"] == pytest.approx(0.5)
    assert first["ragas_context_recall"] == first["ragas_faithfulness"] == 1.0
    assert len(seen) >= 8 and run.config["asked"]["scorers"][0]["llm"] == "scripted"


def test_a_model_that_fails_leaves_the_other_scores():
    """Its metrics are unscored with the reason; nothing else is lost."""
    from openai import AsyncOpenAI
    from ragas.llms import llm_factory

    llm = llm_factory("m", client=AsyncOpenAI(base_url="http://127.0.0.1:9/v1", api_key="none", max_retries=0))
    run = evaluate(retrieve, SET, top_k=2, scorers=[RagasScorer(["context_recall"], llm=llm), RagasScorer()])
    assert run.summary["failed"] == 0 and run.mean("ragas_id_based_context_recall") == 1.0
    assert all("ragas_context_recall" in r.unscored for r in run.results)


def test_a_langchain_model_judges_by_its_structured_output():
    """Known by its methods; the same for LlamaIndex's."""

    class Structured:
        def __init__(self, schema):
            self.schema = schema

        def answer(self):
            return self.schema(**judge(self.schema.__name__, {"messages": [{"content": ""}]}))

        def invoke(self, prompt):
            return self.answer()

        async def ainvoke(self, prompt):
            return self.answer()

        async def acomplete(self, prompt):
            return type("Response", (), {"raw": self.answer()})

    class LangChain:
        model_name = "lc"

        def with_structured_output(self, schema):
            return Structured(schema)

    class LlamaIndex:
        model = "li"

        def as_structured_llm(self, schema):
            return Structured(schema)

    for model, name in ((LangChain(), "lc"), (LlamaIndex(), "li")):
        scorer = RagasScorer(["context_precision", "context_recall"], llm=framework_llm(model))
        run = evaluate(retrieve, SET, top_k=2, scorers=[scorer])
        assert run.mean("ragas_context_recall") == 1.0 and run.config["asked"]["scorers"][0]["llm"] == name
    with pytest.raises(InvalidInput, match="expected a LangChain chat model"):
        framework_llm(object())


@pytest.mark.parametrize(
    ("metrics", "options", "message"),
    [
        (["bleu"], {}, "ragas metric bleu is unknown"),
        (["context_recall"], {}, "llm is None"),
        (["faithfulness"], {"llm": object()}, "respond is None"),
    ],
)
def test_what_a_scorer_lacks_is_said_when_it_is_made(metrics, options, message):
    """Not by each query of a run."""
    with pytest.raises(InvalidInput, match=message):
        RagasScorer(metrics, **options)


def test_an_evaluation_dataset_of_ragas_is_an_eval_set():
    """By its context ids; texts alone don't say which rows are meant."""
    from ragas import EvaluationDataset, SingleTurnSample

    samples = [
        SingleTurnSample(
            user_input="Where?", reference_context_ids=["c0", 7], reference="France", reference_contexts=["x"]
        )
    ]
    made = from_ragas(EvaluationDataset(samples=samples), name="from ragas")
    assert made.queries == (EvalQuery("0", "Where?", {"c0": 1, "7": 1}, answer="France", contexts=("x",)),)
    with pytest.raises(InvalidInput, match="sample 0"):
        from_ragas(EvaluationDataset(samples=[SingleTurnSample(user_input="Where?")]), name="none")


@pytest.fixture
def backend(db, tenant_id):
    from pgrecall.evaluation.ragas_backend import PgRecallBackend

    return PgRecallBackend(tenant_id, database=db)


ROW = {
    "when": datetime(2024, 5, 1, 12, 30, tzinfo=UTC),
    "day": date(2024, 5, 1),
    "for": timedelta(seconds=1.5),
    "price": Decimal("1.10"),
    "id": uuid.UUID(int=5),
    "raw": b"\0\xff",
    "pair": (1, "two"),
    "few": {3},
    "gap": float("inf"),
    "text that looks like a date": "2024-05-01",
    "nested": {"$type": "datetime", "value": [None, True, 1.5, "ü"]},
}


def test_ragas_keeps_datasets_in_our_tables_as_given(backend):
    """Types that JSON lacks come back, text that looks like a date stays text, empty is not missing."""
    from ragas import Dataset

    made = Dataset("rows", backend=backend)
    made.append(ROW)
    made.append({"n": 1})
    made.save()
    again = Dataset.load("rows", backend=backend)
    assert list(again) == [ROW, {"n": 1}] and type(again[0]["pair"]) is tuple
    backend.save_dataset("empty", [])
    assert backend.load_dataset("empty") == [] and backend.list_datasets() == ["empty", "rows"]
    assert backend.list_experiments() == []
    with pytest.raises(FileNotFoundError, match="dataset 'nothing' does not exist in tenant"):
        Dataset.load("nothing", backend=backend)


def test_ragas_finds_the_backend_by_name(app_url, tenant_id, backend):
    """Registered under ragas' entry point; tenant-scoped by its argument."""
    from ragas import Dataset

    url = app_url.render_as_string(hide_password=False)
    mine = Dataset("mine", backend="pgrecall", tenant=tenant_id, url=url, data=[{"a": 1}])
    mine.save()
    mine.backend.close()
    assert backend.load_dataset("mine") == [{"a": 1}]
    other = Dataset("mine", backend="pgrecall", tenant=f"{tenant_id}-other", url=url, data=[])
    assert other.backend.list_datasets() == []
    other.backend.close()


def test_an_experiment_keeps_order_and_turns_failures_into_rows(backend):
    """Rows that finish in another order, one that raises, and one without a result."""
    from ragas import Dataset

    from pgrecall.evaluation.experiments import experiment

    rows = Dataset("rows", backend=backend, data=[{"n": n} for n in range(6)])

    @experiment(name_prefix="try")
    async def run(row):
        await asyncio.sleep(0.02 * (6 - row["n"]))
        if row["n"] == 2:
            raise ValueError("two")
        return None if row["n"] == 4 else {**row, "square": row["n"] ** 2}

    made = asyncio.run(run.arun(rows, name="squares"))
    expected = [{"n": n, "square": n * n} for n in (0, 1, 3, 5)]
    expected.insert(2, {"n": 2, "error": "ValueError: two"})
    assert list(made) == expected and made.name == "try-squares"
    assert backend.load_experiment("try-squares") == expected
