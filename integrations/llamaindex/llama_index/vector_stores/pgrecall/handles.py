"""What the adapter's classes share: a database, which they close only if they opened it."""

from __future__ import annotations

from typing import NoReturn

from pgrecall import Database, DatabaseLike, as_database


class OnDatabase:
    """A mixin; classes that are pydantic models declare the two attributes as private ones."""

    _database: Database
    _opened: bool

    def _connect(self, connection: DatabaseLike) -> None:
        self._opened = not isinstance(connection, Database)
        self._database = as_database(connection)

    @property
    def database(self) -> Database:
        """The `pgrecall.Database` that the object works on; pass it to others to share its connections."""
        return self._database

    def close(self) -> None:
        """Close the connections if the object opened them; a `pgrecall.Database` that was passed stays open."""
        if self._opened:
            self._database.close()

    async def aclose(self) -> None:
        """Async version of `close`."""
        if self._opened:
            await self._database.aclose()

    def __getstate__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds connections and can't be pickled; create one in each process")
