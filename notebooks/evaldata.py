"""Code that the notebooks share: their data, their models with a cache of vectors, and how figures are shown.

``PGRECALL_EVAL_DATA`` names a folder with ``squad/contexts.jsonl`` and ``squad/questions.jsonl`` (paragraphs with their
articles, and questions with the paragraph that answers each). Without it, the notebooks use the docstrings of the
running Python, with questions made from the text itself: a known-item set, which is labelled as one.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import sys
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pgrecall import Chunk, Database, EmbedSpace
from pgrecall.evaluation import EvalQuery, EvalSet, json_lines, known_items

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples" / "quickstart"))

import corpus
import minilm

# Frameworks warn that the widgets for progress bars are not installed.
warnings.filterwarnings("ignore", message="IProgress not found")

#: Number of questions; PGRECALL_NOTEBOOK_QUERIES=20 gives a quick look, with fewer chunks too.
QUERIES = int(os.environ.get("PGRECALL_NOTEBOOK_QUERIES", "1000"))
QUICK = QUERIES < 200


@dataclass(frozen=True)
class Data:
    """Chunks by tenant, and questions that name the tenant whose chunk answers them."""

    name: str
    chunks: dict[str, list[Chunk]]
    questions: EvalSet

    def __str__(self) -> str:
        heuristic = " (known items: a heuristic)" if self.questions.kind == "known-item" else ""
        asked = f"{len(self.questions.queries):,} questions{heuristic}"
        return f"{self.name}: {len(self.every):,} chunks of {len(self.chunks)} tenants, {asked}"

    @property
    def every(self) -> list[Chunk]:
        """All tenants' chunks."""
        return [chunk for held in self.chunks.values() for chunk in held]

    @property
    def pooled(self) -> EvalSet:
        """The questions without their tenants, for a collection with the chunks of all tenants."""
        return replace(self.questions, queries=tuple(replace(q, tenant=None) for q in self.questions.queries))


def load() -> Data:
    """The data of this machine. A quick look takes 20 chunks per question, including those that answer them."""
    data = _read()
    if QUICK:
        kept = {chunk.id for chunk in _answers_first(data)[: 20 * QUERIES]}
        fewer = {tenant: [c for c in held if c.id in kept] for tenant, held in data.chunks.items()}
        data = replace(data, chunks={tenant: held for tenant, held in fewer.items() if held})
    embed([*(chunk.text for chunk in data.every), *(query.text for query in data.questions.queries)])
    return data


def load_windows() -> tuple[list[Chunk], EvalSet]:
    """Sentences and pairs of consecutive sentences of the paragraphs, and questions that the paragraphs answer.

    A window's `doc_id` is its paragraph; its metadata has its number of sentences. A quick look takes just enough
    windows for a graph.
    """
    data = _read()
    made: list[Chunk] = []
    for chunk in _answers_first(data) if QUICK else data.every:
        sentences = [s for s in re.split(r"(?<=[.!?])\s+", " ".join(chunk.text.split())) if len(s) > 20]
        for size, start in itertools.product((1, 2), range(len(sentences))):
            if start + size <= len(sentences):
                text = " ".join(sentences[start : start + size])
                made.append(Chunk(f"{chunk.id}/{size}/{start}", text, doc_id=chunk.id, metadata={"sentences": size}))
    made = made[: 2_300 if QUICK else None]
    embed([*(chunk.text for chunk in made), *(query.text for query in data.questions.queries)])
    return made, data.pooled


