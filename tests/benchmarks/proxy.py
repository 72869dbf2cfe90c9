"""A proxy between client and server that counts round trips and adds latency.

A round trip is one or more messages of the client, after which it waits for the server. It is counted when the client
sends bytes for the first time since it received some. With latency, a client that pipelines statements has sent all of
them long before the first answer arrives, so that they count as one round trip.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

import sqlalchemy as sa

BLOCK = 1 << 18


class Proxy:
    """Listens on loopback TCP in its own thread, in front of the server's unix socket."""

    def __init__(self, url: sa.URL, delay: float = 0.0) -> None:
        """`url` gives the folder of the server's socket (?host=…). `delay` is in seconds, for each direction."""
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
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> sa.URL:
        """The server as seen through the proxy."""
        # A unix socket offers neither encryption, and each request for one would be a round trip.
        query = {"sslmode": "disable", "gssencmode": "disable"}
        return self._behind.set(host="127.0.0.1", port=self._port, query=query)

    @contextmanager
    def counting(self) -> Iterator[Count]:
        """Count the round trips within the block; read `trips` after it."""
        count = Count()
        before = self.round_trips
        yield count
        count.trips = self.round_trips - before

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_unix_connection(self._socket)
        waits = True  # the first message of a connection is a round trip too

        def sent() -> None:
            nonlocal waits
            self.round_trips += waits
            waits = False

        def answered() -> None:
            nonlocal waits
            waits = True

        # Closing the proxy cancels this, which asyncio's server would report as an error.
        with suppress(asyncio.CancelledError):
            await asyncio.gather(
                self._pipe(client, to_server, on_read=sent), self._pipe(server, to_client, on_delivery=answered)
            )

    async def _pipe(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        on_read: Callable[[], None] = lambda: None,
        on_delivery: Callable[[], None] = lambda: None,
    ) -> None:
        """Read at once and deliver `delay` later. Data that waits in between blocks no reader or writer."""
        wire: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def read() -> None:
            block = b"-"
            while block:
                try:
                    block = await source.read(BLOCK)
                except ConnectionError:
                    block = b""
                if block:
                    on_read()
                wire.put_nowait((self._loop.time() + self.delay, block))

        async def deliver() -> None:
            while True:
                due, block = await wire.get()
                if (wait := due - self._loop.time()) > 0:
                    await asyncio.sleep(wait)
                if not block:
                    return
                on_delivery()
                target.write(block)

        try:
            await asyncio.gather(read(), deliver())
        finally:
            target.close()

    async def _shut_down(self) -> None:
        self._server.close()
        connections = asyncio.all_tasks() - {asyncio.current_task()}
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@contextmanager
def apart(url: sa.URL, delay: float) -> Iterator[sa.URL]:
    """Run a proxy in its own process, so that it takes no time from the client. Yields the server's new URL."""
    command = [sys.executable, "-m", __spec__.name, url.render_as_string(hide_password=False), str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        yield sa.make_url(process.stdout.readline().strip())
        process.stdin.close()


class Count:
    """The number of round trips of a block."""

    trips: int = 0


if __name__ == "__main__":
    with Proxy(sa.make_url(sys.argv[1]), float(sys.argv[2])) as proxy:
        print(proxy.url.render_as_string(hide_password=False), flush=True)  # noqa: T201
        sys.stdin.read()
