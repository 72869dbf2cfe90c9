"""Graph indexes: finding, building and dropping them, on the owner's own connection in autocommit mode.

CREATE INDEX CONCURRENTLY can't run in a transaction, and only the table's owner may create an index. So this is the one
module that does not go through a `Gate`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import NamedTuple, TypeAlias

import psycopg
import sqlalchemy as sa
from psycopg import sql

from pgrecall.errors import ConfigurationError, Conflict
from pgrecall.maintenance.advisories import PARALLEL_BUILD_FIXED, version
from pgrecall.postgres.driver import wrapped
from pgrecall.schema import GRAPH_NAME
from pgrecall.statements import graphs as statements
from pgrecall.types import EF_CONSTRUCTION, EmbedSpace, GraphBuild, M

logger = logging.getLogger("pgrecall")

#: Called with what is being done, the amount done, and the total (0 if unknown).
MaintenanceProgress: TypeAlias = Callable[[str, int, int], None]

_OPERATOR_CLASSES = {"cosine": "halfvec_cosine_ops", "l2": "halfvec_l2_ops", "ip": "halfvec_ip_ops"}
#: Seconds between two looks at a build, or at a lock that another process holds.
POLL = 0.2
#: Statements that wait for long transactions give up after this time. Nothing else waits behind them meanwhile.
LOCK_TIMEOUT = "1h"
#: Least memory of a build in bytes: a parallel build needs 32 MB for each process.
MIN_MEMORY = 96 * 2**20


def graph_bytes(dim: int, m: int) -> int:
    """Memory of one row while a graph is built: its half-precision vector, its neighbours, and their overhead.

    Measured as the rows at which builds of one process with 16 MB ran out of memory: 747 bytes at 16 dims, 1,483 at
    384 and 3,791 at 1,536 with m = 16; 1,995 at 384 with m = 32.
    """
    return 2 * dim + 32 * m + 210


class _Share(NamedTuple):
    """One table's part of a build: `part` rows of `total`, after `before`."""

    what: str
    before: int
    part: int
    total: int
    progress: MaintenanceProgress | None

    def tell(self, seen: tuple[str, int, int] | None) -> None:
        """Report how far the build is, from the blocks of its table."""
        if self.progress is None:
            return
        if seen is None:
            self.progress(self.what, 0, 0)
            return
        phase, done, blocks = seen
        # In rows of the graph, so that there is one progress bar from marking to the end.
        at = self.before + (self.part * done // blocks if blocks else 0)
        self.progress(f"{self.what} ({phase})", at, self.total)


@contextmanager
def owning(admin: sa.URL, vector_schema: str, stopped: threading.Event) -> Iterator[Indexes]:
    """Open the graph indexes of one database, on a connection as the owner that stays open for the block."""
    dsn = admin.set(drivername="postgresql").render_as_string(hide_password=False)
    try:
        with psycopg.connect(
            dsn,
            autocommit=True,
            prepare_threshold=None,
            client_encoding="utf8",
            application_name="pgrecall maintenance",
        ) as connection:
            path = sql.SQL("SET search_path = pg_catalog, {}, pg_temp").format(sql.Identifier(vector_schema))
            connection.execute(path)
            connection.execute(statements.OWNER_SETTINGS, {"lock_timeout": LOCK_TIMEOUT})
            yield Indexes(connection, dsn, vector_schema, stopped)
    except psycopg.Error as exc:
        raise wrapped(exc) from exc


class Indexes:
    """The graphs of one database. Created by `owning`."""

    def __init__(self, connection: psycopg.Connection, dsn: str, vector_schema: str, stopped: threading.Event) -> None:
        self._connection, self._dsn, self._vector_schema, self._stopped = connection, dsn, vector_schema, stopped
        [(self.pgvector, self._fit)] = connection.execute(statements.VERSION).fetchall() or [("none", False)]
        [(self._work_mem, self._shared_buffers, self._most_workers)] = connection.execute(statements.SIZES).fetchall()
        #: Table -> the suffix of its graphs' names. One table, or the partitions.
        self.tables: dict[str, str] = dict(connection.execute(statements.TABLES).fetchall())
        connection.add_notice_handler(self._noticed)

    @staticmethod
    def _noticed(diagnostic: psycopg.errors.Diagnostic) -> None:
        if "no longer fits" in (diagnostic.message_primary or ""):
            logger.warning(
                "%s, so the build takes longer; give it more memory with --memory", diagnostic.message_primary
            )

    def check_stopped(self) -> None:
        """Raise Conflict if another thread asked to stop."""
        if self._stopped.is_set():
            raise Conflict("maintenance was stopped; finished steps are kept, and the next run continues there")

    def check_version(self) -> None:
        """Raise ConfigurationError if this version of pgvector can't search graphs."""
        if not self._fit:
            raise ConfigurationError(
                f"pgvector {self.pgvector} has no iterative scans, so every search is exact; graphs require 0.8 or "
                "later: ALTER EXTENSION vector UPDATE"
            )

    def lock(self, seconds: float) -> None:
        """Become the only maintainer for as long as the connection lives. Raises Conflict after `seconds`.

        It polls, because a statement that waits holds a snapshot, for which CREATE INDEX CONCURRENTLY would wait.
        """
        until = time.monotonic() + seconds
        while self._connection.execute(statements.TRY_LOCK).fetchone() != (True,):
            if time.monotonic() >= until:
                raise Conflict(
                    "another process is maintaining this database's graphs; call again when it has finished, or let "
                    "this call wait (wait=, --wait)"
                )
            self.check_stopped()
            time.sleep(POLL)

    def graphs(self, space_id: int) -> dict[int, bool]:
        """The space's graphs by generation, and whether each is valid in every partition."""
        found: dict[int, list[bool]] = {}
        for name, valid, _ in self._found(space_id):
            found.setdefault(int(name.split("_")[4]), []).append(valid)
        return {generation: all(ok) and len(ok) == len(self.tables) for generation, ok in found.items()}

    def any(self) -> bool:
        """Whether a graph of any space exists, valid or not."""
        return bool(self._found("[0-9]+"))

    def _found(self, space_id: int | str) -> list[tuple[str, bool, list[str]]]:
        pattern = "^" + GRAPH_NAME.format(space=space_id, generation="[0-9]+") + "(_p[0-9]+)?$"
        return self._connection.execute(statements.INDEXES, {"pattern": pattern}).fetchall()

    def drop(self, space_id: int, generation: int) -> None:
        """Drop one, concurrently with searches that use it."""
        for suffix in self.tables.values():
            name = sql.Identifier("pgrecall", GRAPH_NAME.format(space=space_id, generation=generation) + suffix)
            self._connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(name))

    def build(
        self,
        space_id: int,
        space: EmbedSpace,
        generation: int,
        rows: Mapping[str, int],
        build: GraphBuild,
        progress: MaintenanceProgress | None,
    ) -> None:
        """Build the graph of `generation`, concurrently with searches and writes.

        What a failed build leaves behind is dropped at once if possible, else by the next maintenance.

        Args:
            space_id: The space's number.
            space: The space.
            generation: The generation of the new graph.
            rows: The approximate number of rows in each table.
            build: What the build may use, and the graph's parameters.
            progress: Called a few times a second, if given.
        """
        m, ef = self._shape(space_id, build)
        what, done, total = f"space {space_id}: building graph {generation}", 0, sum(rows.values())
        try:
            for table, suffix in self.tables.items():
                part = rows.get(table, 0)
                memory = self._memory(part * graph_bytes(space.dim, m), build)
                self._set(memory, self._workers(build))
                name = GRAPH_NAME.format(space=space_id, generation=generation) + suffix
                self._build(
                    self._statement(name, table, space_id, space, generation, m, ef),
                    name,
                    memory,
                    _Share(what, done, part, total, progress),
                )
                done += part
        except BaseException:
            with suppress(psycopg.Error):
                self._connection.execute("SET lock_timeout = '5s'")
                self.drop(space_id, generation)
            raise

    def _statement(
        self, name: str, table: str, space_id: int, space: EmbedSpace, generation: int, m: int, ef: int
    ) -> sql.Composed:
        return sql.SQL(
            "CREATE INDEX CONCURRENTLY {name} ON {table} "
            "USING hnsw ((embedding::halfvec({dim})) {operators}) WITH (m = {m}, ef_construction = {ef}) "
            "WHERE space_id = {space}::int2 AND graph <= {generation}::int2"
        ).format(
            name=sql.Identifier(name),
            table=sql.Identifier("pgrecall", table),
            dim=sql.Literal(space.dim),
            operators=sql.Identifier(self._vector_schema, _OPERATOR_CLASSES[space.distance]),
            m=sql.Literal(m),
            ef=sql.Literal(ef),
            space=sql.Literal(space_id),
            generation=sql.Literal(generation),
        )

    def _build(self, statement: sql.Composed, name: str, memory: str, share: _Share) -> None:
        try:
            self._run(statement, share)
        except psycopg.errors.DiskFull as exc:
            if "shared memory" not in (exc.diag.message_primary or ""):
                raise
            # A parallel build uses shared memory, and a container has 64 MB of it by default.
            logger.warning("%s in parallel failed (%s); trying one process", share.what, exc.diag.message_primary)
            left = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier("pgrecall", name))
            self._connection.execute(left)
            self._set(memory, 0)
            self._run(statement, share)

    def _run(self, statement: sql.Composed, share: _Share) -> None:
        """Run a long statement in a thread, so that this thread can report its progress and stop it."""
        with ThreadPoolExecutor(1, "pgrecall-build") as pool, self._watching(share.progress is not None) as watcher:
            running = pool.submit(self._connection.execute, statement)
            try:
                while not wait([running], POLL).done:
                    self.check_stopped()
                    if watcher is not None:
                        share.tell(self._seen(watcher))
            except BaseException:
                while not wait([running], POLL).done:  # repeatedly: a cancel request that arrives too early is lost
                    with suppress(psycopg.Error):
                        self._connection.cancel_safe()
                raise
            running.result()

    def _watching(self, wanted: bool) -> AbstractContextManager[psycopg.Connection | None]:
        return psycopg.connect(self._dsn, autocommit=True) if wanted else nullcontext()

    def _seen(self, watcher: psycopg.Connection) -> tuple[str, int, int] | None:
        pid = self._connection.info.backend_pid
        found: tuple[str, int, int] | None = watcher.execute(statements.PROGRESS, {"pid": pid}).fetchone()
        return found

    def _shape(self, space_id: int, build: GraphBuild) -> tuple[int, int]:
        """m and ef_construction: as requested, else those of the current graph, else the defaults."""
        had = {"m": M, "ef_construction": EF_CONSTRUCTION}
        for _, valid, options in self._found(space_id):
            if valid:
                had |= {name: int(value) for name, value in (option.split("=") for option in options)}
        m = build.m or had["m"]
        return m, build.ef_construction or max(had["ef_construction"], 2 * m)

    def _memory(self, needed: int, build: GraphBuild) -> str:
        """The memory of a build: what its graph needs, up to what the server's own settings allow."""
        if build.memory is not None:
            return build.memory
        least, most = MIN_MEMORY, max(self._work_mem, self._shared_buffers)
        return f"{min(max(least, needed + needed // 10), max(least, most)) // 1024}kB"

    def _workers(self, build: GraphBuild) -> int:
        if version(self.pgvector) < PARALLEL_BUILD_FIXED:
            return 0  # parallel builds of these versions write outside of their memory (CVE-2026-3172)
        return self._most_workers if build.workers is None else build.workers

    def _set(self, memory: str, workers: int) -> None:
        values = {"memory": memory, "workers": str(workers)}
        self._connection.execute(statements.BUILD_SETTINGS, values)

    def vacuum(self) -> None:
        """Clean up moved and deleted rows. Not before a build, because a vacuum repairs a graph node by node."""
        self._connection.execute("VACUUM (ANALYZE, SKIP_LOCKED) pgrecall.chunk_vectors")
