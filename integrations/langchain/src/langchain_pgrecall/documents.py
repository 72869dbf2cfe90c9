"""LangChain's documents as the core's chunks, and back."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.documents import Document

from pgrecall import Chunk, Hit, InvalidInput


def from_hit(hit: Hit) -> Document:
    """What a search found."""
    return Document(id=hit.chunk_id, page_content=hit.text, metadata=hit.metadata)


def of_documents(documents: Iterable[Document], ids: Iterable[str | None] | None) -> list[Chunk]:
    """A chunk for each document, under `ids` or the documents' own. Raises InvalidInput."""
    given = _listed("documents", documents)
    for document in given:
        if not isinstance(document, Document):
            raise InvalidInput(f"found {type(document).__name__} {document!r:.60}; expected a list of Documents")
    ids = [document.id for document in given] if ids is None else ids
    return to_chunks([d.page_content for d in given], None, [d.metadata for d in given], ids)


def to_chunks(
    texts: Iterable[str],
    embeddings: Iterable[Sequence[float]] | None,
    metadatas: Iterable[dict[str, Any] | None] | None,
    ids: Iterable[str | None] | None,
) -> list[Chunk]:
    """One chunk for each text. Raises InvalidInput, a ValueError, where the lengths differ."""
    columns: dict[str, list[Any]] = {"texts": _listed("texts", texts)}
    count = len(columns["texts"])
    for name, column in (("embeddings", embeddings), ("metadatas", metadatas), ("ids", ids)):
        values = [] if column is None else _listed(name, column)
        # None and, as in the base class, an empty list of metadatas or ids say nothing.
        columns[name] = [None] * count if column is None or (not values and name != "embeddings") else values
        if len(columns[name]) != count:
            raise InvalidInput(f"{name} has {len(columns[name])} elements for {count} texts; nothing was written")
    return [
        Chunk(str(uuid.uuid4()) if chunk_id is None else chunk_id, text, vector, metadata=metadata or {})
        for text, vector, metadata, chunk_id in zip(*columns.values(), strict=True)
    ]


def _listed(name: str, given: Iterable[Any]) -> list[Any]:
    # A text is an iterable of texts to Python: its letters would be stored, one document each.
    if isinstance(given, str | bytes | Mapping | Document):
        raise InvalidInput(f"{name} is {type(given).__name__} {given!r:.60}; expected a list, one element each")
    return list(given)
