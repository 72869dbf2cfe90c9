"""Users of an embedded server in their own processes, and helpers that inspect them."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from pgrecall import embedded

FAST = {"fsync": "off"}
SOURCE = Path(embedded.__file__).parent.parent
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
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())