def _read() -> Data:
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
        questions += known_items(held, max(1, QUERIES // len(chunks)), tenant=tenant).queries
    every = EvalSet("stdlib known items", tuple(questions), "Python's documentation", "PSF-2.0", kind="known-item")
    return Data("Python's standard library", chunks, _some(every))


def _some(every: EvalSet) -> EvalSet:
    """At most `QUERIES` questions, spread evenly over the set, so that a quick look covers many tenants."""
    count = len(every.queries)
    drawn = (every.queries[place * count // QUERIES] for place in range(QUERIES))
    return every if count <= QUERIES else replace(every, queries=tuple(drawn))


def _answers_first(data: Data) -> list[Chunk]:
    wanted = {i for query in data.questions.queries for i in query.judged}
    return sorted(data.every, key=lambda chunk: chunk.id not in wanted)


# Three real, local models. Two of them are poor on purpose, for comparison.

#: all-MiniLM-L6-v2: 384 dims, unit length.
SPACE = EmbedSpace(**minilm.SPACE_ARGS)
#: Its first 128 dims. The model was not trained for truncation.
CUT = EmbedSpace("sentence-transformers", "all-MiniLM-L6-v2, first 128 dims", 128)
#: Not a trained model: the character n-grams (3 to 5 letters) of a text, hashed into 512 dims.
LETTERS = EmbedSpace("by hand", "hashed letters", 512)


def embed(texts: Sequence[str]) -> np.ndarray:
    """all-MiniLM-L6-v2's vectors, cached in a file in this folder."""
    keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    held = _cache()
    if missing := [i for i, key in enumerate(keys) if key not in held]:
        held.update(zip([keys[i] for i in missing], minilm.embed([texts[i] for i in missing]), strict=True))
        if len(missing) > 1:  # a single question is not worth writing the file
            _save()
    return np.stack([held[key] for key in keys])


def cut(texts: Sequence[str]) -> np.ndarray:
    """The first 128 dims of all-MiniLM-L6-v2's vectors, normalized again."""
    return _unit(embed(texts)[:, : CUT.dim])


def letters(texts: Sequence[str]) -> np.ndarray:
    """Signed square roots of hashed counts of character n-grams (3 to 5 letters), normalized."""
    made = np.zeros((len(texts), LETTERS.dim), np.float32)
    for row, text in zip(made, texts, strict=True):
        for word in re.findall(r"\w+", text.lower()):
            padded = f"<{word}>"
            for size in (3, 4, 5):
                for start in range(len(padded) - size + 1):
                    place = zlib.crc32(padded[start : start + size].encode())
                    row[place % LETTERS.dim] += 1 if place & 1 << 31 else -1
    return _unit(np.sign(made) * np.sqrt(np.abs(made)) + 1e-6)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


_held: dict[str, np.ndarray] = {}
_FILE = HERE / ".cache" / "minilm.npz"


def _cache() -> dict[str, np.ndarray]:
    if not _held and _FILE.is_file():
        with np.load(_FILE) as file:
            _held.update(zip(file["keys"].tolist(), file["vectors"], strict=True))
    return _held


def _save() -> None:
    """Save the cache for the next notebook."""
    _FILE.parent.mkdir(exist_ok=True)
    part = _FILE.with_suffix(f".{os.getpid()}.npz")
    np.savez(part, keys=np.array(list(_held)), vectors=np.stack(list(_held.values())))
    part.replace(_FILE)


def clean(db: Database, *tenants: str) -> None:
    """Delete these tenants' data, and reopen the tenants for the next run."""
    for tenant in tenants:
        db.delete_tenant(tenant)
        db.create_tenant(tenant, reopen=True)


def show(draw: Callable[[Any], None], *, width: float = 7.5, height: float = 3.4) -> Any:
    """An image for the notebook of a matplotlib figure that `draw` fills."""
    from IPython.display import Image

    from pgrecall.evaluation.charts import png

    return Image(png(draw, width=width, height=height), width=int(width * 96))


def differences(compared: dict[str, Any], metric: str, against: str) -> Callable[[Any], None]:
    """A function that draws paired differences with their 95 % intervals, one line per comparison."""

    def draw(figure: Any) -> None:
        panel = figure.subplots()
        for place, made in enumerate(compared.values()):
            found = made.differences[metric]
            sure = found.interval.low > 0 or found.interval.high < 0
            colour = "#94a3b8" if not sure else "#059669" if found.interval.mean > 0 else "#dc2626"
            panel.plot([found.interval.low, found.interval.high], [place, place], color=colour, lw=2.5)
            panel.plot([found.interval.mean], [place], "o", color=colour)
            panel.annotate(f"p {found.p:.4f}", (found.interval.mean, place), (0, 7), textcoords="offset points",
                           size=7.5, ha="center", color="#475569")  # fmt: skip
        panel.axvline(0, color="#0f172a", lw=0.8)
        panel.set_yticks(range(len(compared)), list(compared))
        panel.set_ylim(len(compared) - 0.4, -0.6)
        panel.set_xlabel(f"{metric}, difference from {against}, with its 95 % interval")

    return draw
