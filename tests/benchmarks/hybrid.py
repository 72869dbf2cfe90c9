"""nDCG@10 of searches by vector, by words, and by both, for questions that people asked.

The model is all-MiniLM-L6-v2, full text is English. SQuAD has questions about paragraphs of Wikipedia, one of which
contains the answer. In "SQuAD" each article is a tenant (every third question); in "SQuAD, pooled" all articles are one
collection (every fifth question). Cranfield has questions about abstracts on aerodynamics, each with several judged
answers. `ts_rank` and `ts_rank_cd`, with normalization 1, rank the same words by Postgres' own functions. Each time is
the median of single calls.

The data can't be shipped with pgrecall. PGRECALL_EVAL_DATA names a folder with squad/contexts.jsonl (context_id, title,
text), squad/questions.jsonl (question, context_id, title), and cranfield/ in BEIR's format (corpus.jsonl,
queries.jsonl, qrels.tsv). Vectors are computed once and cached in .bench.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import sqlalchemy as sa
from tests.benchmarks.figures import Figure
from tests.benchmarks.harness import Bench, analyze, dsn, say

import pgrecall
from pgrecall import Chunk, EmbedSpace, ReciprocalRank
from pgrecall.statements.words import TSQUERY, words

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".bench"
SPACE = EmbedSpace("sentence-transformers", "all-MiniLM-L6-v2", 384)
K = 10
VECTOR, WORDS, BOTH, RANKS = "vector", "words", "hybrid", "hybrid, reciprocal ranks"
POSTGRES = ("ts_rank", "ts_rank_cd")
SYSTEMS = (BOTH, RANKS, VECTOR, WORDS, *POSTGRES)


@dataclass(frozen=True)
class Question:
    """A question, its tenant, and the grade of each answer."""

    tenant: str
    text: str
    vector: Any
    grades: dict[str, int]


@dataclass(frozen=True)
class Judged:
    """Texts by tenant, and questions about them."""

    texts: dict[str, dict[str, str]]
    questions: list[Question]


def folder() -> Path | None:
    """The folder of the data, or None without it."""
    named = os.environ.get("PGRECALL_EVAL_DATA")
    return Path(named) if named and (Path(named) / "squad").is_dir() else None


def run(bench: Bench) -> list[Figure]:
    """Measure quality, compare hybrid with the better leg, then times. Returns nothing without the data."""
    data = folder()
    if data is None:
        say("  skipped: PGRECALL_EVAL_DATA names no data")
        return []
    quality: list[Figure] = []
    verdicts: list[Figure] = []
    times: list[Figure] = []
    for name, judged in {"SQuAD": squad(data), "SQuAD, pooled": pooled(data), "Cranfield": cranfield(data)}.items():
        questions = judged.questions[::10] if bench.quick else judged.questions
        say(f"  {name}: {len(questions):,} questions")
        with bench.database() as url, pgrecall.connect(url) as db:
            fill(db, judged)
            analyze(url)
            scores, took = asked(db, url, questions)
        for system in SYSTEMS:
            quality.append(Figure(f"nDCG@10, {name}", statistics.fmean(scores[system]), series=system))
            times.append(Figure(f"p50, {name}", statistics.median(took[system]) * 1e3, "ms", series=system))
        verdicts += compared(name, scores)
    return quality + verdicts + times


def compared(name: str, scores: dict[str, list[float]]) -> list[Figure]:
    """Compare hybrid with the better leg, over all questions and question by question."""
    means = {system: statistics.fmean(scores[system]) for system in (BOTH, VECTOR, WORDS)}
    better = max((VECTOR, WORDS), key=lambda leg: means[leg])
    pairs = list(zip(scores[BOTH], scores[better], strict=True))
    label = f"{name}: hybrid / {better}, the better leg"
    return [
        Figure(f"{label}, nDCG@10", means[BOTH] / means[better], at_least=1.0),
        Figure(f"{label}, questions answered better", sum(a > b + 1e-9 for a, b in pairs) / len(pairs) * 100, "%"),
        Figure(f"{label}, questions answered worse", sum(a < b - 1e-9 for a, b in pairs) / len(pairs) * 100, "%"),
    ]


def fill(db: pgrecall.Database, judged: Judged) -> None:
    """Write every text of every tenant with its vector."""
    for tenant, texts in judged.texts.items():
        vectors = embedded(list(texts.values()))
        chunks = [Chunk(i, text, v) for (i, text), v in zip(texts.items(), vectors, strict=True)]
        db.tenant(tenant).vectors("texts", SPACE, text_config="english").upsert(chunks)


def asked(
    db: pgrecall.Database, url: sa.URL, questions: Sequence[Question]
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return nDCG@10 and seconds of each question, by system."""
    scores: dict[str, list[float]] = {system: [] for system in SYSTEMS}
    took: dict[str, list[float]] = {system: [] for system in SYSTEMS}
    with psycopg.connect(dsn(url), autocommit=True, prepare_threshold=None) as connection:
        for question in questions:
            for system, search in searches(db, connection, question).items():
                started = time.perf_counter()
                ids = search()
                took[system].append(time.perf_counter() - started)
                scores[system].append(ndcg(ids, question.grades))
    return scores, took


