"""Validates chunks and documents and converts them to column arrays, ready to send. Does no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pgrecall import guards
from pgrecall.arguments import MAX_ID_BYTES, OnNul, check_text, id_list, storable_text
from pgrecall.errors import InvalidInput
from pgrecall.jsonable import json_object
from pgrecall.postgres import wire
from pgrecall.types import Chunk, Document, EmbedSpace, StoredChunk

#: Largest chunk_index: an int4 in Postgres.
MAX_INDEX = 2**31 - 1


def text_hash(text: str) -> bytes:
    """SHA-256 of a chunk's text: the schema's `content_hash`, equal to ``sha256(convert_to(text, 'UTF8'))``."""
    return hashlib.sha256(text.encode()).digest()


def id_array(ids: object, what: str) -> wire.Binary:
    """Ids as a text[] parameter. Raises InvalidInput."""
    return wire.text_array(id_list(ids, what))


def _optional(text: object, what: str, on_nul: OnNul) -> str | None:
    return None if text is None else storable_text(text, what, on_nul)


@dataclass(slots=True)
class ChunkRows:
    """A batch of distinct chunks, sorted by id, as column arrays."""

    ids: list[str]
    doc_ids: list[str | None]
    values: dict[str, Any]
    hashes: list[bytes]
    with_vector: list[str]
    vectors: dict[str, Any]


def pack(chunks: Sequence[Chunk], space: EmbedSpace, halfvec_oid: int, on_nul: OnNul) -> ChunkRows:
    """Validate chunks (distinct, sorted by id) and convert them to column arrays.

    Raises: InvalidInput, InvalidEmbedding. The message names the chunk.
    """
    ids = [c.id for c in chunks]
    names = [f"chunk {i!r:.80}" for i in ids]
    texts, metadata, payloads, doc_ids, hashes = [], [], [], [], []
    for chunk, name in zip(chunks, names, strict=True):
        text = storable_text(chunk.text, f"the text of {name}", on_nul)
        texts.append(text)
        hashes.append(text_hash(text))
        metadata.append(json_object(chunk.metadata, f"the metadata of {name}", on_nul))
        payloads.append(None if chunk.payload is None else json_object(chunk.payload, f"the payload of {name}", on_nul))
        doc_ids.append(
            None if chunk.doc_id is None else check_text(chunk.doc_id, f"the doc_id of {name}", MAX_ID_BYTES)
        )
        index = chunk.index
        if index is not None and (
            isinstance(index, bool) or not isinstance(index, int | np.integer) or abs(index) > MAX_INDEX
        ):
            raise InvalidInput(f"the index of {name} is {index!r:.40}; expected a whole number within ±{MAX_INDEX:,}")
    given = [(c.embedding, c.id, n) for c, n in zip(chunks, names, strict=True) if c.embedding is not None]
    vectors: dict[str, Any] = {}
    if given:
        stored = guards.to_stored([g[0] for g in given], space, [g[2] for g in given])
        for at, chunk in enumerate(c for c in chunks if c.embedding is not None):
            if isinstance(chunk, StoredChunk) and chunk.norm is not None:
                stored.norms[at] = chunk.norm
        vectors = {
            "ids": wire.text_array([g[1] for g in given]),
            "norms": wire.float4_array(stored.norms),
            "embeddings": wire.halfvec_array(stored.vectors, halfvec_oid),
        }
    values = {
        "ids": wire.text_array(ids),
        "doc_ids": wire.text_array(doc_ids),
        "indexes": wire.int4_array([c.index for c in chunks]),
        "texts": wire.text_array(texts),
        "hashes": wire.bytea_array(hashes),
        "metadata": wire.jsonb_array(metadata),
        "payloads": wire.jsonb_array(payloads),
    }
    return ChunkRows(ids, doc_ids, values, hashes, [g[1] for g in given], vectors)


def last_wins(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Distinct chunks in lock order (by id). If an id occurs twice, the later chunk wins. Raises InvalidInput."""
    for chunk in chunks:
        if not isinstance(chunk, Chunk):
            raise InvalidInput(f"a chunk is {type(chunk).__name__}; expected pgrecall.Chunk")
        check_text(chunk.id, "a chunk's id", MAX_ID_BYTES)
    distinct = {c.id: c for c in chunks}
    return [distinct[i] for i in sorted(distinct)]


def distinct_documents(documents: Iterable[Document]) -> list[Document]:
    """Distinct documents in lock order (by id). If an id occurs twice, the later one wins. Raises InvalidInput."""
    distinct: dict[str, Document] = {}
    for document in documents:
        if not isinstance(document, Document):
            raise InvalidInput(f"a document is {type(document).__name__}; expected pgrecall.Document")
        distinct[check_text(document.id, "a document's id", MAX_ID_BYTES)] = document
    return [distinct[i] for i in sorted(distinct)]


def pack_documents(documents: Sequence[Document], on_nul: OnNul) -> dict[str, Any]:
    """Distinct documents, sorted by id, as column arrays. Raises InvalidInput; the message names the document."""
    both = [(d, f"of document {d.id!r:.80}") for d in documents]
    return {
        "ids": wire.text_array([d.id for d in documents]),
        "sources": wire.text_array([_optional(d.source, f"the source {w}", on_nul) for d, w in both]),
        "uris": wire.text_array([_optional(d.uri, f"the uri {w}", on_nul) for d, w in both]),
        "hashes": wire.text_array([_optional(d.content_hash, f"the content_hash {w}", on_nul) for d, w in both]),
        "metadata": wire.jsonb_array([json_object(d.metadata, f"the metadata {w}", on_nul) for d, w in both]),
    }
