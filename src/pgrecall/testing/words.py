"""Searching by words, and fusing it with a search by vector, without a database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from pgrecall.errors import InvalidInput
from pgrecall.hits import Fusion, ReciprocalRank

_PART = re.compile(r'(?P<minus>(?<!\S)-)?"(?P<phrase>[^"]*)"|(?<!\S)-(?P<without>[^\s"-][^\s"]*)|(?P<word>[^\s"]+)')


def best(text: str, rows: Iterable[tuple[str, str]]) -> dict[str, float]:
    """How many of the text's words and phrases each row has, by id; rows with none, or with an excluded one, are out.

    `rows` are ids and their texts. The best come first, ties by id. Raises InvalidInput.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"text is {type(text).__name__}; expected a string")
    wanted, unwanted = set[str](), set[str]()
    for part in _PART.finditer(text):
        if part["word"]:
            wanted |= {f" {word} " for word in _words(part["word"])}
        else:
            phrase = _spaced(part["phrase"] or part["without"] or "")
            (unwanted if part["minus"] or part["without"] else wanted).add(phrase)
    wanted.discard(_spaced(""))
    unwanted.discard(_spaced(""))
    scores = {}
    for row_id, said in rows:
        spaced = _spaced(said)
        count = sum(phrase in spaced for phrase in wanted)
        if count and not any(phrase in spaced for phrase in unwanted):
            scores[row_id] = float(count)
    return first(scores, len(scores))


def first(scores: Mapping[str, float], k: int) -> dict[str, float]:
    """The `k` best scores, best first, ties by id."""
    return {row_id: scores[row_id] for row_id in sorted(scores, key=lambda i: (-scores[i], i))[:k]}


def fused(dense: Mapping[str, float], sparse: Mapping[str, float], fusion: Fusion) -> dict[str, float]:
    """Scores of both searches' rows; each search's come best first."""
    scores = dict.fromkeys([*dense, *sparse], 0.0)
    for leg, share in ((dense, fusion.alpha), (sparse, 1 - fusion.alpha)):
        low, high = min(leg.values(), default=0), max(leg.values(), default=0)
        for rank, (row_id, score) in enumerate(leg.items(), 1):
            if isinstance(fusion, ReciprocalRank):
                scores[row_id] += share * 2 / (fusion.k + rank)
            else:
                scores[row_id] += share * ((score - low) / (high - low) if high > low else 1.0)
    return scores


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _spaced(text: str) -> str:
    return f" {' '.join(_words(text))} "