def searches(
    db: pgrecall.Database, connection: psycopg.Connection, question: Question
) -> dict[str, Callable[[], list[str]]]:
    """For each system a function that searches for the question."""
    store = db.tenant(question.tenant).vectors("texts", SPACE)

    def ours(**how: Any) -> Callable[[], list[str]]:
        return lambda: [hit.chunk_id for hit in store.query(**how)]

    def postgres(rank: str) -> Callable[[], list[str]]:
        values = {"tenant": question.tenant, "text_config": "english", **words(question.text)}
        return lambda: [row[0] for row in connection.execute(_RANKED[rank], values)]

    text, vector = question.text, question.vector
    return {
        BOTH: ours(vector=vector, text=text),
        RANKS: ours(vector=vector, text=text, fusion=ReciprocalRank()),
        VECTOR: ours(vector=vector),
        WORDS: ours(text=text),
        **{rank: postgres(rank) for rank in POSTGRES},
    }


_RANKED = {
    rank: f"""
        WITH asked AS MATERIALIZED (SELECT ({TSQUERY}) AS query)
        SELECT id FROM pgrecall.chunks, asked
        WHERE tenant_id = %(tenant)s AND collection = 'texts' AND text_search @@ (SELECT query FROM asked)
        ORDER BY {rank}(text_search, query, 1) DESC, id LIMIT {K}"""
    for rank in POSTGRES
}


def ndcg(ids: Sequence[str], grades: dict[str, int]) -> float:
    """Normalized discounted cumulative gain of the first ten, with the grade as the gain."""

    def gain(found: Sequence[int]) -> float:
        return sum(grade / math.log2(place + 1) for place, grade in enumerate(found[:K], 1))

    return gain([grades.get(i, 0) for i in ids]) / gain(sorted(grades.values(), reverse=True))


def lines(path: Path) -> list[dict[str, Any]]:
    """A file of JSON lines."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def squad(data: Path, every: int = 3) -> Judged:
    """SQuAD with each article as a tenant."""
    texts: dict[str, dict[str, str]] = {}
    for row in lines(data / "squad" / "contexts.jsonl"):
        texts.setdefault(row["title"], {})[row["context_id"]] = row["text"]
    asked = lines(data / "squad" / "questions.jsonl")
    vectors = embedded([row["question"] for row in asked])
    questions = [
        Question(row["title"], row["question"], vector, {row["context_id"]: 1})
        for row, vector in zip(asked, vectors, strict=True)
    ]
    return Judged(texts, questions[::every])


def pooled(data: Path) -> Judged:
    """SQuAD with all articles in one collection, and every fifth question."""
    apart = squad(data, every=5)
    texts = {i: text for of_one in apart.texts.values() for i, text in of_one.items()}
    questions = [Question("pooled", q.text, q.vector, q.grades) for q in apart.questions]
    return Judged({"pooled": texts}, questions)


def cranfield(data: Path) -> Judged:
    """Cranfield in one collection. Questions without a judged answer are skipped."""
    grades: dict[str, dict[str, int]] = {}
    for line in (data / "cranfield" / "qrels.tsv").read_text().splitlines():
        query, document, grade = line.split("\t")
        if grade.lstrip("-").isdigit() and int(grade) > 0:
            grades.setdefault(query, {})[document] = int(grade)
    texts = {row["_id"]: row["text"] or row["title"] or "-" for row in lines(data / "cranfield" / "corpus.jsonl")}
    asked = [row for row in lines(data / "cranfield" / "queries.jsonl") if row["_id"] in grades]
    vectors = embedded([row["text"] for row in asked])
    questions = [
        Question("cranfield", row["text"], vector, grades[row["_id"]])
        for row, vector in zip(asked, vectors, strict=True)
    ]
    return Judged({"cranfield": texts}, questions)


def embedded(texts: Sequence[str]) -> Any:
    """The texts' vectors, cached in a file."""
    key = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    path = CACHE / f"minilm-{key}.npy"
    if not path.exists():
        say(f"  embedding {len(texts):,} texts")
        sys.path.insert(0, str(ROOT / "examples" / "quickstart"))
        import minilm

        CACHE.mkdir(exist_ok=True)
        np.save(path, minilm.embed(list(texts)))
    return np.load(path)
