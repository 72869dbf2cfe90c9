"""Maintenance of each space, which depends on its large collections.

The maintenance role moves rows; the owner creates indexes. There is one maintainer at a time, by a lock of the owner's
session, which is released if the process is killed. A maintainer may die after any step: the next one drops what is not
valid, and takes over what is complete.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import sqlalchemy as sa

from pgrecall.errors import Conflict, InvalidInput, NotFound
from pgrecall.maintenance.indexes import Indexes, MaintenanceProgress, owning
from pgrecall.operations.chunks.promotion import ENTER_BATCH, MARK_BATCH, promote
from pgrecall.operations.registry import Place
from pgrecall.operations.search.routes import MAX_DIM, exact_max
from pgrecall.postgres.transactions import Gate, Ground, Scope
from pgrecall.schema import WAITING
from pgrecall.statements import graphs as statements
from pgrecall.types import EmbedSpace, GraphBuild, MaintenanceAction, MaintenanceResult

logger = logging.getLogger("pgrecall")

R = TypeVar("R")

#: If more than this share of the graph's rows wait, or were deleted, a new graph is cheaper than the old one: entering
#: a row takes 1 to 3 ms, a build takes 0.3 for each, and a vacuum repairs the graph around each deleted row.
REBUILD_SHARE = 0.2
#: Rows are marked for a table's first graph in this many parts, with a vacuum after each: marking rewrites a row, and
#: without vacuums the table would double in size. If there is a graph it does not pay: each vacuum reads all of it.
MARK_SHARES = 10


class _Held(NamedTuple):
    tenant: str
    collection: str
    in_graph: int
    waiting: int

    @property
    def rows(self) -> int:
        return self.in_graph + self.waiting


class Maintainer:
    """Maintenance of one database. `gate` acts as the maintenance role, `admin` is the owner's URL."""

    def __init__(self, gate: Gate, ground: Ground, admin: sa.URL, stopped: threading.Event | None = None) -> None:
        """Setting `stopped` makes `run` raise Conflict as soon as possible."""
        self._gate, self._ground, self._admin = gate, ground, admin
        self._scope = Scope.of_maintenance(ground)
        self._stopped = stopped or threading.Event()

    def run(
        self,
        space_id: int | None = None,
        *,
        rebuild: bool = False,
        wait: float = 0.0,
        build: GraphBuild | None = None,
        progress: MaintenanceProgress | None = None,
    ) -> list[MaintenanceResult]:
        """Bring the graphs of all spaces, or of one space, up to date with the stored rows.

        Args:
            space_id: The space to maintain; None for all.
            rebuild: Build new graphs even if entering the waiting rows would be cheaper (False).
            wait: Seconds to wait for another maintainer (0).
            build: What a build may use, and the graph's parameters; None for the defaults.
            progress: Called a few times a second, if given.

        Raises: Conflict if another maintainer is still at work after `wait` seconds; NotFound, InvalidInput,
        ConfigurationError, Unavailable.
        """
        build = build or GraphBuild()
        with self._gate.transaction(self._scope, "spaces") as tx:
            spaces = tx.last(statements.SPACES, {})
        if space_id is not None:
            spaces = [row for row in spaces if row[0] == space_id]
            if not spaces:
                raise NotFound(f"space {space_id} does not exist; list the spaces: pgrecall spaces list")
            if rebuild and (space := EmbedSpace(*spaces[0][1:5])).dim > MAX_DIM:
                raise InvalidInput(
                    f"space {space_id}, {space}, can't have a graph: pgvector indexes half-precision vectors of up to "
                    f"{MAX_DIM:,} dimensions. Its collections are searched exactly. For a graph, let the model produce "
                    "shorter vectors, in another space"
                )
        with owning(self._admin, self._ground.vector_schema, self._stopped) as indexes:
            indexes.check_version()
            indexes.lock(wait)
            done = []
            for number, *_ in spaces:
                # Read again under the lock: another maintainer may have worked while this one waited.
                with self._gate.transaction(self._scope, "spaces") as tx:
                    now = [row for row in tx.last(statements.SPACES, {}) if row[0] == number]
                for _, *identity, generation, rows in now:
                    one = _Space(self._gate, self._ground, indexes, number, EmbedSpace(*identity), progress)
                    done.append(one.maintain(generation, rows, rebuild=rebuild, build=build))
            if any(one.action == "built" for one in done):
                indexes.vacuum()
            return done

    def forget(self, space_id: int) -> None:
        """Drop every graph of a space before the space is dropped. Raises Conflict if another maintainer is at work."""
        with owning(self._admin, self._ground.vector_schema, self._stopped) as indexes:
            indexes.lock(0.0)
            for generation in indexes.graphs(space_id):
                indexes.drop(space_id, generation)


