"""Every statement that pgrecall runs on tenants' tables, by name: the texts, and those that are composed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from pgrecall import F
from pgrecall.filters.keys import Key, lookup
from pgrecall.schema import ACTORS, DUE, SUBJECTS
from pgrecall.statements import (
    chat,
    deletes,
    docstore,
    erasure,
    evaluation,
    fact_reads,
    facts,
    fulltext,
    graphs,
    keys,
    reads,
    records,
    reembedding,
    registry,
    runs,
    search,
    tombstones,
    writes,
)
from pgrecall.statements.reads import Where
from pgrecall.statements.search import Form, Graph

MODULES = (
    chat, deletes, docstore, erasure, evaluation, fact_reads, facts, fulltext, graphs, keys, reads, records,
    reembedding, registry, runs, tombstones, writes,
)  # fmt: skip
#: Texts that are parts of statements, or no SQL at all.
PARTS = {
    "erasure.SCHEMA", "erasure.TRAIL", "facts.IDENTITIES", "facts.SAME", "facts.VERSIONS", "keys.VALUES",
    "tombstones.SUBJECT_NOT_ERASED", "runs.SUBJECT_NOT_ERASED",
}  # fmt: skip

FORMS = [
    *(Form(distance) for distance in ("cosine", "l2", "ip")),
    Form("cosine", graph=Graph(3, 8, 2), with_vectors=True),
    Form("cosine", "sparse", counts=True),
    Form("l2", "hybrid", fusion="reciprocal", with_vectors=True),
    Form("ip", "hybrid", graph=Graph(3, 8, 2)),
]


def _named(value: object) -> list[tuple[str, object]]:
    """A constant's texts, each with what to add to the constant's name."""
    if isinstance(value, dict):
        return [(f".{key}", text) for key, text in value.items()]
    if isinstance(value, tuple):
        return [(f".{number}", text) for number, text in enumerate(value)]
    return [("", value)]


def texts() -> Iterator[tuple[str, str]]:
    for module in MODULES:
        short = module.__name__.rpartition(".")[2]
        for name, value in vars(module).items():
            if name.isupper() and not name.startswith("_") and f"{short}.{name}" not in PARTS:
                # A statement is more than a word: other constants are names of columns, or operators.
                yield from ((f"{short}.{name}{key}", t) for key, t in _named(value) if isinstance(t, str) and " " in t)
    filters = (None, F.lang == "de", (F.n > 3) & ~(F.tags.any(["a"]) | F.meta.exists()))
    wheres = [
        Where.of(tree, by_ids=ids, by_documents=documents, but_ids=ids and but)
        for tree, ids, documents, but in product(filters, *[(False, True)] * 3)
    ]
    known = [Key(1, ("lang",), "text"), Key(2, ("n",), "number"), Key(3, ("tags",), "text")]
    for tree in (F.lang == "de", (F.n > 3) & (F.lang == "de") & (F.n <= 9), F.tags.any(["a"]) | (F.n == 1)):
        found = lookup(tree, known)
        wheres.append(replace(Where.of(tree), keys=found.form, by_keys_alone=found.whole))
    for number, where in enumerate(wheres):
        for form in FORMS:
            yield f"search {form} {number}", search.search(form, where)
        for one, two in product((False, True), repeat=2):
            yield f"listing {one} {two} {number}", reads.listing(where, with_vectors=one, page=two)
        yield f"count {number}", reads.count(where)
        yield f"delete {number}", reads.delete(where)
        yield from ((f"retag {r} {number}", reads.retag(where, replace=r)) for r in (False, True))
    yield from erasures()
    yield from composed_fact_reads()


def erasures() -> Iterator[tuple[str, str]]:
    for name in erasure.TENANTS_OWN:
        yield f"delete all {name}", erasure.delete(name, subject=False)
        yield f"count all {name}", erasure.count(name, subject=False)
    for name in erasure.SUBJECTS_OWN:
        yield f"delete of subject {name}", erasure.delete(name, subject=True)
        yield f"count of subject {name}", erasure.count(name, subject=True)
    yield from ((f"nobody's {name}", erasure.count_without_subject(name)) for name in SUBJECTS)
    yield from ((f"actor {name}", erasure.rename_actor(name)) for name in ACTORS)
    for name, first in product(erasure.EXPORTED, (False, True)):
        yield f"export {name} {first}", erasure.export(name, first=first)
    for name, columns in DUE.items():
        for column in columns:
            yield f"due {name}.{column}", erasure.tenants_due(name, column)
            yield f"count due {name}.{column}", erasure.count_due(name, column)
            yield f"sweep {name}.{column}", erasure.sweep(name, column)


def composed_fact_reads() -> Iterator[tuple[str, str]]:
    names = ("by_subject", "by_kinds", "by_key", "by_namespace", "as_of")
    for tree, by in product((None, F.lang == "de"), product((False, True), repeat=5)):
        which = fact_reads.Facts.of(tree, **dict(zip(names, by, strict=True)))
        yield f"facts {tree} {by}", fact_reads.listing(which, "confidence")
        for distance in ("cosine", "l2", "ip"):
            yield (
                f"facts by both {distance} {tree} {by}",
                fact_reads.relevant(which, "relevance", words=True, distance=distance),
            )
        yield f"facts by words {tree} {by}", fact_reads.relevant(which, "recency", words=True, distance=None)


#: By name.
STATEMENTS = dict(texts())
