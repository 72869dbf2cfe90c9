"""Runs the benchmarks that were named, or all of them."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from rich.console import Console
from tests.benchmarks import harness

NAMES = ("ingest", "query", "network", "memory")


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(NAMES)}; all of them by default")
    parser.add_argument("--quick", action="store_true", help="fewer rows and repeats: a look, not a figure to quote")
    parser.add_argument("--major", type=int, choices=(18, 16), default=18, help="the Postgres version")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    results: dict[str, list[harness.Figure]] = {}
    with harness.started(quick=options.quick, major=options.major) as bench:
        machine = bench.machine()
        for name in options.names or NAMES:
            harness.say(f"{name} …")
            results[name] = importlib.import_module(f"{__package__}.{name}").run(bench)
    harness.report(results, machine, Console())
    if options.json is not None:
        harness.write_json(options.json, results, machine)


main()
