"""Maintenance of graphs: rows enter them, new generations are built beside the old, what is left over is dropped.

Rows move as the maintenance role. Indexes are the owner's, on a direct connection in autocommit: CREATE INDEX
CONCURRENTLY runs in no transaction. One maintainer at a time, whoever starts it; the others say so and leave.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import psycopg
import sqlalchemy as sa
from psycopg import sql

from pgrecall.errors import ConfigurationError, Conflict, NotFound
from pgrecall.operations.graphs import MAX_DIM, exact_max
from pgrecall.operations.registry import Place
from pgrecall.schema import GRAPH_NAME, WAITING
from pgrecall.statements import graphs as statements
from pgrecall.tenancy import Gate, Scope, wrapped
from pgrecall.types import EmbedSpace

logger = logging.getLogger("pgrecall")

#: Rows of a transaction that enters them into a live graph, at 1 to 3 ms each; and of one that only marks them.
ENTER_BATCH, MARK_BATCH = 100, 5_000
#: A share of the graph's rows above which those that wait, or were deleted, make a new graph cheaper than the old one.
REBUILD_SHARE = 0.2
_OPERATOR_CLASSES = {"cosine": "halfvec_cosine_ops", "l2": "halfvec_l2_ops", "ip": "halfvec_ip_ops"}


@dataclass(frozen=True, slots=True)
class Maintained:
    """What was done for one space: `action` is none, entered, built or exact (nothing large enough for a graph)."""

    space_id: int
    space: EmbedSpace
    action: str
    rows: int = 0
    generation: int = 0


class _Held(NamedTuple):
    tenant: str
    collection: str
    in_graph: int
    waiting: int


class Maintainer:
    """Maintenance of one database: `gate` acts as the maintenance role, `admin` is the owner's URL."""

    def __init__(self, gate: Gate, vector_schema: str, admin: sa.URL) -> None:
        self._gate, self._vector_schema, self._admin = gate, vector_schema, admin

    def run(self, space_id: int | None = None, *, rebuild: bool = False) -> list[Maintained]:
        """Bring the graphs of all spaces, or of one, up to what is stored; `rebuild` makes them anew.

        Raises: Conflict where another maintainer is at work; NotFound; ConfigurationError; Unavailable.
        """
        with self._owner() as owner:
            version, fit = owner.execute(statements.VERSION).fetchone() or ("none", False)
            if not fit:
                raise ConfigurationError(
                    f"pgvector {version} has no iterative scans, so every search stays exact; graphs need 0.8 or "
                    "later: ALTER EXTENSION vector UPDATE"
                )
            [locked] = owner.execute(statements.TRY_LOCK).fetchone() or (False,)
            if not locked:
                raise Conflict("another process maintains this database's graphs right now; call again when it is done")
            with self._gate.transaction(Scope.of_maintenance(self._vector_schema), "spaces") as tx:
                spaces = tx.last(statements.SPACES, {})
            if space_id is not None and space_id not in (row[0] for row in spaces):
                raise NotFound(f"there is no space {space_id}; see: pgrecall spaces list")
            done = [
                self._space(owner, number, EmbedSpace(*identity), generation, rows, rebuild=rebuild)
                for number, *identity, generation, rows in spaces
                if space_id in (None, number)
            ]
            if any(one.action in ("entered", "built") for one in done):
                owner.execute("VACUUM (ANALYZE) pgrecall.chunk_vectors")
            return done

    @contextmanager
    def _owner(self) -> Iterator[psycopg.Connection]:
        dsn = self._admin.set(drivername="postgresql").render_as_string(hide_password=False)
        try:
            with psycopg.connect(dsn, autocommit=True, prepare_threshold=None, client_encoding="utf8") as connection:
                path = sql.SQL("SET search_path = pg_catalog, {}, pg_temp").format(sql.Identifier(self._vector_schema))
                connection.execute(path)
                yield connection
        except psycopg.Error as exc:
            raise wrapped(exc) from exc

    def _space(
        self, owner: psycopg.Connection, number: int, space: EmbedSpace, generation: int, built: int, *, rebuild: bool
    ) -> Maintained:
        if space.dim > MAX_DIM:
            return Maintained(number, space, "exact")
        valid = self._indexes(owner, number)
        ahead = max((g for g, ok in valid.items() if ok), default=generation)
        if ahead > generation:  # built by a maintainer that died before it said so
            generation, built = ahead, self._switch(number, ahead)
        for left in sorted(g for g, ok in valid.items() if g != generation or not ok):
            self._drop(owner, number, left)
        held = self._collections(number, generation)
        large = [h for h in held if h.in_graph or h.in_graph + h.waiting > exact_max(space.dim)]
        inside, waiting = sum(h.in_graph for h in large), sum(h.waiting for h in large)
        if not any(h.in_graph + h.waiting > exact_max(space.dim) for h in large):
            return Maintained(number, space, "exact", generation=generation)
        current = valid.get(generation, False)
        lost = 1 - inside / built if built else 0.0
        if rebuild or not current or lost > REBUILD_SHARE or waiting > REBUILD_SHARE * (inside + waiting):
            return self._build(owner, number, space, generation + 1, large)
        if not waiting:
            return Maintained(number, space, "none", inside, generation)
        entered = sum(self._promote(number, h, generation, ENTER_BATCH) for h in large if h.waiting)
        with self._gate.transaction(Scope.of_maintenance(self._vector_schema), "graph rows") as tx:
            tx.count(statements.ADD_ROWS, {"space": number, "rows": entered})
        return Maintained(number, space, "entered", entered, generation)

    def _build(
        self, owner: psycopg.Connection, number: int, space: EmbedSpace, generation: int, large: list[_Held]
    ) -> Maintained:
        """A new graph beside the old one, which serves until the new one is whole."""
        if generation >= WAITING:
            raise Conflict(f"space {number} has had {generation} graphs; embed into a new space")
        for h in large:
            self._promote(number, h, generation, MARK_BATCH)
        statement = """
            CREATE INDEX CONCURRENTLY {name} ON pgrecall.chunk_vectors
            USING hnsw ((embedding::halfvec({dim})) {operators}) WHERE space_id = {space} AND graph <= {generation}"""
        owner.execute("SET maintenance_work_mem = '1GB'")
        owner.execute(
            "SELECT set_config('max_parallel_maintenance_workers', "
            "greatest(2, current_setting('max_parallel_workers')::int / 2)::text, false)"
        )
        owner.execute(
            sql.SQL(statement).format(
                name=sql.Identifier(GRAPH_NAME.format(space=number, generation=generation)),
                dim=sql.Literal(space.dim),
                operators=sql.Identifier(self._vector_schema, _OPERATOR_CLASSES[space.distance]),
                space=sql.SQL(f"{number}::int2"),
                generation=sql.SQL(f"{generation}::int2"),
            )
        )
        rows = self._switch(number, generation)
        for left in sorted(g for g in self._indexes(owner, number) if g != generation):
            self._drop(owner, number, left)
        logger.info("space %d: graph %d built of %d rows", number, generation, rows)
        return Maintained(number, space, "built", rows, generation)

    def _switch(self, number: int, generation: int) -> int:
        rows = sum(h.in_graph for h in self._collections(number, generation))
        with self._gate.transaction(Scope.of_maintenance(self._vector_schema), "graph switch") as tx:
            tx.count(statements.SET_GENERATION, {"space": number, "generation": generation, "rows": rows})
        return rows

    def _collections(self, number: int, generation: int) -> list[_Held]:
        with self._gate.transaction(Scope.of_maintenance(self._vector_schema), "graph look") as tx:
            rows = tx.last(statements.COLLECTIONS, {"space": number, "generation": generation})
        return [_Held(*row) for row in rows]

    def _promote(self, number: int, held: _Held, generation: int, batch: int) -> int:
        place = Place(Scope.of_maintenance_for(held.tenant, self._vector_schema), held.collection)
        total = 0
        while True:
            with self._gate.transaction(place.scope, "promote") as tx:
                moved = tx.count(statements.PROMOTE, place.at(space=number, generation=generation, batch=batch))
            total += moved
            if moved < batch:
                return total

    def _indexes(self, owner: psycopg.Connection, number: int) -> dict[int, bool]:
        """The space's graphs by generation, and whether each is valid."""
        pattern = "^" + GRAPH_NAME.format(space=number, generation="[0-9]+") + "$"
        found = owner.execute(statements.INDEXES, {"pattern": pattern}).fetchall()
        return {int(re.findall(r"\d+", name)[-1]): valid for name, valid in found}

    def _drop(self, owner: psycopg.Connection, number: int, generation: int) -> None:
        name = sql.Identifier("pgrecall", GRAPH_NAME.format(space=number, generation=generation))
        owner.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(name))
