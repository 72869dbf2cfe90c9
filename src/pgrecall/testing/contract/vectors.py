"""The contract of a `VectorStore`."""

from __future__ import annotations

from typing import Any

from pgrecall.testing.contract.base import SPACE
from pgrecall.testing.contract.reads import VectorReadsContract
from pgrecall.testing.contract.words import VectorWordsContract
from pgrecall.testing.contract.writes import VectorWritesContract


class VectorStoreContract(VectorReadsContract, VectorWritesContract, VectorWordsContract):
    """What a `VectorStore` must do: its reads, its writes, and its searches by words.

    Override the fixture `make_store`: a function of a tenant, a collection, an `EmbedSpace`, and a text_config
    ("simple", or None for a collection without search by words). For a store that has no search by words, subclass
    `VectorReadsContract` and `VectorWritesContract` instead.
    """

    def test_the_store_has_the_protocols_verbs(self, make_store: Any) -> None:
        """Each verb has the protocol's arguments and defaults; arguments of the store's own are optional."""
        assert self.verbs_that_differ(make_store("a", "handbook", SPACE, None)) == []
