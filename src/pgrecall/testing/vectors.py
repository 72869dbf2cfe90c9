"""A vector store in plain Python and numpy: the contract's second implementation, and nothing more."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pgrecall import (
    Chunk,
    ConfigurationError,
    DeleteReport,
    Document,
    EmbedSpaceMismatch,
    Hit,
    InvalidEmbedding,
    InvalidInput,
    NotFound,
    ReciprocalRank,
    Weighted,
    guards,
)
from pgrecall.arguments import MAX_ID_BYTES, check_text, whole_number
from pgrecall.jsonable import dumps
from pgrecall.operations.chunks.reads import refuse_everything
from pgrecall.operations.search.shapes import similarity
from pgrecall.statements.reads import Where
from pgrecall.statements.words import words
from pgrecall.testing.filters import matches
from pgrecall.types import EmbedSpace, UpsertResult


@dataclass
class Held:
    """What one collection holds; replaced whole, so that a call that fails leaves nothing."""

    space: EmbedSpace
    documents: dict[str, Document] = field(default_factory=dict)
    chunks: dict[str, Chunk] = field(default_factory=dict)  # without their embeddings
    vectors: dict[str, Any] = field(default_factory=dict)  # as stored: half precision
    text_config: str | None = None

    def copy(self) -> Held:
        return Held(self.space, dict(self.documents), dict(self.chunks), dict(self.vectors), self.text_config)


def twin(method: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    @functools.wraps(method)
    async def acall(self, *args, **kwargs):
        return method(self, *args, **kwargs)

    return acall


class MemoryVectorStore:
    """One collection of one tenant; `shelves` is what all stores of one "database" share."""

    def __init__(self, shelves: dict[tuple[str, str], Held], tenant, collection, space, text_config=None):
        self._shelves, self._key, self._space, self._text_config = shelves, (tenant, collection), space, text_config

    def upsert(self, chunks, *, documents=()):
        return self._put(_all_of(chunks, Chunk), _all_of(documents, Document), None)

    def replace_document(self, document, chunks):
        owned = _all_of(chunks, Chunk)
        for chunk in owned:
            if chunk.doc_id not in (None, document.id):
                raise InvalidInput(f"chunk {chunk.id!r} names document {chunk.doc_id!r}, not {document.id!r}")
        return self._put([replace(c, doc_id=document.id) for c in owned], [document], document.id)

    def _put(self, given, documents, replaces):
        held = self._held().copy()
        self._same_space(held)
        for document in documents:
            held.documents[check_text(document.id, "id", MAX_ID_BYTES)] = _stored_document(document)
        distinct = {check_text(c.id, "id", MAX_ID_BYTES): c for c in given}
        names = {i: f"chunk {i!r}" for i in distinct}
        vectors = [c for c in distinct.values() if c.embedding is not None]
        stored = (
            guards.to_stored([c.embedding for c in vectors], self._space, [names[c.id] for c in vectors])
            if vectors
            else None
        )
        new = {c.id: stored.vectors[n] for n, c in enumerate(vectors)}
        changed = set()
        for chunk_id, chunk in distinct.items():
            clean, before = _stored_chunk(chunk, names[chunk_id]), held.chunks.get(chunk_id)
            kept = held.vectors.get(chunk_id) if before is not None and before.text == clean.text else None
            vector = new.get(chunk_id, kept)
            if vector is None:
                raise InvalidEmbedding(f"{names[chunk_id]} has no embedding, and none is stored for the same text")
            if clean != before or not np.array_equal(vector, held.vectors[chunk_id]):
                changed.add(chunk_id)
            held.chunks[chunk_id], held.vectors[chunk_id] = clean, vector
            if clean.doc_id is not None:
                held.documents.setdefault(clean.doc_id, Document(clean.doc_id))
        held.text_config = held.text_config if self._key in self._shelves else self._text_config
        stale = [
            i for i, c in held.chunks.items() if replaces is not None and c.doc_id == replaces and i not in distinct
        ]
        _remove(held, stale)
        self._shelves[self._key] = held
        return UpsertResult([c.id for c in given], len(changed), len(distinct) - len(changed), 0, len(stale))

    def query(
        self,
        vector=None,
        top_k=10,
        filters=None,
        *,
        text=None,
        mode=None,
        fusion=None,
        fetch_k=None,
        sparse_k=None,
        ids=None,
        doc_ids=None,
    ):
        whole_number(top_k, "top_k", 1)
        mode = mode or ("dense" if text is None else "sparse" if vector is None else "hybrid")
        for needs, given in (("vector", vector), ("text", text)):
            if given is None and mode in ("hybrid", "dense" if needs == "vector" else "sparse"):
                raise InvalidInput(f"no {needs} was given, which mode {mode!r} needs")
        held = self._held()
        self._same_space(held)
        if mode != "dense" and self._key in self._shelves and held.text_config is None:
            raise ConfigurationError(f"collection {self._key[1]!r} keeps no full text")
        chunks = self._matching(filters, ids, doc_ids)
        depth = whole_number(fetch_k or max(50, 2 * top_k), "fetch_k", 1)
        apart = {} if mode == "sparse" else self._nearest(held, vector, chunks, depth if mode == "hybrid" else top_k)
        sparse_depth = whole_number(sparse_k or depth, "sparse_k", 1)
        said = {} if mode == "dense" else best_said(text, chunks, sparse_depth if mode == "hybrid" else top_k)
        alike = {i: similarity(d, self._space.distance) for i, d in apart.items()}
        scores = {"dense": alike, "sparse": said}.get(mode) or fused(alike, said, fusion or Weighted())
        ranks = [{i: n for n, i in enumerate(leg, 1)} for leg in (apart, said)]
        hits = []
        for chunk_id in sorted(scores, key=lambda i: (-scores[i], i))[:top_k]:
            copy = _copy(held.chunks[chunk_id])
            source = held.documents.get(copy.doc_id, Document("-"))
            known = (copy.text, copy.metadata, copy.doc_id, copy.index, source.source, source.uri, copy.payload)
            places = (ranks[0].get(chunk_id), ranks[1].get(chunk_id), said.get(chunk_id))
            hits.append(Hit(chunk_id, scores[chunk_id], apart.get(chunk_id), *known, *places))
        return hits

    def _nearest(self, held, vector, chunks, k):
        wanted = guards.to_stored([vector], self._space, ["the query"]).vectors[0].astype(float)
        found = [(self._distance(held.vectors[c.id].astype(float), wanted), c.id) for c in chunks]
        return {chunk_id: distance for distance, chunk_id in sorted(found)[:k]}

    def _distance(self, one, other):
        if self._space.distance == "l2":
            return float(np.linalg.norm(one - other))
        product = float(one @ other)
        return (
            -product
            if self._space.distance == "ip"
            else 1 - product / float(np.linalg.norm(one) * np.linalg.norm(other))
        )

    def get(self, ids, *, with_embeddings=False):
        found = {c.id: c for c in self._matching(None, ids, None)}
        return [self._out(found[i], with_embeddings) for i in ids if i in found]

    def documents(self, ids=None, *, limit=100, offset=0):
        held = self._held().documents
        chosen = sorted(held if ids is None else set(ids) & set(held))
        return [_stored_document(held[i]) for i in _page(chosen, limit, offset)]

    def count(self, filters=None, *, doc_ids=None):
        return len(self._matching(filters, None, doc_ids))

    def set_metadata(self, metadata, *, ids=None, filters=None, doc_ids=None, replace=False):
        refuse_everything(Where.of(filters, by_ids=ids is not None, by_documents=doc_ids is not None))
        new = json.loads(dumps(dict(metadata), "the metadata"))
        held, changed = self._held().copy(), 0
        for chunk in self._matching(filters, ids, doc_ids):
            after = dict(new) if replace else {**chunk.metadata, **new}
            changed += after != chunk.metadata
            held.chunks[chunk.id] = Chunk(chunk.id, chunk.text, None, chunk.doc_id, chunk.index, after, chunk.payload)
        if changed:
            self._shelves[self._key] = held
        return changed

    def delete(self, ids=None, *, filters=None):
        refuse_everything(Where.of(filters, by_ids=ids is not None))
        return self._delete(self._matching(filters, ids, None), [])

    def delete_by_doc_id(self, doc_id):
        return self._delete(self._matching(None, None, [doc_id]), [doc_id] if doc_id in self._held().documents else [])

    def _delete(self, chunks, documents):
        held = self._held().copy()
        _remove(held, [c.id for c in chunks])
        for document in documents:
            del held.documents[document]
        if self._key in self._shelves:
            self._shelves[self._key] = held
        return DeleteReport(len(chunks), len(chunks), len(documents))

    def drop(self):
        if self._key not in self._shelves:
            raise NotFound(f"collection {self._key[1]!r} does not exist")
        held = self._shelves.pop(self._key)
        return DeleteReport(len(held.vectors), len(held.chunks), len(held.documents), collections=1)

    def clear(self):
        held = self._held()
        if self._key in self._shelves:
            self._shelves[self._key] = Held(held.space)
        return DeleteReport(len(held.vectors), len(held.chunks), len(held.documents))

    def _held(self) -> Held:
        return self._shelves.get(self._key) or Held(self._space)

    def _same_space(self, held):
        if held.space != self._space:
            raise EmbedSpaceMismatch(
                f"collection {self._key[1]!r} holds vectors of {held.space}, but these are of {self._space}"
            )

    def _matching(self, filters, ids, doc_ids):
        for one in (ids, doc_ids):
            if isinstance(one, str):
                raise InvalidInput(f"found the string {one!r}; expected a list of ids")
        return [
            chunk
            for _, chunk in sorted(self._held().chunks.items())
            if (ids is None or chunk.id in ids)
            and (doc_ids is None or chunk.doc_id in doc_ids)
            and (filters is None or matches(filters, chunk.metadata))
        ]

    def _out(self, chunk, with_embeddings):
        vector = self._held().vectors[chunk.id].astype(np.float32).tolist()
        return replace(_copy(chunk), embedding=vector if with_embeddings else None)

    def list(self, filters=None, *, limit=100, offset=0, ids=None, doc_ids=None, with_embeddings=False):
        return [self._out(c, with_embeddings) for c in _page(self._matching(filters, ids, doc_ids), limit, offset)]

    aupsert, areplace_document, aquery, aget = twin(upsert), twin(replace_document), twin(query), twin(get)
    adocuments, acount, aset_metadata = twin(documents), twin(count), twin(set_metadata)
    adelete, adelete_by_doc_id, adrop = twin(delete), twin(delete_by_doc_id), twin(drop)
    aclear = twin(clear)
    alist = twin(list)  # noqa: A003 -- the method above, not the type


def best_said(text, chunks, k):
    """The chunks with the most of the words: their scores, best first."""
    parts = words(text)
    wanted = [*({*re.findall(r"\w+", parts["words"].lower())}), *parts["phrases"]]
    scores = {}
    for chunk in chunks:
        has = functools.partial(_says, chunk.text)
        if (count := sum(map(has, wanted))) and not any(map(has, parts["without"])):
            scores[chunk.id] = float(count)
    return {i: scores[i] for i in sorted(scores, key=lambda i: (-scores[i], i))[:k]}


def _says(text, phrase):
    has, wanted = (" ".join(re.findall(r"\w+", part.lower())) for part in (text, phrase))
    return bool(wanted) and f" {wanted} " in f" {has} "


def fused(dense, sparse, fusion):
    """Scores of both legs' chunks; each leg comes best first."""
    scores = dict.fromkeys([*dense, *sparse], 0.0)
    for leg, share in ((dense, fusion.alpha), (sparse, 1 - fusion.alpha)):
        low, high = min(leg.values(), default=0), max(leg.values(), default=0)
        for place, (chunk_id, score) in enumerate(leg.items(), 1):
            if isinstance(fusion, ReciprocalRank):
                scores[chunk_id] += share * 2 / (fusion.k + place)
            else:
                scores[chunk_id] += share * ((score - low) / (high - low) if high > low else 1.0)
    return scores


def _all_of(values, kind):
    values = list(values)
    if any(not isinstance(v, kind) for v in values):
        raise InvalidInput(f"expected pgrecall.{kind.__name__}")
    return values


def _page(values, limit, offset):
    return values[whole_number(offset, "offset", 0) :][: whole_number(limit, "limit", 0)]


def _remove(held, ids):
    for chunk_id in ids:
        del held.chunks[chunk_id], held.vectors[chunk_id]


def _stored_chunk(chunk, name):
    if not isinstance(chunk.text, str) or "\0" in chunk.text:
        raise InvalidInput(f"the text of {name} is no string that can be stored")
    metadata = json.loads(dumps(chunk.metadata, f"the metadata of {name}"))
    payload = json.loads(dumps(chunk.payload, f"the payload of {name}"))
    return Chunk(chunk.id, chunk.text, None, chunk.doc_id, chunk.index, metadata, payload)


def _copy(chunk):
    return _stored_chunk(chunk, chunk.id)


def _stored_document(document):
    return replace(document, metadata=json.loads(dumps(document.metadata, f"the metadata of {document.id!r}")))
