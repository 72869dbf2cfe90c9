"""Writes a sync and an async method as one generator, for adapters that call pairs of methods `name` and `aname`.

    def _find(self, text: str) -> Steps[list[Hit]]:
        vector = yield call(self.embedding, "embed_query", text)
        return (yield call(self.store, "query", vector))

    find, afind = faces(_find)

`find` calls `embed_query` and `query`; `afind` awaits `aembed_query` and `aquery`. A generator that takes `**kwargs`
must take `self` by position only (`self, /`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeAlias, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


class Call(NamedTuple):
    """A call of a method that has an asynchronous twin, named with an `a` in front."""

    target: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


Steps: TypeAlias = Generator[Call, Any, R]


def call(target: Any, name: str, /, *args: Any, **kwargs: Any) -> Call:
    """The step `target.name(…)`, or `await target.aname(…)`."""
    return Call(target, name, args, kwargs)


def run(steps: Steps[R]) -> R:
    """Run the steps with the synchronous methods."""
    try:
        step = next(steps)
        while True:
            try:
                result = getattr(step.target, step.name)(*step.args, **step.kwargs)
            except Exception as exc:  # noqa: BLE001 the generator decides what to do with it
                step = steps.throw(exc)
            else:
                step = steps.send(result)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


async def arun(steps: Steps[R]) -> R:
    """Run the steps with the asynchronous methods."""
    try:
        step = next(steps)
        while True:
            try:
                result = await getattr(step.target, "a" + step.name)(*step.args, **step.kwargs)
            except Exception as exc:  # noqa: BLE001 the generator decides what to do with it
                step = steps.throw(exc)
            else:
                step = steps.send(result)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


def faces(
    plan: Callable[Concatenate[S, P], Steps[R]],
) -> tuple[Callable[Concatenate[S, P], R], Callable[Concatenate[S, P], Coroutine[Any, Any, R]]]:
    """Make a synchronous and an asynchronous method of a generator method: `_find` becomes `find` and `afind`."""

    @functools.wraps(plan)
    def face(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return run(plan(self, *args, **kwargs))

    @functools.wraps(plan)
    async def aface(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await arun(plan(self, *args, **kwargs))

    name = plan.__name__.lstrip("_")
    pair: tuple[tuple[Any, str], ...] = ((face, name), (aface, "a" + name))
    for function, its_name in pair:
        function.__name__ = its_name
        function.__qualname__ = plan.__qualname__.replace(plan.__name__, its_name)
        returns = str(plan.__annotations__.get("return", "")).removeprefix("Steps[").removesuffix("]")
        function.__annotations__ = {**plan.__annotations__, "return": returns}
    return face, aface
