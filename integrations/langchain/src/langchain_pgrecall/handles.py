"""What the adapter's classes share: a database, which they close only if they opened it."""

from __future__ import annotations

from pgrecall import Database, DatabaseLike, as_database


class OnDatabase:
    """A mixin; `_connect` is called once, by the constructor."""

    _database: Database
    _owned: Database | None = None

    def _connect(self, connection: DatabaseLike) -> None:
        self._database = as_database(connection)
        self._owned = None if self._database is connection else self._database

    @property
    def database(self) -> Database:
        """The `pgrecall.Database` that the object works on; pass it to others to share its connections."""
        return self._database

    def close(self) -> None:
        """Close the connections if the object opened them; a `pgrecall.Database` that was passed stays open."""
        if self._owned is not None:
            self._owned.close()

    async def aclose(self) -> None:
        """Async version of `close`."""
        if self._owned is not None:
            await self._owned.aclose()
