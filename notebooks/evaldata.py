"""The notebooks' data: real text with judged questions where there is some, else the standard library's documentation.

``PGRECALL_EVAL_DATA`` names a folder with ``squad/contexts.jsonl`` and ``squad/questions.jsonl`` (paragraphs with their
articles, and questions with the paragraph that answers each). Without it the documentation of the running Python is
taken, whose questions are made of the text itself: a known-item set, and labelled as one.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pgrecall import Chunk, EmbedSpace
from pgrecall.evaluation import EvalQuery, EvalSet, json_lines, known_items

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples" / "quickstart"))

import corpus
import minilm

#: Questions that are asked; PGRECALL_NOTEBOOK_QUERIES=40 for a quick look.
QUERIES = int(os.environ.get("PGRECALL_NOTEBOOK_QUERIES", "1000"))
#: The model that embeds: 384 dims, unit length.
SPACE = EmbedSpace(**minilm.SPACE_ARGS)


@dataclass(frozen=True)
class Data:
    """Chunks by tenant, and questions that name the tenant whose chunk answers them."""

    name: str
    chunks: dict[str, list[Chunk]]
    questions: EvalSet

    def __str__(self) -> str:
        count = sum(map(len, self.chunks.values()))
        heuristic = " (known items: a heuristic)" if self.questions.kind == "known-item" else ""
        asked = f"{len(self.questions.queries):,} questions{heuristic}"
        return f"{self.name}: {count:,} chunks of {len(self.chunks)} tenants, {asked}"


def load() -> Data:
    """The data that this machine has."""
    folder = Path(os.environ.get("PGRECALL_EVAL_DATA", "")) / "squad"
    return _squad(folder) if os.environ.get("PGRECALL_EVAL_DATA") and folder.is_dir() else _stdlib()


def _squad(folder: Path) -> Data:
    chunks: dict[str, list[Chunk]] = {}
    for line in (folder / "contexts.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        chunks.setdefault(row["title"], []).append(Chunk(row["context_id"], row["text"]))
    fields = {"text": "question", "judged": "context_id", "tenant": "title"}
    every = json_lines(folder / "questions.jsonl", name="squad", fields=fields, licence="CC BY-SA 4.0")
    return Data("SQuAD", chunks, _some(every))


def _stdlib() -> Data:
    chunks = {tenant: corpus.load(tenant)[1] for tenant in corpus.TENANTS}
    questions: list[EvalQuery] = []
    for tenant, held in chunks.items():
        questions += known_items(held, QUERIES // len(chunks), tenant=tenant).queries
    every = EvalSet("stdlib known items", tuple(questions), "Python's documentation", "PSF-2.0", kind="known-item")
    return Data("Python's standard library", chunks, _some(every))


def _some(every: EvalSet) -> EvalSet:
    """`QUERIES` of the questions, drawn evenly, so that a quick look sees every tenant."""
    step = max(1, len(every.queries) // QUERIES)
    return EvalSet(every.name, every.queries[::step][:QUERIES], every.source, every.licence, every.kind)


def embed(texts: Sequence[str]) -> np.ndarray:
    """The model's vectors, from a cache beside this file where a text was embedded before."""
    keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    held = _cache()
    if missing := [i for i, key in enumerate(keys) if key not in held]:
        for start in range(0, len(missing), 200):
            part = missing[start : start + 200]
            held.update(zip([keys[i] for i in part], minilm.embed([texts[i] for i in part]), strict=True))
        if len(missing) > 1:  # a single question is not worth a write
            save()
    return np.stack([held[key] for key in keys])


_held: dict[str, np.ndarray] = {}
_FILE = HERE / ".cache" / "minilm.npz"


def _cache() -> dict[str, np.ndarray]:
    if not _held and _FILE.is_file():
        with np.load(_FILE) as file:
            _held.update(zip(file["keys"].tolist(), file["vectors"], strict=True))
    return _held


def save() -> None:
    """Keep the cache for the next notebook."""
    _FILE.parent.mkdir(exist_ok=True)
    part = _FILE.with_suffix(".part.npz")
    np.savez(part, keys=np.array(list(_held)), vectors=np.stack(list(_held.values())))
    part.replace(_FILE)
