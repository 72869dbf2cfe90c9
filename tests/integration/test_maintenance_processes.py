"""Maintenance under load: several processes at once, concurrent writers and readers, and killed processes."""

from __future__ import annotations

import collections
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from support import graph_worker
from support.graphs import GRAPHS, LARGE, SPACE, made, recall, run

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def large(database):
    """What all of them work on."""
    database.tenant("acme").vectors("large", SPACE).upsert(made(LARGE))


def started(url, what):
    program = [sys.executable, "-m", "support.graph_worker", url.render_as_string(hide_password=False), what]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(program, cwd=TESTS, text=True, **pipes)


def enough(seen):
    """Whether each kind of process did enough for the test to be one of all of them at once."""
    return {"built", "conflict"} <= set(seen["maintain"]) and len(seen["write"]) > 5 and len(seen["read"]) > 20


def test_four_maintainers_two_writers_and_two_readers_at_once(url, database):
    """One maintainer works at a time, the others get an error, and every search returns the right 10 rows."""
    database.maintain()
    seen = collections.defaultdict(list)

    def listen(what, process):
        for line in process.stdout:
            seen[what].append(json.loads(line))

    kinds = ["maintain"] * 4 + ["write"] * 2 + ["read"] * 2
    with ExitStack() as stack, ThreadPoolExecutor(len(kinds)) as pool:
        processes = [stack.enter_context(started(url, what)) for what in kinds]
        assert {process.stdout.readline() for process in processes} == {"ready\n"}
        heard = [pool.submit(listen, *pair) for pair in zip(kinds, processes, strict=True)]
        try:
            for process in processes:
                process.stdin.write("\n")
                process.stdin.flush()
            deadline = time.monotonic() + 120
            while not enough(seen) and time.monotonic() < deadline and not any(one.done() for one in heard):
                time.sleep(0.05)
        finally:
            for process in processes:
                process.stdin.close()
        assert [process.stderr.read() for process in processes if process.wait(120)] == []
    assert enough(seen) and set(seen["maintain"]) == {"built", "conflict"}
    assert sum(seen["read"]) / len(seen["read"]) >= 0.99
    [(generation,)] = run(url, "SELECT graph_generation FROM pgrecall.embed_spaces")
    assert generation == 1 + seen["maintain"].count("built")
    assert run(url, GRAPHS) == [(f"chunk_vectors_graph_1_{generation}",)]


@pytest.mark.slow("seven processes die, one after the other, and as many graphs are built")
def test_a_maintainer_may_die_at_each_step(url, database):
    """Killed with SIGKILL before or after each step: searches find all the while, and the next maintainer heals it."""
    chunks, store = made(LARGE), database.tenant("acme").vectors("large", SPACE)
    database.maintain()
    for number, step in enumerate(graph_worker.STEPS):
        fresh = made(5, 100 + number, f"{step}-")
        store.upsert(fresh)
        chunks += fresh
        process = started(url, f"die-{step}")
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, step
        database.backend.routes.known.clear()
        assert recall(store, chunks, 10) >= 0.99, step
        # The dead one's session may take a moment to end, and holds the lock until it has.
        [done] = database.maintain(wait=60.0)
        assert run(url, GRAPHS) == [(f"chunk_vectors_graph_1_{done.generation}",)], step
        held = run(url, "SELECT graph_generation, graph_rows FROM pgrecall.embed_spaces")
        assert held == [(done.generation, len(chunks))], step
        assert recall(store, chunks, 10) >= 0.99, step
