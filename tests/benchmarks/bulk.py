"""`bulk_load` of 50,000 chunks like those of [ingest](#ingest), from a generator, against COPY by hand.

"By hand" is binary COPY into temporary tables, because Postgres refuses COPY under row-level security, and then INSERT
… SELECT into the same tables with the same indexes, role and policies, without any checks. Both commit every 10,000
chunks. The two take turns, and each run starts with a new database that was never analyzed. "Again" loads the same rows
a second time.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack

from tests.benchmarks import data
from tests.benchmarks.handwritten import Writer
from tests.benchmarks.harness import Bench, Figure, by_turns, ratio, say
from tests.benchmarks.ingest import TENANT, empty_store
from tests.benchmarks.peers import Timed

COMMIT = 10_000


def run(bench: Bench) -> list[Figure]:
    """Measure without and with full text."""
    chunks = list(data.chunks(10_000 if bench.quick else 50_000))
    figures: list[Figure] = []
    for label, text_config in (("no full text", None), ("full text", "english")):
        again: list[float] = []

        def ours(turn: int, config: str | None = text_config, again: list[float] = again, label: str = label) -> Timed:
            say(f"  {label}, run {turn + 1}")
            with ExitStack() as stack:
                store = empty_store(bench, stack, config)[0]
                began = time.perf_counter()
                store.bulk_load((c for c in chunks), commit_every=COMMIT)
                took = time.perf_counter() - began
                store.bulk_load((c for c in chunks), commit_every=COMMIT)
                again.append(time.perf_counter() - began - took)
            return Timed(took, [])

        def copy(_: int, config: str | None = text_config) -> Timed:
            with ExitStack() as stack:
                _, address, space_id = empty_store(bench, stack, config)
                writer = Writer(address, TENANT, space_id, "copy", config)
                stack.callback(writer.connection.close)
                began = time.perf_counter()
                for start in range(0, len(chunks), COMMIT):
                    writer.write(chunks[start : start + COMMIT])
                return Timed(time.perf_counter() - began, [])

        took = by_turns({"bulk_load": ours, "COPY": copy}, 1 if bench.quick else 5)
        speed = {name: len(chunks) / statistics.median(seconds) for name, seconds in took.items()}
        figures += [
            *(Figure(label, rows, "rows/s", series=name) for name, rows in speed.items()),
            Figure(label, len(chunks) / statistics.median(again), "rows/s", series="again"),
            Figure(f"{label}: bulk_load / COPY", ratio(took["COPY"], took["bulk_load"]), at_least=0.8),
        ]
    return figures
