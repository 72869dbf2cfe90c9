"""Graphs in numbers: which collections they pay for, and what a process remembers of each."""

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

#: pgvector indexes half-precision vectors up to this length; longer ones are always searched exactly.
MAX_DIM = 4_000
#: Rows of a collection up to which an exact scan is as fast as a graph, at 384 dims; fewer where vectors are longer.
EXACT_ROWS = 2_000
#: Candidates that a search of the graph keeps (hnsw.ef_search); pgvector allows 1,000. In a large collection more rows
#: are nearly as near as the nearest, so it takes more to find them: among a million rows 100 found .94 of what is
#: nearest in collections of 50,000 to 160,000, and 400 found .99 in half as long again. So it is a hundredth of the
#: rows, within bounds, and twice as many with a filter.
EF_SEARCH, EF_SEARCH_LARGEST, EF_SEARCH_SHARE = 100, 600, 100
MOST_EF_SEARCH = 1_000
#: Chunks that match a filter up to which they are searched one by one; each is a lookup of some microseconds.
CANDIDATES = 1_000
#: Rows up to which a collection is counted, at 0.1 µs each: how rare a word is depends on them.
COUNTED = 10_000
#: How long a process goes by what it learned of a collection. Whatever it knows, the rows found are the right ones.
REMEMBERED_SECONDS = 10.0
#: How long a process says nothing more of a space that needs maintenance.
SILENT_SECONDS = 3_600.0


def exact_max(dim: int) -> int:
    """Rows up to which a collection is searched exactly."""
    return max(500, EXACT_ROWS * 384 // max(dim, 384))


class Route(NamedTuple):
    """What decides how a collection is searched. `rows` and `waiting` are counted up to `COUNTED`.

    `noted` are its rows as maintenance last counted them, `ef_search` what was found for it (see `breadth`).
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
        """Whether the graph pays."""
        return self.built and self.rows > exact_max(space.dim) and top_k * 2 <= MOST_EF_SEARCH

    def breadth(self, *, filtered: bool) -> int:
        """Candidates that a search of the graph keeps, where the call does not say."""
        by_size = min(max(self.noted // EF_SEARCH_SHARE, EF_SEARCH), EF_SEARCH_LARGEST)
        chosen = self.ef_search or by_size
        return min(chosen * (2 if filtered else 1), MOST_EF_SEARCH)


#: The route of what does not exist, or needs none.
NOWHERE = Route(0, 0, built=False)
#: Of a collection of which nothing is remembered: the search itself counts its rows; and of one that was small then.
UNKNOWN, SMALL = Route(0, -1, built=False), Route(0, 0, built=False)


class Large(Exception):
    """A collection of which nothing was remembered is large: its route must be known first."""


@dataclass(slots=True)
class Routes:
    """What a process remembers of collections, for some seconds, and when it last asked for maintenance."""

    known: dict[tuple[str | None, str, int], tuple[float, Route]] = field(default_factory=dict)
    warned: dict[int, float] = field(default_factory=dict)

    def forget(self) -> None:
        """Ask anew."""
        self.known.clear()

    def keys(self, gate: Gate, place: Place) -> tuple[Key, ...]:
        """The collection's indexed keys, for whoever searches no space."""
        return self._remembered((place.scope.tenant, place.collection, 0), lambda: self._keys(gate, place)).keys

    def cached(self, place: Place, space_id: int) -> Route:
        """The cached route, for a search by a vector alone: a route, SMALL, or UNKNOWN. Never asks the database.

        Asking first would cost another transaction for each collection that was not searched within the last seconds.
        With many tenants, that is most collections.
        """
        return self._held((place.scope.tenant, place.collection, space_id))

    def was_small(self, place: Place, space_id: int) -> None:
        """What a search found out by itself."""
        self._remember((place.scope.tenant, place.collection, space_id), SMALL)

    def find(self, gate: Gate, place: Place, space: EmbedSpace, space_id: int, *, afresh: bool = False) -> Route:
        """The collection's route, what is remembered of it unless `afresh`; one that does not exist has no rows."""
        key = (place.scope.tenant, place.collection, space_id)
        return self._remembered(key, lambda: self._look(gate, place, space, space_id), afresh=afresh)

    def _remembered(self, key: tuple[str | None, str, int], ask: Callable[[], Route], *, afresh: bool = False) -> Route:
        held = UNKNOWN if afresh else self._held(key)
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
            "space %d: a collection has more than %d rows that no graph holds%s, and each search reads them one by "
            "one. Run: pgrecall maintain",
            space_id,
            most,
            " yet" if route.built else "",
            extra={"operation": "route", "tenant": place.scope.tenant, "collection": place.collection},
        )


def look(gate: Gate, place: Place, space: EmbedSpace, space_id: int) -> Route:
    """The collection's route as it is now."""
    params = place.at(space=space_id, most=COUNTED)
    work = [(sql.ROUTE, params), (sql.VALID, sql.names_of(space_id))]
    rows, valid = gate.read(place.scope, "route", lambda tx: tx.many(work, commit=True))
    if not rows:
        return NOWHERE
    keys, noted, generation, count, *rest = rows[0]
    found = Route(generation, count, (generation,) in valid, *rest)._replace(keys=ready_keys(keys))
    noted = noted or {}
    return found._replace(noted=noted.get("rows", 0), ef_search=noted.get("ef_search"))
