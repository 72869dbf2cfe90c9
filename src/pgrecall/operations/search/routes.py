"""Decides whether a search uses the graph or a scan, and caches what that depends on for each collection."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from pgrecall.filters.keys import Key
from pgrecall.operations.chunks.keys import ready_keys
from pgrecall.operations.registry import Place
from pgrecall.postgres.transactions import Gate
from pgrecall.statements import graphs as sql
from pgrecall.statements import keys as key_sql
from pgrecall.types import EmbedSpace

logger = logging.getLogger("pgrecall")

#: pgvector indexes half-precision vectors of up to this many dimensions; longer ones are always searched exactly.
MAX_DIM = 4_000
#: Up to this many rows, an exact scan is as fast as a graph at 384 dims; the limit is lower for longer vectors.
EXACT_ROWS = 2_000
#: Default ef_search: a hundredth of the collection's rows, between 100 and 600, and twice that with a filter (pgvector
#: allows 1,000). Larger collections have more rows that are nearly as near as the nearest, so they need more
#: candidates. Among a million rows, in collections of 50,000 to 160,000, 100 had a recall of .94, and 400 of .99 in
#: 1.5 times the time.
EF_SEARCH, EF_SEARCH_LARGEST, EF_SEARCH_SHARE = 100, 600, 100
MOST_EF_SEARCH = 1_000
#: If a filter matches fewer chunks, these are searched one by one, at a few microseconds each.
CANDIDATES = 1_000
#: Rows are counted up to this many, at 0.1 µs each. Word rarity is computed from the count.
COUNTED = 10_000
#: How long a process caches a collection's route. An outdated route makes searches slower, but not wrong.
REMEMBERED_SECONDS = 10.0
#: How long a process waits before it warns again about a space that needs maintenance.
SILENT_SECONDS = 3_600.0


def exact_max(dim: int) -> int:
    """Rows up to which a collection is searched exactly."""
    return max(500, EXACT_ROWS * 384 // max(dim, 384))


class Route(NamedTuple):
    """What decides how a collection is searched.

    `rows` and `waiting` (rows that are not in the graph yet) are counted up to `COUNTED`. `noted` is the row count at
    the last maintenance, `ef_search` the value that `tune` chose.
    """

    generation: int
    rows: int
    built: bool
    entered: bool = False
    waiting: int = 0
    text_config: str | None = None
    text_complete: bool = False
    keys: tuple[Key, ...] = ()
    noted: int = 0
    ef_search: int | None = None

    def by_graph(self, space: EmbedSpace, top_k: int) -> bool:
        """Whether the graph is faster than a scan."""
        return self.built and self.rows > exact_max(space.dim) and top_k * 2 <= MOST_EF_SEARCH

    def breadth(self, *, filtered: bool) -> int:
        """The default `ef_search` of a search by the graph."""
        by_size = min(max(self.noted // EF_SEARCH_SHARE, EF_SEARCH), EF_SEARCH_LARGEST)
        chosen = self.ef_search or by_size
        return min(chosen * (2 if filtered else 1), MOST_EF_SEARCH)


#: The route of a collection that does not exist, or of a search that needs none.
NOWHERE = Route(0, 0, built=False)
#: UNKNOWN: nothing is cached about the collection, and the search itself counts its rows. SMALL: it was small then.
UNKNOWN, SMALL = Route(0, -1, built=False), Route(0, 0, built=False)


class Large(Exception):
    """The collection turned out to be large, so its route must be looked up before it is searched."""


@dataclass(slots=True)
class Routes:
    """A process' cache of routes, and of when it last warned that a space needs maintenance."""

    known: dict[tuple[str | None, str, int], tuple[float, Route]] = field(default_factory=dict)
    warned: dict[int, float] = field(default_factory=dict)

    def forget(self) -> None:
        """Clear the cache."""
        self.known.clear()

    def keys(self, gate: Gate, place: Place) -> tuple[Key, ...]:
        """The collection's indexed keys, for calls that do not search a space."""
        return self._remembered((place.scope.tenant, place.collection, 0), lambda: self._keys(gate, place)).keys

    def cached(self, place: Place, space_id: int) -> Route:
        """The cached route, for a search by a vector alone: a route, SMALL, or UNKNOWN. Never asks the database.

        Asking first would cost another transaction for each collection that was not searched within the last seconds.
        With many tenants, that is most collections.
        """
        return self._held((place.scope.tenant, place.collection, space_id))

    def was_small(self, place: Place, space_id: int) -> None:
        """Cache that a search found the collection to be small."""
        self._remember((place.scope.tenant, place.collection, space_id), SMALL)

    def find(self, gate: Gate, place: Place, space: EmbedSpace, space_id: int, *, reload: bool = False) -> Route:
        """The collection's route, from the cache unless `reload`. A collection that does not exist has no rows."""
        key = (place.scope.tenant, place.collection, space_id)
        return self._remembered(key, lambda: self._look(gate, place, space, space_id), reload=reload)

    def _remembered(self, key: tuple[str | None, str, int], ask: Callable[[], Route], *, reload: bool = False) -> Route:
        held = UNKNOWN if reload else self._held(key)
        if held is UNKNOWN or held is SMALL:
            held = ask()
            self._remember(key, held)
        return held

    def _held(self, key: tuple[str | None, str, int]) -> Route:
        at, route = self.known.get(key, (0.0, UNKNOWN))
        return route if time.monotonic() - at < REMEMBERED_SECONDS else UNKNOWN

    def _remember(self, key: tuple[str | None, str, int], route: Route) -> None:
        if len(self.known) >= 10_000:
            self.known.clear()
        self.known[key] = (time.monotonic(), route)

    def _look(self, gate: Gate, place: Place, space: EmbedSpace, space_id: int) -> Route:
        route = look(gate, place, space, space_id)
        self._warn(place, space, space_id, route)
        return route

    def _keys(self, gate: Gate, place: Place) -> Route:
        rows = gate.read(place.scope, "keys", lambda tx: tx.last(key_sql.DECLARED, place.at()))
        return NOWHERE._replace(keys=ready_keys(rows[0][0] if rows else None))

    def _warn(self, place: Place, space: EmbedSpace, space_id: int, route: Route) -> None:
        most = exact_max(space.dim)
        if route.rows <= most or space.dim > MAX_DIM or (route.built and route.waiting <= most):
            return
        if time.monotonic() - self.warned.get(space_id, -SILENT_SECONDS) < SILENT_SECONDS:
            return
        self.warned[space_id] = time.monotonic()
        logger.warning(
            "space %d: a collection has more than %d rows that are not in a graph%s, so each search scans them. "
            "Run: pgrecall maintain",
            space_id,
            most,
            " yet" if route.built else "",
            extra={"operation": "route", "tenant": place.scope.tenant, "collection": place.collection},
        )


def look(gate: Gate, place: Place, space: EmbedSpace, space_id: int) -> Route:
    """Read the collection's current route from the database."""
    params = place.at(space=space_id, most=COUNTED)
    work = [(sql.ROUTE, params), (sql.VALID, sql.names_of(space_id))]
    rows, valid = gate.read(place.scope, "route", lambda tx: tx.many(work, commit=True))
    if not rows:
        return NOWHERE
    keys, noted, generation, count, *rest = rows[0]
    found = Route(generation, count, (generation,) in valid, *rest)._replace(keys=ready_keys(keys))
    noted = noted or {}
    return found._replace(noted=noted.get("rows", 0), ef_search=noted.get("ef_search"))
