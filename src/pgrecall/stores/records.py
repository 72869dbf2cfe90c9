"""What an ingestion remembers of the keys that it wrote to a collection."""

from __future__ import annotations

from collections.abc import Sequence

from pgrecall.operations.ingestion import records
from pgrecall.stores.backend import Backend, CollectionBound
from pgrecall.stores.renamed import renamed
from pgrecall.stores.twins import Work, twins


class IndexRecords(CollectionBound):
    """Which chunks an ingestion wrote to a collection and when it last saw each: made by ``tenant.index_records(…)``.

    Times are seconds since 1970 by the server's clock. Several ingestions of one collection are kept apart by
    `namespace`. Every method has an asynchronous twin with an `a` before its name.
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
        """The server's clock; never ahead of what a later `update` notes."""
        return lambda gate: records.time(gate, self._place(gate))

    time, atime = twins(_time)

    def _update(
        self,
        keys: Sequence[str],
        *,
        group_ids: Sequence[str | None] | None = None,
        time_at_least: float | None = None,
    ) -> Work[None]:
        """Note keys (ids of chunks) as seen now, each in its group; without one a key keeps the group that it has.

        Raises InvalidInput where the lengths differ, or the server's clock is behind `time_at_least`; TenantErased.
        """
        create = self._create_tenants
        return lambda gate: records.update(
            gate, self._place(gate), self._namespace, keys, group_ids, time_at_least, create_tenant=create
        )

    update, aupdate = twins(_update)

    def _exists(self, keys: Sequence[str]) -> Work[list[bool]]:
        """For each key whether it is noted, and its chunk still lives in the collection."""
        return lambda gate: records.exists(gate, self._place(gate), self._namespace, keys)

    exists, aexists = twins(_exists)

    def _delete(self, keys: Sequence[str]) -> Work[int]:
        """Forget keys, not their chunks; returns how many were noted."""
        return lambda gate: records.delete(gate, self._place(gate), self._namespace, keys)

    delete, adelete = twins(_delete)

    # Last: in the class body `list` is this method from here on.
    def _list_keys(
        self,
        *,
        before: float | None = None,
        after: float | None = None,
        group_ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> Work[list[str]]:
        """Keys last noted before and after these times, of these groups; ordered by code points."""
        return lambda gate: records.listing(
            gate, self._place(gate), self._namespace, before=before, after=after, groups=group_ids, limit=limit
        )

    list_keys, alist_keys = twins(_list_keys)
    list, alist = renamed("list", list_keys, alist_keys)
