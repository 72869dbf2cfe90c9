"""Evaluation of retrieval: is it good, did it get better, and what shows it.

Needs the extra: ``pip install "pgrecall[eval]"``. Nothing else of pgrecall imports it.
"""

from pgrecall.evaluation.retrievers import Answer, CoreRetriever, Retrieved, Retriever, adapt, per_query
from pgrecall.evaluation.runs import EvalRun, aevaluate, evaluate, load_run
from pgrecall.evaluation.sets import EvalQuery, EvalSet, beir, corpus, from_ragas, json_lines, known_items
from pgrecall.evaluation.store import Evaluations, Result, RunInfo, SetInfo

__all__ = [
    "Answer",
    "CoreRetriever",
    "EvalQuery",
    "EvalRun",
    "EvalSet",
    "Evaluations",
    "Result",
    "Retrieved",
    "Retriever",
    "RunInfo",
    "SetInfo",
    "adapt",
    "aevaluate",
    "beir",
    "corpus",
    "evaluate",
    "from_ragas",
    "json_lines",
    "known_items",
    "load_run",
    "per_query",
]
