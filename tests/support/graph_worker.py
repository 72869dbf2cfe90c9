"""A process that maintains, writes or reads, for tests of several at once: `graph_worker.py URL WHAT`.

It begins when a line comes on stdin, and prints each thing that it saw as a line of JSON until stdin ends. `die-…`
maintains once, and kills itself with SIGKILL at that step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from pgrecall import Chunk, Conflict, PostgresVectorStore, connect
from pgrecall.maintenance import indexes, maintainer
from support.graphs import LARGE, SPACE, made, truth, vectors


def maintain(db: Any, _store: PostgresVectorStore) -> str:
    """One round of maintenance, which makes a new graph."""
    try:
        return db.maintain(rebuild=True)[0].action
    except Conflict:
        return "conflict"


def write(_db: Any, store: PostgresVectorStore) -> str:
    """New chunks, a changed one, and a deletion, never of those that readers look for."""
    n = f"w{os.getpid()}-{time.monotonic_ns()}"
    [new, moved] = -abs(vectors(2, time.monotonic_ns() % 2**32))
    store.upsert([Chunk(n, "new", new), Chunk(f"moves{os.getpid()}", "moved", moved)])
    store.delete([n])
    return "wrote"


def reader() -> Callable[[Any, PostgresVectorStore], float]:
    """Searches whose answers no writer touches: theirs lie in the opposite corner."""
    chunks = made(LARGE)
    questions = abs(vectors(20, 5))
    expected = [set(truth(chunks, q)) for q in questions]
    rng = np.random.default_rng(os.getpid())

    def read(_db: Any, store: PostgresVectorStore) -> float:
        at = int(rng.integers(len(questions)))
        hits = store.query(questions[at], 10)
        assert len(hits) == 10, f"{len(hits)} of 10 rows"
        return len({hit.chunk_id for hit in hits} & expected[at]) / 10

    return read


#: Step -> the function of a maintainer before (or after) which it dies.
STEPS: dict[str, tuple[Any, str, bool]] = {
    "before-marking": (maintainer._Space, "_rebuild", False),
    "half-marked": (maintainer, "promote", True),
    "before-build": (indexes.Indexes, "build", False),
    "after-build": (indexes.Indexes, "build", True),
    "before-switch": (maintainer._Space, "_switch", False),
    "after-switch": (maintainer._Space, "_switch", True),
    "before-vacuum": (indexes.Indexes, "vacuum", False),
}


def die_at(step: str) -> None:
    """Arrange for this process to be killed."""
    home, name, after = STEPS[step]
    lives = getattr(home, name)

    def dies(*args: Any, **kwargs: Any) -> None:
        if after:
            lives(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(home, name, dies)


def main(url: str, what: str) -> None:
    """Do it again and again until stdin ends, once at least."""
    if what.startswith("die-"):
        die_at(what.removeprefix("die-"))
    do = reader() if what == "read" else write if what == "write" else maintain
    ended = threading.Event()
    print("ready", flush=True)  # noqa: T201 -- the test reads it
    sys.stdin.readline()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    with connect(url, admin_url=url) as db:
        db.backend.routes.known.clear()
        store = db.tenant("acme").vectors("large", SPACE)
        while True:
            print(json.dumps(do(db, store)), flush=True)  # noqa: T201
            if ended.is_set():
                break


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
