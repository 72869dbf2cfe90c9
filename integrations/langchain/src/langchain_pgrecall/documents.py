"""LangChain's documents as the core's chunks, and back."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.documents import Document

from pgrecall import Chunk, Hit, InvalidInput


def from_hit(hit: Hit) -> Document:
    """What a search found."""
    return Document(id=hit.chunk_id, page_content=hit.text, metadata=hit.metadata)


def to_chunks(
    texts: Iterable[str],
    embeddings: Iterable[Sequence[float]] | None,
    metadatas: Iterable[dict[str, Any] | None] | None,
    ids: Iterable[str | None] | None,
) -> list[Chunk]:
    """One chunk for each text. Raises InvalidInput, a ValueError, where the lengths differ."""
    columns: dict[str, list[Any]] = {"texts": list(texts)}
    count = len(columns["texts"])
    for name, column in (("embeddings", embeddings), ("metadatas", metadatas), ("ids", ids)):
        values = [] if column is None else list(column)
        # None and, as in the base class, an empty list of metadatas or ids say nothing.
        columns[name] = [None] * count if column is None or (not values and name != "embeddings") else values
        if len(columns[name]) != count:
            raise InvalidInput(f"{name} has {len(columns[name])} elements for {count} texts; nothing was written")
    return [
        Chunk(str(uuid.uuid4()) if chunk_id is None else chunk_id, text, vector, metadata=metadata or {})
        for text, vector, metadata, chunk_id in zip(*columns.values(), strict=True)
    ]
