"""How the contract opens stores and calls them, in both modes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pgrecall import EmbedSpace

SPACE = EmbedSpace("test", "eight", 8)
OpenStore = Callable[..., Any]


class AsyncFace:
    """A store whose verbs run their `a` twins, each call driven to its end on one event loop."""

    def __init__(self, store: Any, runner: asyncio.Runner) -> None:
        self._store, self._runner = store, runner

    def __getattr__(self, verb: str) -> Any:
        twin = getattr(self._store, f"a{verb}")
        return lambda *args, **kwargs: self._runner.run(twin(*args, **kwargs))


def ids_of(rows: list[Any]) -> list[str]:
    return [getattr(row, "chunk_id", None) or row.id for row in rows]


class Opened:
    """Subclasses give `opener`: (tenant, collection, space, text_config) to a store; stores of a test share rows."""

    @pytest.fixture
    def runner(self) -> Iterator[asyncio.Runner]:
        with asyncio.Runner() as runner:
            yield runner

    @pytest.fixture
    def opener(self) -> OpenStore:
        raise NotImplementedError

    @pytest.fixture(params=["sync", "async"])
    def open_store(self, request: pytest.FixtureRequest, runner: asyncio.Runner, opener: OpenStore) -> OpenStore:
        def open_store(
            tenant: str = "a", collection: str = "handbook", space: EmbedSpace = SPACE, text_config: str | None = None
        ) -> Any:
            store = opener(tenant, collection, space, text_config)
            return store if request.param == "sync" else AsyncFace(store, runner)

        return open_store

    @pytest.fixture
    def store(self, open_store: OpenStore) -> Any:
        return open_store()
