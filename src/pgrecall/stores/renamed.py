"""Old names. They work until 0.2, and warn (DeprecationWarning) with the new name."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
A = TypeVar("A", bound=Coroutine[Any, Any, Any])
F = TypeVar("F", bound=Callable[..., Any])


def warn(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn that `old` is now `new`."""
    warnings.warn(f"{old} is now {new}; the old name will be removed in 0.2", DeprecationWarning, stacklevel=stacklevel)


def renamed(
    old: str, method: Callable[Concatenate[S, P], R], amethod: Callable[Concatenate[S, P], A]
) -> tuple[Callable[Concatenate[S, P], R], Callable[Concatenate[S, P], A]]:
    """The synchronous and the asynchronous method under their old names: `old`, and `old` with an `a` before it."""

    def alias(function: Callable[Concatenate[S, P], Any], name: str) -> Callable[Concatenate[S, P], Any]:
        new = function.__name__

        @functools.wraps(function)
        def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Any:
            warn(f"{type(self).__name__}.{name}()", f"{new}()")
            return function(self, *args, **kwargs)

        call.__name__ = name
        call.__qualname__ = function.__qualname__.replace(new, name)
        call.__doc__ = f"The old name of `{new}`."
        call.__deprecated__ = f"use {new}()"  # type: ignore[attr-defined]  # as PEP 702 marks it
        return call

    return alias(method, old), alias(amethod, f"a{old}")


def renamed_arguments(**names: str) -> Callable[[F], F]:
    """Let a plan take keyword arguments by their old names: ``@renamed_arguments(limit="top_k")``."""

    def decorate(plan: F) -> F:
        name = plan.__name__.lstrip("_")

        @functools.wraps(plan)
        def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            for old in names.keys() & kwargs.keys():
                new = names[old]
                if new in kwargs:
                    raise TypeError(f"{name}() got both {new}= and its old name {old}=; pass {new}=")
                warn(f"{name}({old}=…)", f"{name}({new}=…)", stacklevel=4)
                kwargs[new] = kwargs.pop(old)
            return plan(self, *args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate
