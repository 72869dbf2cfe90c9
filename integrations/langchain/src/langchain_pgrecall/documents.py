"""LangChain's documents as the core's chunks, and back."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.documents import Document

from pgrecall import Chunk, Hit, InvalidInput


def from_hit(hit: Hit) -> Document:
    """Convert a search result."""
    return Document(id=hit.chunk_id, page_content=hit.text, metadata=hit.metadata)


def of_documents(documents: Iterable[Document], ids: Iterable[str | None] | None) -> list[Chunk]:
    """Return a chunk for each document, with `ids` or the documents' own. Raises InvalidInput."""
    given = _listed("documents", documents)
    for document in given:
        if not isinstance(document, Document):
            raise InvalidInput(
                f"found {type(document).__name__} {document!r:.60} among the documents; expected a list of Document"
            )
    ids = [document.id for document in given] if ids is None else ids
    return to_chunks([d.page_content for d in given], None, [d.metadata for d in given], ids)


def to_chunks(
    texts: Iterable[str],
    embeddings: Iterable[Sequence[float]] | None,
    metadatas: Iterable[dict[str, Any] | None] | None,
    ids: Iterable[str | None] | None,
) -> list[Chunk]:
    """Return a chunk for each text. Raises InvalidInput, a ValueError, if the lengths differ."""
    columns: dict[str, list[Any]] = {"texts": _listed("texts", texts)}
    count = len(columns["texts"])
    for name, column in (("embeddings", embeddings), ("metadatas", metadatas), ("ids", ids)):
        values = [] if column is None else _listed(name, column)
        # None means none and, as in the base class, so does an empty list of metadatas or ids.
        columns[name] = [None] * count if column is None or (not values and name != "embeddings") else values
        if len(columns[name]) != count:
            raise InvalidInput(
                f"{name} has {len(columns[name])} elements, expected {count}, one per text; nothing was written"
            )
    return [
        Chunk(str(uuid.uuid4()) if chunk_id is None else chunk_id, text, vector, metadata=metadata or {})
        for text, vector, metadata, chunk_id in zip(*columns.values(), strict=True)
    ]


def _listed(name: str, given: Iterable[Any]) -> list[Any]:
    # A string is an iterable of strings too: each of its letters would be stored as a document.
    if isinstance(given, str | bytes | Mapping | Document):
        raise InvalidInput(f"{name} is {type(given).__name__} {given!r:.60}; expected a list")
    return list(given)
