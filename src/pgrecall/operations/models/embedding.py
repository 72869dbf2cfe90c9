"""A user's embedding model: called synchronously or asynchronously, and recognized by its fingerprint."""

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
    """An embedding model with a synchronous and an asynchronous function, as frameworks define them.

    If `aembed` is omitted, asynchronous calls use `embed`. Stores that share an Embedder embed the fingerprint's text
    only once.
    """

    def __init__(self, embed: Callable[[list[str]], Any], aembed: Callable[[list[str]], Any] | None = None) -> None:
        self.embed = embed
        self.aembed = aembed or embed
        self._fingerprint: Vector | None = None

    def __call__(self, texts: list[str]) -> Any:
        """Embed texts with the synchronous function."""
        return self.embed(texts)

    def fingerprint(self, gate: Gate) -> Vector:
        """The vector of the fingerprint's text, embedded on the first call."""
        if self._fingerprint is None:
            [vector] = call_embed(gate, self, [guards.FINGERPRINT_TEXT])
            self._fingerprint = guards.numbers(vector, "the embedding function's fingerprint").astype(np.float32)
        return self._fingerprint


#: A function from a list of texts to their vectors, or to an awaitable of them; or an Embedder.
Embed: TypeAlias = Callable[[list[str]], Any]


class Held(Protocol):
    """Stored vectors: their space and their model's fingerprint."""

    @property
    def space(self) -> EmbedSpace:
        """The space of the vectors."""
        ...

    @property
    def fingerprint(self) -> list[float] | None:
        """The fingerprint of the model that made the vectors, if known."""
        ...


class ModelInUse:
    """A store's space, if known, and its embedding function.

    Before its first use, the function embeds the fingerprint's text: this shows the number of dimensions, and whether
    the model has changed under the same name.
    """

    def __init__(self, space: EmbedSpace | EmbedModel | None, embed: Embed | None) -> None:
        self.given = space
        self.embedder = embed if isinstance(embed, Embedder) or embed is None else Embedder(embed)
        self.fingerprint: Vector | None = None
        self._space = space if isinstance(space, EmbedSpace) else None
        self._verified = embed is None
        if isinstance(space, EmbedModel) and embed is None:
            raise InvalidInput(
                f"the number of dimensions of {space} is unknown, and there is no embedding function to determine it; "
                "pass embed=, or an EmbedSpace instead of an EmbedModel"
            )

    @property
    def follows(self) -> bool:
        """Whether the space is that of the stored vectors, which changes when they are re-embedded."""
        return self.given is None

    def known_space(
        self, gate: Gate, what: str, find: Callable[[], Held | None], *, reload: bool = False
    ) -> EmbedSpace | None:
        """The store's space, or that of the stored vectors if the store has none. Checks the fingerprint once.

        `what` names what holds the vectors in errors, for example "collection 'x'"; `find` looks it up. `reload` looks
        it up again if the store `follows` it.

        Raises: EmbedSpaceMismatch, FingerprintMismatch, InvalidEmbedding.
        """
        again = reload and self.follows
        known = None if again else self._space
        if known is not None and self._verified:
            return known
        held = find()
        space = self._named(gate, what, held) if known is None else known
        if space is not None and (again or not self._verified) and self.embedder is not None:
            self._verify(gate, what, space, held)
        self._space = space
        return space

    def collection_space(self, gate: Gate, place: registry.Place, *, reload: bool = False) -> EmbedSpace | None:
        """`known_space` of a collection; None if it does not exist and no space was given."""
        return self.known_space(
            gate,
            f"collection {place.collection!r}",
            lambda: registry.find_collection(gate, place),
            reload=reload,
        )

    def _named(self, gate: Gate, what: str, held: Held | None) -> EmbedSpace | None:
        if not isinstance(self.given, EmbedModel):
            return None if held is None else held.space
        # Names are compared first, so that a model that does not match is not called.
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
        # A missing fingerprint is stored by a write only, because a reader may have the wrong model. If nothing is
        # stored yet, the next call checks again.
        self._verified = held is not None


def call_embed(gate: Gate, embed: Embed, texts: list[str]) -> Any:
    """Call an embedding function; returns one vector for each text.

    An asynchronous function requires an asynchronous caller. Raises: InvalidInput, InvalidEmbedding.
    """
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
                "the embedding function is asynchronous, but the call is not; call the store's a… methods, or pass a "
                "synchronous function"
            )
        vectors = gate.wait(vectors)
    if not isinstance(vectors, Sized):
        raise InvalidEmbedding(
            f"the embedding function returned {type(vectors).__name__}; "
            f"expected a list of vectors, one for each of {len(texts)} texts"
        )
    if len(vectors) != len(texts):
        raise InvalidEmbedding(
            f"the embedding function returned {len(vectors)} vectors for {len(texts)} texts; expected one for each. "
            "Nothing was written"
        )
    return vectors
