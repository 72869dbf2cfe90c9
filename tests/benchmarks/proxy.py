"""A network between client and server: counts round trips, and adds latency.

A round trip is a message (or many) of the client's, after which it waits for the server. It is counted when bytes
come from a client that was given bytes since it last sent any. With latency, a client that does not wait has sent
all it has long before the first answer reaches it, so pipelined statements count as the one round trip that they are.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

import sqlalchemy as sa

BLOCK = 1 << 18


class Proxy:
    """Listens on loopback TCP in a thread of its own, in front of the server's unix socket."""

    def __init__(self, url: sa.URL, delay: float = 0.0) -> None:
        """`url` names the server by its socket's folder (?host=…); `delay` is in seconds, in each direction."""
        folder, port = url.query["host"], url.query.get("port", "5432")
        self._socket = f"{folder}/.s.PGSQL.{port}"
        self._behind = url
        self.delay = delay
        self.round_trips = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop)
        self._port = server.result().sockets[0].getsockname()[1]
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> sa.URL:
        """The server as seen through the proxy."""
        # Neither encryption is offered on a unix socket, and asking for it would be a round trip of its own.
        query = {"sslmode": "disable", "gssencmode": "disable"}
        return self._behind.set(host="127.0.0.1", port=self._port, query=query)

    @contextmanager
    def counting(self) -> Iterator[Count]:
        """Counts what happens within the block; read `trips` after it."""
        count = Count()
        before = self.round_trips
        yield count
        count.trips = self.round_trips - before

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, to_server = await asyncio.open_unix_connection(self._socket)
        waits = [False]  # whether the client was answered since it last sent

        def sent() -> None:
            self.round_trips += waits[0]
            waits[0] = False

        def answered() -> None:
            waits[0] = True

        # The first message of a connection is a round trip too.
        waits[0] = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pipe(reader, to_server, read=sent))
            group.create_task(self._pipe(behind, writer, delivered=answered))

    async def _pipe(self, reader, writer, read=None, delivered=None) -> None:
        """Read at once, deliver `delay` later: what waits in between is on the wire, and blocks nobody."""
        wire: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        clock = self._loop.time

        async def deliver() -> None:
            while True:
                due, block = await wire.get()
                if due > (now := clock()):
                    await asyncio.sleep(due - now)
                if not block:
                    writer.close()
                    return
                if delivered is not None:
                    delivered()
                writer.write(block)

        delivering = asyncio.create_task(deliver())
        block = b"-"
        while block:
            try:
                block = await reader.read(BLOCK)
            except ConnectionError:
                block = b""
            if block and read is not None:
                read()
            wire.put_nowait((clock() + self.delay, block))
        await delivering

    async def _shut_down(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError, Exception):
                await task


class Count:
    """How many round trips a block took."""

    trips: int = 0
