"""Calling a user's embedding function, synchronous or asynchronous, in the caller's mode."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sized
from typing import Any, TypeAlias

from pgrecall.errors import InvalidEmbedding, InvalidInput
from pgrecall.tenancy import Gate

#: From a list of texts to their vectors, or to an awaitable of them.
Embed: TypeAlias = Callable[[list[str]], Any]


def call_embed(gate: Gate, embed: Embed, texts: list[str]) -> Any:
    """Call a sync or async embedding function in the caller's mode; one vector a text, or InvalidEmbedding."""
    if not callable(embed):
        raise InvalidInput(
            f"embed is {type(embed).__name__}; expected a function from a list of texts to their vectors"
        )
    vectors = embed(texts)
    if inspect.isawaitable(vectors):
        if not gate.is_async:
            if inspect.iscoroutine(vectors):
                vectors.close()
            raise InvalidInput(
                "the embedding function is asynchronous; call the store's a… methods, or give a synchronous one"
            )
        vectors = gate.wait(vectors)
    if not isinstance(vectors, Sized):
        raise InvalidEmbedding(
            f"the embedding function returned {type(vectors).__name__}; "
            f"expected one vector for each of {len(texts)} texts"
        )
    if len(vectors) != len(texts):
        raise InvalidEmbedding(
            f"the embedding function returned {len(vectors)} vectors for {len(texts)} texts; nothing was written"
        )
    return vectors
