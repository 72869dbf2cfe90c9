"""Evaluates retrieval: measures its quality, and compares runs.

It needs the extra `eval`. Only the command line imports it.
"""

from pgrecall.evaluation.adapters import adapt, per_query
from pgrecall.evaluation.ann import AnnRecall
from pgrecall.evaluation.comparison import Comparison, compare
from pgrecall.evaluation.experiments import experiment
from pgrecall.evaluation.retrievers import Answer, CoreRetriever, Retrieved, Retriever
from pgrecall.evaluation.runs import EvalRun, aevaluate, evaluate, load_run
from pgrecall.evaluation.sets import EvalQuery, EvalSet, beir, corpus, from_ragas, json_lines, known_items
from pgrecall.evaluation.store import Evaluations, Result, RunInfo, SetInfo
from pgrecall.evaluation.sweeps import Point, sweep

__all__ = [
    "AnnRecall",
    "Answer",
    "Comparison",
    "CoreRetriever",
    "EvalQuery",
    "EvalRun",
    "EvalSet",
    "Evaluations",
    "Point",
    "Result",
    "Retrieved",
    "Retriever",
    "RunInfo",
    "SetInfo",
    "adapt",
    "aevaluate",
    "beir",
    "compare",
    "corpus",
    "evaluate",
    "experiment",
    "from_ragas",
    "json_lines",
    "known_items",
    "load_run",
    "per_query",
    "sweep",
]
