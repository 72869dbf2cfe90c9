"""Maintenance beside everything else: several processes at once, writers and readers meanwhile, and sudden death."""

from __future__ import annotations

import collections
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import pgrecall
from pgrecall import migrate
from support import graph_worker
from support.graphs import GRAPHS, LARGE, SPACE, made, recall, run

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def url(new_database):
    url = new_database()
    migrate.upgrade(url)
    with pgrecall.connect(url) as db:
        db.tenant("acme").vectors("large", SPACE).upsert(made(LARGE))
    return url


def started(url, what, seconds=0.0):
    program = [
        sys.executable,
        "-m",
        "support.graph_worker",
        url.render_as_string(hide_password=False),
        what,
        str(seconds),
    ]
    return subprocess.Popen(program, cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_four_maintainers_two_writers_and_two_readers_at_once(url):
    """One maintainer works at a time, the others are told so; every search gives 10 of 10 rows, the right ones."""
    with pgrecall.connect(url, admin_url=url) as db:
        db.maintain()
    processes = [(what, started(url, what, 4.0)) for what in ["maintain"] * 4 + ["write"] * 2 + ["read"] * 2]
    ended = [(what, *process.communicate(timeout=120), process.returncode) for what, process in processes]
    assert [err for *_, err, code in ended if code] == []
    seen = collections.defaultdict(list)
    for what, out, *_ in ended:
        seen[what] += json.loads(out)
    assert set(seen["maintain"]) == {"built", "conflict"}
    assert len(seen["write"]) > 5 and len(seen["read"]) > 20
    assert sum(seen["read"]) / len(seen["read"]) >= 0.99
    [(generation,)] = run(url, "SELECT graph_generation FROM pgrecall.embed_spaces")
    assert generation == 1 + seen["maintain"].count("built")
    assert run(url, GRAPHS) == [(f"chunk_vectors_graph_1_{generation}",)]


@pytest.mark.slow
def test_a_maintainer_may_die_at_each_step(url):
    """Killed with SIGKILL before or after each step: searches find all the while, and the next maintainer heals it."""
    chunks = made(LARGE)
    with pgrecall.connect(url, admin_url=url) as db:
        store = db.tenant("acme").vectors("large", SPACE)
        db.maintain()
        for number, step in enumerate(graph_worker.STEPS):
            fresh = made(5, 100 + number, f"{step}-")
            store.upsert(fresh)
            chunks += fresh
            process = started(url, f"die-{step}")
            process.communicate(timeout=120)
            assert process.returncode == -signal.SIGKILL, step
            db._routes.known.clear()
            assert recall(store, chunks, 10) >= 0.99, step
            # The dead one's session may take a moment to end, and holds the lock until it has.
            [done] = db.maintain(wait=60.0)
            assert run(url, GRAPHS) == [(f"chunk_vectors_graph_1_{done.generation}",)], step
            assert run(url, "SELECT graph_generation, graph_rows FROM pgrecall.embed_spaces") == [
                (done.generation, len(chunks))
            ], step
            assert recall(store, chunks, 10) >= 0.99, step
