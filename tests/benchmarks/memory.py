"""Peak memory of a client process that ingests 100,000 chunks from a generator."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks import data
from tests.benchmarks.handwritten import COLLECTION
from tests.benchmarks.harness import Bench, Figure

import pgrecall

LIMIT_MB = 300
_URL = "PGRECALL_BENCH_URL"


def run(bench: Bench) -> list[Figure]:
    """Measure one transaction, and commits of 5,000 chunks."""
    count = 20_000 if bench.quick else 100_000
    figures: list[Figure] = []
    for label, commit_every in (("all or nothing", 0), ("commit_every=5000", 5_000)):
        with bench.database() as url:
            environment = os.environ | {_URL: url.render_as_string(hide_password=False)}
            command = [sys.executable, "-m", __spec__.name, str(count), str(commit_every)]
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        figures += [
            Figure(label, found["peak_mb"], "MB", at_most=LIMIT_MB, series="peak resident"),
            Figure(label, found["start_mb"], "MB", series="before the first chunk"),
            Figure(f"{label}, making the chunks too", found["rows_s"], "rows/s"),
        ]
    return figures


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss of a child starts at its parent's value
        [peak] = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Ingest in the child process, and print the figures."""
    count, commit_every = int(sys.argv[1]), int(sys.argv[2])
    with pgrecall.connect(os.environ[_URL]) as db:
        store = db.tenant("acme").vectors(COLLECTION, data.SPACE)
        data.sentences()
        start, started = _peak_mb(), time.perf_counter()
        store.upsert(data.chunks(count), commit_every=commit_every or None)
        took = time.perf_counter() - started
        if (stored := store.count()) != count:
            raise AssertionError(f"{stored:,} of {count:,} chunks were stored")
    print(json.dumps({"peak_mb": _peak_mb(), "start_mb": start, "rows_s": count / took}))  # noqa: T201


if __name__ == "__main__":
    main()
