"""`PGRecallRecordManager`: what `langchain_core.indexing` remembers, beside the collection that it fills."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.indexing import RecordManager

from pgrecall import DatabaseLike, as_database
from pgrecall.steps import Steps, call, faces


class PGRecallRecordManager(RecordManager):
    """Which documents `index` and `aindex` wrote to a collection of a tenant, and when they last saw each.

    `collection` is that of the vector store which is indexed into; `namespace` keeps several sources that fill one
    collection apart. A key exists only while its document is in the collection: what was deleted there, or by a run
    that was killed half-way, is written again by the next run. Times are the server's.
    """

    def __init__(
        self, namespace: str = "", *, connection: DatabaseLike = None, tenant: str, collection: str = "default"
    ) -> None:
        super().__init__(namespace)
        database = as_database(connection)
        self._owned = database if database is not connection else None
        self._records = database.tenant(tenant).index_records(collection, namespace)

    def create_schema(self) -> None:
        """Nothing to do: the tables are made by `pgrecall db upgrade`."""

    async def acreate_schema(self) -> None:
        """Nothing to do: the tables are made by `pgrecall db upgrade`."""

    def close(self) -> None:
        """Close the connections, unless they are those of a database that was given."""
        if self._owned is not None:
            self._owned.close()

    def _get_time(self) -> Steps[float]:
        """The server's clock, in seconds since 1970."""
        now: float = yield call(self._records, "time")
        return now

    get_time, aget_time = faces(_get_time)

    def _update(
        self,
        keys: Sequence[str],
        *,
        group_ids: Sequence[str | None] | None = None,
        time_at_least: float | None = None,
    ) -> Steps[None]:
        """Note keys as seen now; InvalidInput, a ValueError, where the server's clock is behind `time_at_least`."""
        yield call(self._records, "update", keys, group_ids=group_ids, time_at_least=time_at_least)

    update, aupdate = faces(_update)

    def _exists(self, keys: Sequence[str]) -> Steps[list[bool]]:
        """For each key whether it is noted, and its document in the collection."""
        found: list[bool] = yield call(self._records, "exists", keys)
        return found

    exists, aexists = faces(_exists)

    def _list_keys(
        self,
        *,
        before: float | None = None,
        after: float | None = None,
        group_ids: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> Steps[list[str]]:
        """Keys last noted before and after these times, of these groups."""
        options = {"before": before, "after": after, "group_ids": group_ids, "limit": limit}
        keys: list[str] = yield call(self._records, "list", **options)
        return keys

    list_keys, alist_keys = faces(_list_keys)

    def _delete_keys(self, keys: Sequence[str]) -> Steps[None]:
        """Forget keys."""
        yield call(self._records, "delete", keys)

    delete_keys, adelete_keys = faces(_delete_keys)
