"""What an ingestion remembers about the keys that it wrote to a collection."""

from __future__ import annotations

from collections.abc import Sequence

from pgrecall.operations.ingestion import records
from pgrecall.stores.backend import Backend, CollectionBound
from pgrecall.stores.renamed import renamed
from pgrecall.stores.twins import Work, twins


class IndexRecords(CollectionBound):
    """The chunks that an ingestion wrote to a collection, and when it last saw each; made by
    ``tenant.index_records(…)``.

    Times are seconds since 1970 by the server's clock. `namespace` separates several ingestions of one collection.
    Every method has an asynchronous twin with an `a` before its name.
    """

    def __init__(self, backend: Backend, tenant: str, collection: str, namespace: str) -> None:
        super().__init__(backend, tenant, collection)
        self._namespace = namespace

    @property
    def namespace(self) -> str:
        """The ingestion's name."""
        return self._namespace

    def __repr__(self) -> str:
        return f"<IndexRecords tenant={self.tenant_id!r} collection={self.collection!r} namespace={self._namespace!r}>"

    def _time(self) -> Work[float]:
        """The server's clock; it is never ahead of what a later `update` stores."""
        return lambda gate: records.time(gate, self._place(gate))

    time, atime = twins(_time)

    def _update(
        self,
        keys: Sequence[str],
        *,
        group_ids: Sequence[str | None] | None = None,
        time_at_least: float | None = None,
    ) -> Work[None]:
        """Record keys (ids of chunks) as seen now, each in its group; a key without a group keeps the one it has.

        Raises: InvalidInput if the lengths differ, or the server's clock is behind `time_at_least`; TenantErased.
        """
        create = self._create_tenants
        return lambda gate: records.update(
            gate, self._place(gate), self._namespace, keys, group_ids, time_at_least, create_tenant=create
        )

    update, aupdate = twins(_update)

    def _exists(self, keys: Sequence[str]) -> Work[list[bool]]:
        """For each key, whether it is recorded and its chunk still exists in the collection."""
        return lambda gate: records.exists(gate, self._place(gate), self._namespace, keys)

    exists, aexists = twins(_exists)

    def _delete(self, keys: Sequence[str]) -> Work[int]:
        """Delete records of keys, not their chunks; returns how many there were."""
        return lambda gate: records.delete(gate, self._place(gate), self._namespace, keys)

    delete, adelete = twins(_delete)

    def _list_keys(
        self,
        *,
        before: float | None = None,
        after: float | None = None,
        group_ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> Work[list[str]]:
        """Keys last seen before and after these times, in these groups; ordered by code point."""
        return lambda gate: records.listing(
            gate, self._place(gate), self._namespace, before=before, after=after, groups=group_ids, limit=limit
        )

    list_keys, alist_keys = twins(_list_keys)
    list, alist = renamed("list", list_keys, alist_keys)