class _Space:
    """One space, while its graph is maintained."""

    def __init__(
        self,
        gate: Gate,
        ground: Ground,
        indexes: Indexes,
        number: int,
        space: EmbedSpace,
        progress: MaintenanceProgress | None,
    ) -> None:
        self._gate, self._ground, self._indexes = gate, ground, indexes
        self._scope = Scope.of_maintenance(ground)
        self._number, self._space, self._progress = number, space, progress

    def maintain(self, generation: int, built: int, *, rebuild: bool, build: GraphBuild) -> MaintenanceResult:
        if self._space.dim > MAX_DIM:
            return self._did("exact")
        valid = self._indexes.graphs(self._number)
        ahead = max((g for g, ok in valid.items() if ok), default=generation)
        if ahead > generation:  # built by a maintainer that died before it recorded the graph
            generation, built = ahead, self._switch(ahead)
        for left in sorted(g for g, ok in valid.items() if g != generation or not ok):
            self._indexes.drop(self._number, left)
        current, most = valid.get(generation, False), exact_max(self._space.dim)
        held = self._collections(generation)
        large = [h for h in held if h.rows > most]
        if not large:
            # Not right below the limit, so that a collection of about that size is not built and dropped in turns.
            if current and all(h.rows <= most // 2 for h in held):
                self._retire(generation)
                return self._did("dropped")
            return self._did("none" if current else "exact", generation=generation)
        self._note(large)
        inside, waiting = sum(h.in_graph for h in held), sum(h.waiting for h in large)
        built = max(built, inside)  # does not count the rows that upserts entered
        lost = 1 - inside / built if built else 0.0
        if rebuild or not current or lost > REBUILD_SHARE or waiting > REBUILD_SHARE * (inside + waiting):
            return self._rebuild(generation, large, build)
        entered = self._move(large, generation, ENTER_BATCH, "entering rows")
        self._record(generation, built + entered)
        return self._did("entered" if entered else "none", entered or inside, generation)

    def _rebuild(self, generation: int, large: list[_Held], build: GraphBuild) -> MaintenanceResult:
        """Build a new graph next to the old one, which answers searches until the new one is complete."""
        if generation + 1 >= WAITING:  # no numbers left: begin again; searches are exact until the build is done
            self._retire(generation)
            generation, large = 0, [h._replace(in_graph=0, waiting=h.rows) for h in large]
        generation += 1
        self._move(large, generation, MARK_BATCH, f"marking rows for graph {generation}")
        self._indexes.build(self._number, self._space, generation, self._parts(generation), build, self._progress)
        rows = self._switch(generation)
        for left in sorted(g for g in self._indexes.graphs(self._number) if g != generation):
            self._indexes.drop(self._number, left)
        logger.info("space %d: built graph %d from %d rows", self._number, generation, rows)
        return self._did("built", rows, generation)

    def _note(self, large: list[_Held]) -> None:
        """Store the collections' sizes, which determine ef_search."""
        for h in large:
            scope = Scope.of_maintenance_for(h.tenant, self._ground).setting({"lock_timeout": "1s"})
            params = Place(scope, h.collection).at(noted=json.dumps({"rows": h.rows}), rows=h.rows)
            try:
                with self._gate.transaction(scope, "graph note") as tx:
                    tx.count(statements.NOTE_ROWS, params)
            except Conflict as exc:  # a long write holds the collection's lock; the next maintenance tries again
                logger.info("space %d: the size of a collection could not be stored: %s", self._number, exc)

    def _retire(self, generation: int) -> None:
        """Drop the space's graph. With generation 0 every row waits, whatever its own number is."""
        self._indexes.drop(self._number, generation)
        self._record(0, 0)

    def _move(self, large: list[_Held], generation: int, batch: int, what: str) -> int:
        total, done, cleaned = sum(h.waiting for h in large), 0, 0
        share = max(MARK_BATCH, total // MARK_SHARES)
        cleans = batch == MARK_BATCH and not self._indexes.any()

        def moved(count: int) -> None:
            nonlocal done, cleaned
            self._indexes.check_stopped()
            done += count
            if cleans and done - cleaned >= share and done < total:
                self._indexes.vacuum()
                cleaned = done
            if self._progress is not None:
                self._progress(f"space {self._number}: {what}", done, total)

        for h in large:
            place = Place(Scope.of_maintenance_for(h.tenant, self._ground), h.collection)
            promote(self._gate, place, self._number, generation, most=h.waiting, batch=batch, moved=moved)
        return done

    def _switch(self, generation: int) -> int:
        rows = self._inside(generation)
        self._record(generation, rows)
        return rows

    def _inside(self, generation: int) -> int:
        return sum(h.in_graph for h in self._collections(generation))

    def _parts(self, generation: int) -> dict[str, int]:
        """How many rows of a generation each table has."""
        [*tables] = self._indexes.tables
        if len(tables) == 1:
            return {tables[0]: self._inside(generation)}
        params = {"space": self._number, "generation": generation}
        with self._gate.transaction(self._scope, "graph parts") as tx:
            return dict(tx.last(statements.PARTS, params))

    def _record(self, generation: int, rows: int) -> None:
        params = {"space": self._number, "generation": generation, "rows": rows}
        with self._gate.transaction(self._scope, "graph record") as tx:
            tx.count(statements.SET_GENERATION, params)

    def _collections(self, generation: int) -> list[_Held]:
        with self._gate.transaction(self._scope, "graph look") as tx:
            rows = tx.last(statements.COLLECTIONS, {"space": self._number, "generation": generation})
        return [_Held(*row) for row in rows]

    def _did(self, action: MaintenanceAction, rows: int = 0, generation: int = 0) -> MaintenanceResult:
        return MaintenanceResult(self._number, self._space, action, rows, generation)


def aside(gate: Gate, work: Callable[[threading.Event], R]) -> R:
    """Run synchronous work, in a thread if the caller is on an event loop.

    If the caller is cancelled there, the work's event is set and the caller waits for the work to end. So no build
    continues in the background.
    """
    stopped = threading.Event()
    if not gate.is_async:
        return work(stopped)

    async def threaded() -> R:
        running = asyncio.ensure_future(asyncio.to_thread(work, stopped))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            stopped.set()
            await asyncio.wait([running])
            running.exception()  # retrieved, but not raised: the caller was cancelled
            raise

    return gate.wait(threaded())  # type: ignore[no-any-return]
