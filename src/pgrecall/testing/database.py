"""A stand-in for a database, with stores in memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from pgrecall.arguments import MAX_NAME_BYTES, check_text
from pgrecall.runs import RunState
from pgrecall.testing.facts import InMemoryFactStore
from pgrecall.testing.runs import InMemoryRunStore
from pgrecall.testing.vectors import InMemoryVectorStore, StoredCollection
from pgrecall.testing.versions import TenantFacts
from pgrecall.types import EmbedSpace


class InMemoryDatabase:
    """Stands in for the `Database` that `pgrecall.connect` returns. Its tenants open stores that keep rows in memory.

    Stores of the same tenant and collection share their rows. Nothing is written to disk.
    """

    def __init__(self) -> None:
        self._collections: dict[tuple[str, str], StoredCollection] = {}
        self._facts: dict[str, TenantFacts] = {}
        self._runs: dict[tuple[str, str], RunState] = {}

    def tenant(self, tenant_id: str) -> InMemoryTenant:
        """A handle on one tenant."""
        return InMemoryTenant(tenant_id, self._collections, self._facts, self._runs)


class InMemoryTenant:
    """One tenant of an `InMemoryDatabase`."""

    def __init__(
        self,
        tenant_id: str,
        collections: dict[tuple[str, str], StoredCollection],
        facts: dict[str, TenantFacts],
        runs: dict[tuple[str, str], RunState],
    ) -> None:
        self.tenant_id = check_text(tenant_id, "tenant_id", MAX_NAME_BYTES)
        self._collections, self._facts, self._runs = collections, facts, runs

    def vectors(
        self,
        collection: str = "default",
        space: EmbedSpace | None = None,
        *,
        embed: Callable[[list[str]], Any] | None = None,
        text_config: str | None = None,
    ) -> InMemoryVectorStore:
        """The vector store of one collection; its first write creates the collection.

        Args:
            collection: The collection's name; by default "default".
            space: What its vectors are made by. By default the space of the collection, which then must exist.
            embed: A synchronous function from a list of texts to their vectors.
            text_config: Anything but None (the default) turns on search by words in a new collection.

        Raises:
            InvalidInput: there is neither a space nor a collection that has one.
        """
        return InMemoryVectorStore(
            space,
            embed=embed,
            text_config=text_config,
            tenant=self.tenant_id,
            collection=collection,
            shared=self._collections,
        )

    def memory(
        self,
        *,
        actor: str,
        space: EmbedSpace | None = None,
        embed: Callable[[list[str]], Any] | None = None,
        keep_versions: int | None = None,
        grace: timedelta = timedelta(days=30),
    ) -> InMemoryFactStore:
        """The tenant's facts. The arguments are those of `Tenant.memory`."""
        return InMemoryFactStore(
            actor=actor,
            space=space,
            embed=embed,
            keep_versions=keep_versions,
            grace=grace,
            tenant=self.tenant_id,
            shared=self._facts,
        )

    def runs(self) -> InMemoryRunStore:
        """The tenant's runs."""
        return InMemoryRunStore(tenant=self.tenant_id, shared=self._runs)
