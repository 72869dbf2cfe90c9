"""A user's embedding model: called in the caller's mode, and known again by its fingerprint."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sized
from typing import Any, Protocol, TypeAlias

import numpy as np

from pgrecall import guards
from pgrecall.errors import InvalidEmbedding, InvalidInput
from pgrecall.operations import registry
from pgrecall.postgres.transactions import Gate
from pgrecall.types import EmbedModel, EmbedSpace, Vector


class Embedder:
    """An embedding model with a function for each mode, as frameworks' objects have them; callable as the first.

    Stores that share one embed the fingerprint's text once between them.
    """

    def __init__(self, embed: Callable[[list[str]], Any], aembed: Callable[[list[str]], Any] | None = None) -> None:
        self.embed = embed
        self.aembed = aembed or embed
        self._fingerprint: Vector | None = None

    def __call__(self, texts: list[str]) -> Any:
        """The texts' vectors, by the synchronous function."""
        return self.embed(texts)

    def fingerprint(self, gate: Gate) -> Vector:
        """The vector of the fingerprint's text; embedded at the first call."""
        if self._fingerprint is None:
            [vector] = call_embed(gate, self, [guards.FINGERPRINT_TEXT])
            self._fingerprint = guards.numbers(vector, "the embedding function's fingerprint").astype(np.float32)
        return self._fingerprint


#: From a list of texts to their vectors, or to an awaitable of them; or an Embedder.
Embed: TypeAlias = Callable[[list[str]], Any]


class Held(Protocol):
    """What the database says of vectors that it holds."""

    @property
    def space(self) -> EmbedSpace:
        """Their space."""
        ...

    @property
    def fingerprint(self) -> list[float] | None:
        """Their model's."""
        ...


class ModelInUse:
    """What makes a store's vectors: the space, as far as it is known, and the embedding function.

    A model whose dimensions are unknown, and one that could have changed under its name, embeds the fingerprint's
    text before its first use.
    """

    def __init__(self, space: EmbedSpace | EmbedModel | None, embed: Embed | None) -> None:
        self.given = space
        self.embedder = embed if isinstance(embed, Embedder) or embed is None else Embedder(embed)
        self.fingerprint: Vector | None = None
        self._space = space if isinstance(space, EmbedSpace) else None
        self._verified = embed is None
        if isinstance(space, EmbedModel) and embed is None:
            raise InvalidInput(
                f"the dimensions of {space} are not known, and there is no embedding function to ask; "
                "pass embed=, or an EmbedSpace"
            )

    @property
    def follows(self) -> bool:
        """Whether the space is whatever is held: that may change, when all of it is embedded anew."""
        return self.given is None

    def known_space(
        self, gate: Gate, what: str, find: Callable[[], Held | None], *, afresh: bool = False
    ) -> EmbedSpace | None:
        """The store's space; where none was given, the one that is held. The model's fingerprint is checked once.

        `what` names in errors what holds the vectors, "collection 'x'"; `find` looks it up. `afresh` looks up again
        what is held, where the store `follows`.
        Raises: EmbedSpaceMismatch, FingerprintMismatch, InvalidEmbedding.
        """
        again = afresh and self.follows
        known = None if again else self._space
        if known is not None and self._verified:
            return known
        held = find()
        space = self._named(gate, what, held) if known is None else known
        if space is not None and (again or not self._verified) and self.embedder is not None:
            self._verify(gate, what, space, held)
        self._space = space
        return space

    def _named(self, gate: Gate, what: str, held: Held | None) -> EmbedSpace | None:
        if not isinstance(self.given, EmbedModel):
            return None if held is None else held.space
        # Compared by name first: a model that is refused anyway need not be called.
        if held is not None and self.given.space(held.space.dim) != held.space:
            registry.refuse_space(what, held.space, self.given)
        assert self.embedder is not None
        return self.given.space(len(self.embedder.fingerprint(gate)))

    def _verify(self, gate: Gate, what: str, space: EmbedSpace, held: Held | None) -> None:
        assert self.embedder is not None
        if held is not None and held.space != space:
            registry.refuse_space(what, held.space, space)
        fingerprint = self.embedder.fingerprint(gate)
        guards.to_stored([fingerprint], space, ["the embedding function's fingerprint"])
        self.fingerprint = fingerprint
        if held is not None and held.fingerprint is not None:
            registry.check_fingerprint(what, space, held.fingerprint, fingerprint)
        # What has none yet gets it from a write: a reader with the wrong model must not stamp it. What is
        # yet to be made is looked at again by the next call.
        self._verified = held is not None


def call_embed(gate: Gate, embed: Embed, texts: list[str]) -> Any:
    """Call a sync or async embedding function in the caller's mode; one vector a text, or InvalidEmbedding."""
    if isinstance(embed, Embedder):
        embed = embed.aembed if gate.is_async else embed.embed
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
