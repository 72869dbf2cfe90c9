"""How the contracts get a store and call it, synchronously and asynchronously."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import pytest

from pgrecall import EmbedSpace

#: The space of most vectors in the contracts.
SPACE = EmbedSpace("test", "eight", 8)


class AsyncFace:
    """A store whose methods call their asynchronous twins, each run to its end on one event loop."""

    def __init__(self, store: Any, runner: asyncio.Runner) -> None:
        self._store, self._runner = store, runner

    def __getattr__(self, verb: str) -> Any:
        twin = getattr(self._store, f"a{verb}")
        return lambda *args, **kwargs: self._runner.run(twin(*args, **kwargs))


def ids_of(rows: Iterable[Any]) -> list[str]:
    """The ids of chunks or hits."""
    return [getattr(row, "chunk_id", None) or row.id for row in rows]


class StoreContract:
    """What the three contracts have in common. Each test runs twice, by the verbs and by their asynchronous twins.

    A subclass overrides the fixture `make_store`: a function that returns a store. All stores that one test gets
    from it share their rows, and each test begins with no rows.
    """

    protocol: ClassVar[type]

    @pytest.fixture
    def make_store(self) -> Callable[..., Any]:
        """Override this."""
        raise NotImplementedError("override the fixture `make_store`")

    @pytest.fixture
    def async_runner(self) -> Iterator[asyncio.Runner]:
        """The event loop of the test's asynchronous calls."""
        with asyncio.Runner() as runner:
            yield runner

    @pytest.fixture(params=["sync", "async"])
    def called(self, request: pytest.FixtureRequest, async_runner: asyncio.Runner) -> Callable[[Any], Any]:
        """Makes a store's verbs callable in the mode that the test runs in."""
        return lambda store: store if request.param == "sync" else AsyncFace(store, async_runner)

    def verbs_that_differ(self, store: Any) -> list[str]:
        """Verbs of the protocol that `store` lacks, or that take other arguments; its own must be optional."""
        differ = []
        for name in verbs(self.protocol):
            wanted, found = getattr(self.protocol, name), getattr(type(store), name, None)
            if found is None or inspect.iscoroutinefunction(wanted) != inspect.iscoroutinefunction(found):
                differ.append(name)
                continue
            said, has = parameters(wanted), parameters(found)
            extra = [default for key, (_, default) in has.items() if key not in said]
            if {key: has.get(key) for key in said} != said or inspect.Parameter.empty in extra:
                differ.append(name)
        return differ


def verbs(protocol: type) -> list[str]:
    """The names of a protocol's methods."""
    return sorted(name for name in vars(protocol) if not name.startswith("_") and callable(getattr(protocol, name)))


def parameters(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """A function's parameters: their kinds and defaults, by name."""
    return {p.name: (p.kind, p.default) for p in inspect.signature(function).parameters.values()}
