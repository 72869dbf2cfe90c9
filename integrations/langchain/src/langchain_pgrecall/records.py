"""`PGRecallRecordManager`: the record manager of `langchain_core.indexing`, next to the collection it fills."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.indexing import RecordManager

from langchain_pgrecall.handles import OnDatabase
from pgrecall import DatabaseLike
from pgrecall.steps import Steps, call, faces


class PGRecallRecordManager(OnDatabase, RecordManager):
    """Records which documents `index` and `aindex` wrote to a collection, and when they last saw each.

    A key exists only while its document is in the collection. A document that was deleted by other means, or lost with
    a run that was killed, is therefore written again by the next run. Times are the server's.

    Args:
        namespace: Separates several sources that fill one collection; by default "".
        connection: A `pgrecall.Database`, a URL, a SQLAlchemy engine, or a pair of a synchronous and an asynchronous
            one. By default `PGRECALL_URL`, otherwise the embedded Postgres.
        tenant: The tenant that owns the collection.
        collection: The collection of the vector store that is indexed into; by default "default".
    """

    def __init__(
        self, namespace: str = "", *, connection: DatabaseLike = None, tenant: str, collection: str = "default"
    ) -> None:
        super().__init__(namespace)
        self._connect(connection)
        self._records = self._database.tenant(tenant).index_records(collection, namespace)

    def create_schema(self) -> None:
        """Do nothing: `pgrecall db upgrade` creates the tables."""

    async def acreate_schema(self) -> None:
        """Do nothing: `pgrecall db upgrade` creates the tables."""

    def _get_time(self) -> Steps[float]:
        """Return the server's time, in seconds since 1970."""
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
        """Record keys as seen now. Raises InvalidInput, a ValueError, if `time_at_least` is in the future."""
        yield call(self._records, "update", keys, group_ids=group_ids, time_at_least=time_at_least)

    update, aupdate = faces(_update)

    def _exists(self, keys: Sequence[str]) -> Steps[list[bool]]:
        """Return for each key whether it is recorded and its document exists."""
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
        """Return recorded keys.

        Args:
            before: Only keys that were last seen before this time, in seconds since 1970.
            after: Only keys that were last seen after this time.
            group_ids: Only keys of these groups.
            limit: The number of keys to return at most. By default all.
        """
        options = {"before": before, "after": after, "group_ids": group_ids, "limit": limit}
        keys: list[str] = yield call(self._records, "list_keys", **options)
        return keys

    list_keys, alist_keys = faces(_list_keys)

    def _delete_keys(self, keys: Sequence[str]) -> Steps[None]:
        """Delete the records of keys."""
        yield call(self._records, "delete", keys)

    delete_keys, adelete_keys = faces(_delete_keys)
