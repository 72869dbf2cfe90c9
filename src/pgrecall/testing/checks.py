"""Checks of arguments, and the async twin of a verb."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from pgrecall import arguments, jsonable
from pgrecall.errors import InvalidInput
from pgrecall.facts import FactKey
from pgrecall.types import EmbedSpace, Vector

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


def twin(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """An asynchronous method that does what `method` does."""

    @functools.wraps(method)
    async def acall(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return method(self, *args, **kwargs)

    acall.__name__ = f"a{method.__name__}"
    return acall


def page(values: Sequence[T], limit: int, offset: int) -> Sequence[T]:
    """One page of `values`. Raises InvalidInput."""
    return values[arguments.whole_number(offset, "offset", 0) :][: arguments.whole_number(limit, "limit", 0)]


def id_set(ids: Iterable[str] | None, what: str) -> set[str] | None:
    """Ids without their order; None stays None. Raises InvalidInput."""
    return None if ids is None else set(arguments.id_list(ids, what))


def all_of(values: Iterable[T], kind: type[T]) -> list[T]:
    """`values` as a list, if each is a `kind`. Raises InvalidInput."""
    arguments.several(values, kind.__name__)
    return [arguments.instance(value, kind, f"a {kind.__name__.lower()}") for value in values]


def copied(value: object, what: str) -> Any:
    """A deep copy of a JSON value. Raises InvalidInput."""
    return json.loads(jsonable.dumps(value, what))


def json_object(value: object, what: str) -> dict[str, Any]:
    """A deep copy of a mapping with string keys. Raises InvalidInput."""
    found: dict[str, Any] = json.loads(jsonable.json_object(value, what))
    return found


def identity(subject: object, kind: object, key: object, namespace: object = ()) -> FactKey:
    """A fact's identity. Raises InvalidInput."""
    path = arguments.labels(namespace, "namespace")
    if subject is None and not path:
        raise InvalidInput("subject is None; expected a string, or a namespace for a fact that has no subject")
    known = None if subject is None else arguments.check_text(subject, "subject", arguments.MAX_IDENTITY_BYTES)
    parts = [
        arguments.check_text(part, name, arguments.MAX_IDENTITY_BYTES) for name, part in (("kind", kind), ("key", key))
    ]
    size = sum(len(part.encode()) for part in (known or "", *parts, *path)) + 8 * len(path)
    if size > arguments.MAX_IDENTITY_BYTES:
        raise InvalidInput(
            f"namespace, subject, kind and key have {size:,} bytes together (8 are counted for each label); "
            f"expected at most {arguments.MAX_IDENTITY_BYTES:,}. Hash or shorten them"
        )
    return FactKey(known, parts[0], parts[1], path)


def described(key: FactKey) -> str:
    """An identity as errors print it."""
    subject = f" of {key.subject!r}" if key.subject is not None else ""
    return f"{key.kind}/{key.key}{subject}" + (f" in {'/'.join(key.namespace)}" if key.namespace else "")


def embedded(embed: Callable[[list[str]], Any], texts: list[str]) -> list[Vector]:
    """The texts' vectors. Raises InvalidInput."""
    if not texts:
        return []
    found = embed(texts)
    if inspect.isawaitable(found):
        if inspect.iscoroutine(found):
            found.close()
        raise InvalidInput("the embedding function is asynchronous; expected a synchronous one for a store in memory")
    if len(found) != len(texts):
        raise InvalidInput(f"the embedding function returned {len(found)} vectors for {len(texts)} texts")
    return list(found)


def similarity(distance: float, space: EmbedSpace) -> float:
    """A distance as a score; higher is better."""
    if space.distance == "cosine":
        return 1.0 - distance
    return -distance if space.distance == "ip" else 1.0 / (1.0 + distance)
