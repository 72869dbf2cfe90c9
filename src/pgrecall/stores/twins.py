"""One body, two faces: a private method that plans the work becomes `name` and `aname`.

    def _count(self, ...) -> Work[int]: ...
    count, acount = twins(_count)

The plan checks its arguments without I/O and returns a function of a gate; the pair runs it through the sync or the
async engine. Signatures and docstrings are the plan's, with the work's result as the return type.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar

from pgrecall.postgres.transactions import Gate

P = ParamSpec("P")
R = TypeVar("R")
Work: TypeAlias = Callable[[Gate], R]


class Runs(Protocol):
    """Something that can run work on either side."""

    def _run(self, work: Work[R]) -> R: ...

    async def _arun(self, work: Work[R]) -> R: ...


S = TypeVar("S", bound=Runs)


def twins(
    plan: Callable[Concatenate[S, P], Work[R]],
) -> tuple[Callable[Concatenate[S, P], R], Callable[Concatenate[S, P], Coroutine[Any, Any, R]]]:
    """The synchronous and the asynchronous method of one plan."""

    @functools.wraps(plan)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._run(plan(self, *args, **kwargs))  # type: ignore[no-any-return]

    @functools.wraps(plan)
    async def acall(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._arun(plan(self, *args, **kwargs))  # type: ignore[no-any-return]

    name = plan.__name__.lstrip("_")
    own = plan.__qualname__
    # Python's errors about wrong arguments name this function; its public name is what the caller wrote.
    inspect.unwrap(plan).__qualname__ = own.replace(plan.__name__, name)
    signature = inspect.signature(plan)
    # What a caller gets is not the work but its result; annotations are strings here.
    returns = signature.return_annotation.removeprefix("Work[").removesuffix("]")
    faces: tuple[tuple[Any, str], ...] = ((call, name), (acall, "a" + name))
    for function, its_name in faces:
        function.__name__ = its_name
        function.__qualname__ = own.replace(plan.__name__, its_name)
        function.__annotations__ = {**plan.__annotations__, "return": returns}
        function.__signature__ = signature.replace(return_annotation=returns)
    return call, acall
