"""Real Postgres processes: who uses a server, what starts and stops it, and what survives a crash."""

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pgrecall import embedded
from support.embedded_server import FAST, IMPORT, USER, eventually, python, query

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the embedded server needs POSIX file locks")


@pytest.mark.parametrize("version", [18, 16])
def test_start_query_stop(base: Path, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both majors start in a new home, keep their data, and are reached by their private socket alone."""
    home = base / "home"
    monkeypatch.setenv("PGPORT", "6543")
    with embedded.start(home, version=version) as server:
        query(server, "CREATE EXTENSION vector", "CREATE TABLE kept AS SELECT 1")
        assert str(query(server, "SHOW server_version")).startswith(str(version))
        assert query(server, "SHOW listen_addresses") == ""
        assert query(server, "SHOW fsync") == query(server, "SHOW data_checksums") == "on"
        assert query(server, "SELECT lower('Ä') || to_tsvector('simple', 'über')") == "ä'über':1"
        seen = embedded.status(home, version=version)
        assert (seen.running, seen.version, seen.data) == (True, version, home / f"pg{version}")
        assert stat.S_IMODE(seen.socket.stat().st_mode) == 0o700
    assert not embedded.status(home).running
    with embedded.start(home) as server:
        assert server.version == version  # what the home has
        assert query(server, "SELECT count(*) FROM kept") == 1


def test_status_and_stop_make_nothing(base: Path) -> None:
    """To look at a server or to stop one that never was makes no folder."""
    home = base / "home"
    assert embedded.status(home) == embedded.ServerStatus(
        False, 18, home / "pg18", home / "socket-18", pid=None, kept=False
    )
    assert embedded.stop(home) is False
    assert not home.exists()


def test_uses_in_one_process(home: Path) -> None:
    """Eight threads share one server, which ends with the last use; to release one twice counts once."""
    with ThreadPoolExecutor(8) as pool:
        servers = list(pool.map(lambda _: embedded.start(home, settings=FAST), range(8)))
    for server in servers[1:]:
        server.release()
        server.release()
    assert query(servers[0], "SELECT 1") == 1
    servers[0].release()
    assert not embedded.status(home).running


def test_last_process_stops_it(home: Path) -> None:
    """A second process uses the first one's server, and the server ends with the second."""
    with embedded.start(home, settings=FAST) as first, python(USER, home) as other:
        assert other.stdout
        assert int(other.stdout.readline()) == embedded.status(home).pid
        first.release()
        assert embedded.status(home).running
        other.communicate("\n")
    assert not embedded.status(home).running


def test_killed_user(home: Path) -> None:
    """A user killed by -9 leaves the server to the next one, with whom it ends."""
    with python(USER, home) as victim:
        assert victim.stdout
        pid = int(victim.stdout.readline())
        victim.kill()
    with embedded.start(home) as server:
        assert embedded.status(home).pid == pid
        assert query(server, "SELECT 1") == 1
    assert not embedded.status(home).running


def test_killed_postmaster_and_reused_pid(home: Path) -> None:
    """A killed Postgres recovers though its lock files name a stranger's process, which stays unharmed."""
    server = embedded.start(home)  # with fsync
    query(server, "CREATE TABLE survivor AS SELECT 1")
    pid = embedded.status(home).pid
    assert pid
    lock = embedded.status(home).socket / ".s.PGSQL.5432.lock"
    stale = lock.read_text()
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not embedded.status(home).running)
    uid = (home / "pg18").stat().st_uid
    with subprocess.Popen(["sleep", "60"], user=uid) as stranger:
        for file in (lock, home / "pg18" / "postmaster.pid"):
            file.write_text(stale.replace(str(pid), str(stranger.pid), 1))
        assert embedded.stop(home) is False
        with embedded.start(home) as again:
            assert query(again, "SELECT count(*) FROM survivor") == 1
        server.release()
        assert not embedded.status(home).running
        assert stranger.poll() is None
        stranger.kill()


def test_kept_until_stopped(home: Path) -> None:
    """A kept server outlives its last user, holds none of that one's pipes, and ends with `stop`."""
    code = IMPORT + "embedded.start(sys.argv[1]).keep()"
    with python(code, home) as up:
        up.communicate(timeout=120)
    assert up.returncode == 0
    assert embedded.status(home).kept
    with embedded.start(home) as server:
        query(server, "SELECT 1")
    assert embedded.status(home).running
    with embedded.start(home):
        assert embedded.stop(home) is True
        assert not embedded.status(home).kept
        with embedded.start(home) as again:  # the same process may start it again
            assert query(again, "SELECT 1") == 1
    assert not embedded.status(home).running


def test_sixteen_at_once(base: Path) -> None:
    """Sixteen processes that start in an empty home all get one server, and it ends with the last."""
    home = base / "home"
    users = [python(USER, home) for _ in range(16)]
    pids = {user.stdout.readline() for user in users if user.stdout}
    assert len(pids) == 1
    assert int(pids.pop()) == embedded.status(home).pid
    for user in users:
        user.communicate("\n")
        assert user.returncode == 0
    assert not embedded.status(home).running


def test_forked_children(home: Path) -> None:
    """A forked child that ends leaves its parent's server up; one that outlives it keeps and then ends it."""
    code = USER.replace("sys.stdin.readline()", "") + (
        "import os, signal, time\n"
        "for leave in (sys.exit, os._exit):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        leave(0)\n"
        "    os.waitpid(child, 0)\n"
        "    assert embedded.server._ping(server._place) == 0\n"
        "if not os.fork():\n"
        "    sys.stdin.readline()\n"
        "    assert embedded.server._ping(server._place) == 0\n"
        "    print('child', flush=True)\n"
    )
    parent = python(code, home)
    assert parent.stdout
    assert parent.stdin
    assert int(parent.stdout.readline())
    assert parent.wait(30) == 0
    assert embedded.status(home).running
    parent.stdin.write("\n")
    parent.stdin.flush()
    assert parent.stdout.read() == "child\n"
    parent.communicate()
    assert eventually(lambda: not embedded.status(home).running)


def test_interrupt_of_a_user(home: Path) -> None:
    """Ctrl-C in the terminal of the process that started the server does not reach the server."""
    # A shell's background job, as this suite may be one, has its children ignore it.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    with python(heed + USER, home, start_new_session=True, stderr=subprocess.DEVNULL) as first:
        assert first.stdout
        pid = int(first.stdout.readline())
        with embedded.start(home):
            os.killpg(first.pid, signal.SIGINT)
            first.wait(30)
            assert embedded.status(home).pid == pid
    assert not embedded.status(home).running
