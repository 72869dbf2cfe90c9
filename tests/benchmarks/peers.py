"""The peers, each a process that measures its own time, in an environment of their own (they pin older libraries).

Both are set up as their documentation shows for many tenants in one table: the tenant is a column (LangChain) or an
indexed metadata key (LlamaIndex), one HNSW index has the default parameters, and each query filters by tenant.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa

NAMES = {"langchain": "LangChain", "llamaindex": "LlamaIndex"}
BATCH = 1_000
_SERVER = Path(__file__).with_name("peer_server.py")


class Timed(NamedTuple):
    """The answer of a system that measured its own time."""

    seconds: float
    ids: list[str]


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer with the corpus, its speed of ingest, and the duration of the index build after it."""

    name: str
    url: sa.URL
    process: subprocess.Popen[str]
    rows_per_second: float
    index_seconds: float
    python: Path
    folder: Path

    def query(self, question: int) -> Timed:
        """Ask the corpus' question with this number."""
        return Timed(**_call(self.process, do="query", question=question))

    @contextmanager
    def through(self, url: sa.URL) -> Iterator[Peer]:
        """The same rows, searched by another process through another address."""
        with _process(self.python, self.name, url, self.folder) as process:
            _call(process, do="open")
            yield Peer(self.name, url, process, 0.0, 0.0, self.python, self.folder)


def fill(name: str, python: Path, url: sa.URL, folder: Path, stack: ExitStack) -> Peer:
    """Start a peer on an empty database, and let it write the corpus that was saved in `folder`."""
    process = stack.enter_context(_process(python, name, url, folder))
    _call(process, do="open", create=True)
    took = _call(process, do="ingest", batch=BATCH)
    return Peer(name, url, process, took["rows"] / took["seconds"], took["index_seconds"], python, folder)


def versions(python: Path) -> dict[str, str]:
    """The versions of the packages that determine the peers' speed."""
    code = "import json, sys, importlib.metadata as m; print(json.dumps({p: m.version(p) for p in sys.argv[1:]}))"
    packages = ("langchain-postgres", "llama-index-vector-stores-postgres", "SQLAlchemy", "pgvector", "numpy")
    done = subprocess.run([python, "-c", code, *packages], check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


@contextmanager
def _process(python: Path, name: str, url: sa.URL, folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [str(python), str(_SERVER), name, url.render_as_string(hide_password=False), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()


def _call(process: subprocess.Popen[str], **request: Any) -> dict[str, Any]:
    assert process.stdin is not None and process.stdout is not None
    print(json.dumps(request), file=process.stdin, flush=True)
    if not (line := process.stdout.readline()):
        raise RuntimeError(f"the peer's process ended at {request}; see its output above")
    return dict(json.loads(line))
