"""Connection pools: one for sync calls and one for each event loop. Replaced after a fork; a caller's stay open."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from pgrecall.errors import ConfigurationError
from pgrecall.postgres.engine_gate import EngineGate
from pgrecall.postgres.prepared import Preparing
from pgrecall.postgres.replicas import ReplicaState, ReplicatedGate
from pgrecall.postgres.transactions import Gate

DRIVER = "postgresql+psycopg"


def parse_url(url: str | sa.URL) -> sa.URL:
    """Parse a `postgresql://` or `postgres://` URL, with or without a driver, for sync and async use.

    Raises: ConfigurationError. The message never contains the URL, which may hold a password.
    """
    if isinstance(url, str) and url.startswith("postgres://"):
        url = "postgresql://" + url.removeprefix("postgres://")
    parsed = None
    with suppress(sa.exc.ArgumentError, ValueError):
        parsed = sa.make_url(url)
    if parsed is None:  # raised outside of the block: SQLAlchemy's error, which contains the URL, would be its context
        raise ConfigurationError("invalid database URL; expected postgresql://user:password@host:port/database")
    if parsed.get_backend_name() != "postgresql":
        raise ConfigurationError(f"the URL is for {parsed.get_backend_name()!r}; expected postgresql://…")
    return parsed.set(drivername=DRIVER)


def _refuse_engine(name: str, given: Any, kind: type[sa.Engine | AsyncEngine]) -> None:
    """Raise ConfigurationError if pgrecall can't work with the engine."""
    if not isinstance(given, kind):
        wanted = f"{kind.__module__.removesuffix('.engine').removesuffix('.base')}.{kind.__name__}"
        raise ConfigurationError(f"{name} is {type(given).__name__}; expected {wanted}")
    if given.dialect.driver not in ("psycopg", "psycopg_async"):
        raise ConfigurationError(
            f"the engine uses the driver {given.dialect.driver!r}; expected {DRIVER}:// (psycopg 3)"
        )
    if isinstance(given.pool, sa.StaticPool | sa.SingletonThreadPool):
        raise ConfigurationError(
            f"the engine's {type(given.pool).__name__} shares one connection between concurrent calls, which would end "
            "each other's transactions; use another pool, such as QueuePool or NullPool"
        )


class Engines:
    """The engines of one database. `replica` are the engines of its read replica, which are closed with them."""

    def __init__(
        self,
        url: sa.URL | None,
        *,
        engine: sa.Engine | None = None,
        async_engine: AsyncEngine | None = None,
        pool_size: int = 5,
        max_overflow: int = 10,
        pool_timeout: float = 30.0,
        connect_timeout: int = 10,
        prepare: bool = True,
        replica: Engines | None = None,
    ) -> None:
        given: tuple[tuple[str, Any, type[sa.Engine | AsyncEngine]], ...] = (
            ("engine", engine, sa.Engine),
            ("async_engine", async_engine, AsyncEngine),
        )
        for name, value, kind in given:
            if value is not None:
                _refuse_engine(name, value, kind)
        self.url = url
        self.replica = replica
        self._replica_state = ReplicaState()
        self._preparing = Preparing(prepare)
        self._given = engine
        self._given_async = async_engine
        self._options: dict[str, Any] = {
            "pool_size": pool_size,
            "max_overflow": max_overflow,
            "pool_timeout": pool_timeout,
            # Every transaction begins and ends by itself (`engine_gate`), so there is nothing to reset on return.
            "pool_reset_on_return": None,
            "connect_args": {
                "autocommit": True,
                # Only statements that ask for it are prepared (`prepared`), however often others run: a generic plan
                # took a filtered query from 7.5 to 142 ms, and a pooler gives the next transaction another connection.
                "prepare_threshold": None,
                "application_name": "pgrecall",
                # Parameters are sent as UTF-8, whatever PGCLIENTENCODING or the database's default is.
                "client_encoding": "utf8",
                "connect_timeout": connect_timeout,
            },
        }
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._sync: Gate | None = None
        self._loops: dict[int, tuple[weakref.ref[asyncio.AbstractEventLoop], AsyncEngine, weakref.WeakSet[Any]]] = {}
        self._engine: sa.Engine | None = None
        self.closed = False

    def _check(self) -> None:
        if self._pid != os.getpid():
            # After a fork: the parent's sockets must be neither used nor closed. Kept, so that nothing finalizes them.
            self._inherited = (self._engine, self._loops)
            self._reset()
        if self.closed:
            raise ConfigurationError("this database is closed; connect again")

    def sync_gate(self) -> Gate:
        """The gate for synchronous calls."""
        self._check()
        if self._sync is None:
            with self._lock:
                if self._sync is None:
                    self._sync = self._gate(self._sync_engine(), is_async=False)
        return self._sync

    def _gate(self, engine: sa.Engine, *, is_async: bool) -> Gate:
        primary = EngineGate(engine, is_async=is_async)
        if self.replica is None:
            return primary
        reader = self.replica.async_gate if is_async else self.replica.sync_gate
        return ReplicatedGate(primary, reader, self._replica_state)

    def _sync_engine(self) -> sa.Engine:
        if self._given is not None:
            return self._given
        if self.url is None:
            raise ConfigurationError("only async_engine= was given; also pass engine= for synchronous calls")
        self._engine = sa.create_engine(self.url, **self._options)
        sa.event.listen(self._engine, "connect", self._preparing.install)
        return self._engine

    def async_gate(self) -> Gate:
        """The gate for the running event loop. A pool's connections belong to the loop that opened them."""
        self._check()
        if self._given_async is not None:
            return self._gate(self._given_async.sync_engine, is_async=True)
        if self.url is None:
            raise ConfigurationError("only engine= was given; also pass async_engine= for asynchronous calls")
        loop = asyncio.get_running_loop()
        with self._lock:
            held = self._loops.get(id(loop))
            if held is None or held[0]() is not loop:
                self._drop_dead_loops()
                held = self._loops[id(loop)] = (weakref.ref(loop), *self._async_engine())
        return self._gate(held[1].sync_engine, is_async=True)

    def _async_engine(self) -> tuple[AsyncEngine, weakref.WeakSet[Any]]:
        assert self.url is not None
        engine = create_async_engine(self.url, **self._options)
        opened: weakref.WeakSet[Any] = weakref.WeakSet()

        def remember(connection: Any, _record: object) -> None:
            opened.add(connection.driver_connection)

        sa.event.listen(engine.sync_engine, "connect", remember)
        sa.event.listen(engine.sync_engine, "connect", self._preparing.install)
        return engine, opened

    def _drop_dead_loops(self) -> None:
        for key, (loop, engine, opened) in list(self._loops.items()):
            living = loop()
            if living is None or living.is_closed():
                self._finish(engine, opened)
                del self._loops[key]

    @staticmethod
    def _finish(engine: AsyncEngine, opened: weakref.WeakSet[Any]) -> None:
        """Close a loop's connections from outside the loop: libpq needs no event loop for it."""
        for connection in list(opened):
            connection.pgconn.finish()
        engine.sync_engine.dispose(close=False)

    def close(self) -> None:
        """Close every connection that these engines opened. Idempotent."""
        if self.replica is not None:
            self.replica.close()
        if self._pid != os.getpid() or self.closed:
            return
        with self._lock:
            self.closed = True
            if self._engine is not None:
                self._engine.dispose()
            for _, engine, opened in self._loops.values():
                self._finish(engine, opened)
            self._loops.clear()
