"""How the contract of vector stores opens them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from pgrecall import EmbedSpace, VectorStore
from pgrecall.testing.contract.base import SPACE, StoreContract


class OpensVectorStores(StoreContract):
    """`make_store` takes a tenant, a collection, an `EmbedSpace` and a text_config."""

    protocol: ClassVar[type] = VectorStore

    @pytest.fixture
    def open_store(self, make_store: Callable[..., Any], called: Callable[[Any], Any]) -> Callable[..., Any]:
        """Opens a store, called in the test's mode."""

        def open_store(
            tenant: str = "a", collection: str = "handbook", space: EmbedSpace = SPACE, text_config: str | None = None
        ) -> Any:
            return called(make_store(tenant, collection, space, text_config))

        return open_store

    @pytest.fixture
    def store(self, open_store: Callable[..., Any]) -> Any:
        """The store of one collection that does not exist yet."""
        return open_store()
