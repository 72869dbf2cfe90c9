"""Eval sets: questions with judgements of what answers them, from files, from ragas, or made of a collection."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pgrecall.arguments import MAX_ID_BYTES, MAX_NAME_BYTES, check_text, whole_number
from pgrecall.errors import InvalidInput
from pgrecall.filters.parse import parse
from pgrecall.jsonable import dumps
from pgrecall.types import Document

if TYPE_CHECKING:
    from pgrecall.types import Chunk

#: The kinds of sets. A known-item set is a heuristic: it only measures whether a text finds its own chunk.
JUDGED, KNOWN_ITEM = "judged", "known-item"


@dataclass(frozen=True, slots=True)
class EvalQuery:
    """A question and its judgements.

    `judged` maps ids of documents or chunks to grades; 0 means not relevant. `tenant` is the tenant whose rows may
    answer. `filters` is a filter as JSON. ragas calls `answer` and `contexts` the reference and the reference contexts.
    Raises InvalidInput.
    """

    id: str
    text: str
    judged: Mapping[str, float]
    tenant: str | None = None
    filters: Mapping[str, Any] | None = None
    answer: str | None = None
    contexts: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_text(self.id, "a query's id", MAX_ID_BYTES)
        what = f"query {self.id!r:.80}"
        if not isinstance(self.text, str) or not self.text.strip():
            raise InvalidInput(f"{what} has no text; expected a non-empty question")
        if not isinstance(self.judged, Mapping):
            raise InvalidInput(f"{what}: judged is {type(self.judged).__name__}; expected a mapping of ids to grades")
        for judged_id, grade in self.judged.items():
            check_text(judged_id, f"{what}: a judged id", MAX_ID_BYTES)
            if isinstance(grade, bool) or not isinstance(grade, int | float) or not np.isfinite(grade):
                raise InvalidInput(f"{what}: the grade of {judged_id!r:.60} is {grade!r:.40}; expected a number")
        if not any(grade > 0 for grade in self.judged.values()):
            raise InvalidInput(f"{what} has no relevant id; expected at least one grade above 0. Leave the query out")
        if self.tenant is not None:
            check_text(self.tenant, f"{what}: tenant", MAX_NAME_BYTES)
        if not isinstance(self.answer, str | None):
            raise InvalidInput(f"{what}: answer is {self.answer!r:.60}; expected a string")
        if isinstance(self.contexts, str) or not all(isinstance(context, str) for context in self.contexts):
            raise InvalidInput(f"{what}: contexts is {self.contexts!r:.60}; expected a list of strings")
        if self.filters is not None:
            try:
                parse(self.filters)
            except InvalidInput as exc:
                raise InvalidInput(f"{what}: {exc}") from exc

    def canonical(self) -> str:
        """The query as canonical JSON: equal queries give equal texts."""
        value = {
            "answer": self.answer,
            "contexts": list(self.contexts),
            "filters": self.filters,
            "id": self.id,
            "judged": {i: float(grade) for i, grade in self.judged.items()},
            "tenant": self.tenant,
            "text": self.text,
        }
        dumps(value, f"query {self.id!r:.80}")  # raises if it can't be stored
        return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class EvalSet:
    """A named set of queries. `left_out` counts what a loader could not use, by reason."""

    name: str
    queries: tuple[EvalQuery, ...]
    source: str | None = None
    licence: str | None = None
    kind: str = JUDGED
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_text(self.name, "the eval set's name", MAX_NAME_BYTES)
        if not self.queries:
            raise InvalidInput(f"eval set {self.name!r} has no queries; expected at least one")
        [(query_id, times)] = Counter(query.id for query in self.queries).most_common(1)
        if times > 1:
            raise InvalidInput(
                f"eval set {self.name!r} has {times} queries with the id {query_id!r:.80}; expected distinct ids"
            )

    @property
    def sha256(self) -> str:
        """SHA-256 of the canonical form: the queries as JSON lines with sorted keys, ordered by id (code points)."""
        digest = hashlib.sha256()
        for query in sorted(self.queries, key=lambda query: query.id):
            digest.update(query.canonical().encode() + b"\n")
        return digest.hexdigest()


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of a JSON lines file, with its place for error messages."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                where = f"{path.name}, line {number}"
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as exc:
                    raise InvalidInput(f"{where} is not JSON: {exc}") from exc
                if not isinstance(value, dict):
                    raise InvalidInput(f"{where} is {type(value).__name__}; expected an object")
                yield where, value
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidInput(f"{path} can't be read: {exc}") from exc


def _field(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # ids are numbers in some data sets
    if not isinstance(value, str):
        raise InvalidInput(f"{where}: {name!r} is {value!r:.60}; expected a string. The line has: {', '.join(row)}")
    return value


def _grade(value: str, where: str) -> float:
    try:
        grade = float(value)
    except ValueError:
        grade = np.nan
    if not np.isfinite(grade):
        raise InvalidInput(f"{where}: the grade is {value!r:.40}; expected a number")
    return grade


def _judgements(path: Path) -> dict[str, dict[str, float]]:
    """Query id → document id → grade, from a file with 3 columns (BEIR) or 4 (TREC), with or without a header."""
    judged: dict[str, dict[str, float]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            sample = file.readline()
            file.seek(0)
            rows = csv.reader(file, delimiter="\t") if "\t" in sample else (line.split() for line in file)
            for number, row in enumerate(rows, 1):
                where = f"{path.name}, line {number}"
                if not row:
                    continue
                if len(row) not in (3, 4):
                    raise InvalidInput(f"{where} has {len(row)} columns; expected query, document, grade")
                query_id, document_id, grade = row[0], row[-2], row[-1]
                if number == 1 and not re.fullmatch(r"[-+]?[0-9.]+", grade.strip()):
                    continue  # the header
                judged.setdefault(query_id, {})[document_id] = _grade(grade, where)
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise InvalidInput(f"{path} can't be read: {exc}") from exc
    return judged


def _qrels(folder: Path, split: str) -> Path:
    for path in (folder / "qrels" / f"{split}.tsv", folder / "qrels.tsv"):
        if path.is_file():
            return path
    raise InvalidInput(f"{folder} has neither qrels/{split}.tsv nor qrels.tsv; expected a folder in BEIR's format")


def beir(folder: str | Path, *, name: str | None = None, split: str = "test", licence: str | None = None) -> EvalSet:
    """Load a folder in BEIR's format: queries.jsonl, and qrels/<split>.tsv or qrels.tsv. `corpus` reads its documents.

    Queries without a relevant judgement are left out and counted, as in BEIR's own evaluation. `name` defaults to the
    folder's name.

    Raises:
        InvalidInput: A file can't be read; the message names the file and the line.
    """
    folder = Path(folder)
    judged = _judgements(_qrels(folder, split))
    queries, left_out, known = [], Counter[str](), set()
    for where, row in _lines(folder / "queries.jsonl"):
        query_id, text = _field(row, "_id", where), _field(row, "text", where)
        known.add(query_id)
        grades = judged.get(query_id, {})
        if any(grade > 0 for grade in grades.values()):
            queries.append(_query(where, query_id, text, grades))
        else:
            left_out["queries without a judgement"] += 1
    if unknown := len(judged.keys() - known):
        left_out["judgements of unknown queries"] = unknown
    if not queries:
        found = ", ".join(f"{count:,} {what}" for what, count in left_out.items()) or "neither queries nor judgements"
        raise InvalidInput(f"{folder} has no query with a relevant judgement: {found}. Check that the query ids agree")
    return EvalSet(name or folder.name, tuple(queries), str(folder.name), licence, left_out=dict(left_out))


def corpus(folder: str | Path) -> Iterator[Document]:
    """Read the documents of a BEIR folder's corpus.jsonl. `source` is the title; metadata has `title` and `text`.

    Raises:
        InvalidInput: A line can't be read, or its id occurred before; the message names the line.
    """
    seen: set[str] = set()
    for where, row in _lines(Path(folder) / "corpus.jsonl"):
        title = row.get("title") or None
        text, own = _field(row, "text", where), _field(row, "_id", where)
        if own in seen:
            raise InvalidInput(f"{where}: the id {own!r:.80} occurred before; expected distinct ids")
        seen.add(own)
        yield Document(own, source=title, metadata={"title": title, "text": text})


#: The default keys of a JSON line.
FIELDS = {"id": "id", "text": "text", "judged": "judged", "tenant": "tenant", "filters": "filters", "answer": "answer"}


def json_lines(
    path: str | Path,
    *,
    name: str | None = None,
    fields: Mapping[str, str] | None = None,
    source: str | None = None,
    licence: str | None = None,
) -> EvalSet:
    """Load a file with a question on each line: ``{"id", "text", "judged": id | [ids] | {id: grade}, "tenant"?, …}``.

    Args:
        path: The file.
        name: The name of the set. By default the name of the file without its suffix.
        fields: The keys of the file, if they differ: ``{"text": "question", "judged": "context_id"}``; by default the
            keys are id, text, judged, tenant, filters and answer.
        source: Where the questions are from. By default the name of the file.
        licence: The licence of the questions.

    Raises:
        InvalidInput: A line can't be read; the message names it.
    """
    path = Path(path)
    if unknown := set(fields or {}) - set(FIELDS):
        raise InvalidInput(f"fields has {', '.join(sorted(unknown))}; expected some of {', '.join(FIELDS)}")
    keys = FIELDS | dict(fields or {})
    queries = []
    for where, row in _lines(path):
        queries.append(
            _query(
                where,
                _field(row, keys["id"], where),
                _field(row, keys["text"], where),
                _graded(row.get(keys["judged"]), where),
                tenant=row.get(keys["tenant"]),
                filters=row.get(keys["filters"]),
                answer=row.get(keys["answer"]),
            )
        )
    return EvalSet(name or path.stem, tuple(queries), source or path.name, licence)


def _query(where: str, *args: Any, **kwargs: Any) -> EvalQuery:
    """Make a query; if it is invalid, the error names its line."""
    try:
        return EvalQuery(*args, **kwargs)
    except InvalidInput as exc:
        raise InvalidInput(f"{where}: {exc}") from exc


def _graded(value: Any, where: str) -> dict[str, float]:
    if isinstance(value, str | int) and not isinstance(value, bool):
        return {str(value): 1}
    if isinstance(value, list) and all(isinstance(i, str | int) and not isinstance(i, bool) for i in value):
        return {str(i): 1 for i in value}
    if isinstance(value, dict):
        return value
    raise InvalidInput(f"{where}: judged is {value!r:.60}; expected an id, a list of ids, or ids with their grades")


def from_ragas(dataset: Any, *, name: str, source: str | None = None, licence: str | None = None) -> EvalSet:
    """Convert a ragas ``EvaluationDataset`` of single-turn samples; `reference_context_ids` are the judgements.

    The id of a query is the position of its sample. Raises InvalidInput if a sample has no `reference_context_ids`.
    """
    queries = []
    for place, sample in enumerate(dataset):
        ids = getattr(sample, "reference_context_ids", None)
        if not getattr(sample, "user_input", None) or not ids:
            raise InvalidInput(
                f"sample {place} of the dataset has no user_input or no reference_context_ids; expected single-turn "
                "samples with both"
            )
        queries.append(
            EvalQuery(
                str(place),
                sample.user_input,
                {str(i): 1 for i in ids},
                answer=sample.reference,
                contexts=tuple(sample.reference_contexts or ()),
            )
        )
    return EvalSet(name, tuple(queries), source, licence)


_SENTENCE = re.compile(r"[^.!?\n]*[^.!?\s][^.!?\n]*[.!?]?")


def known_items(
    chunks: Iterable[Chunk],
    count: int = 100,
    *,
    name: str = "known-item",
    tenant: str | None = None,
    seed: int = 0,
    by_document: bool = False,
) -> EvalSet:
    """Make a set of chunks: for each of some random chunks, one of its sentences is the question.

    This is a heuristic, and labelled as one (``kind="known-item"``): it measures whether a text finds its own chunk,
    not whether questions find their answers. Use it to notice that something broke. The question is the longest
    sentence of the chunk except its first one, if there are several, cut to 200 characters.

    Args:
        chunks: The chunks to draw from.
        count: How many chunks to draw; by default 100.
        name: The name of the set; by default "known-item".
        tenant: The tenant of the queries.
        seed: The seed of the draw; by default 0.
        by_document: Judge the chunk's document, if it has one, as relevant instead of the chunk; by default False.

    Raises:
        InvalidInput: There are no chunks with text.
    """
    count = whole_number(count, "count", 1)
    held = sorted((c for c in chunks if c.text.strip()), key=lambda c: c.id)
    if not held:
        raise InvalidInput("no chunk has text; expected at least one to make a known-item set of")
    rng = np.random.default_rng(seed)
    queries = []
    for place in sorted(rng.choice(len(held), size=min(count, len(held)), replace=False)):
        chunk = held[place]
        wanted = chunk.doc_id if by_document and chunk.doc_id is not None else chunk.id
        queries.append(EvalQuery(chunk.id, _sentence(chunk.text), {wanted: 1}, tenant=tenant))
    return EvalSet(name, tuple(queries), "the collection's own chunks", kind=KNOWN_ITEM)


def _sentence(text: str) -> str:
    sentences: list[str] = [found for s in _SENTENCE.findall(text) if (found := s.strip())] or [text.strip()]
    inner = sentences[1:] or sentences
    return max((s[:200] for s in inner), key=len)
