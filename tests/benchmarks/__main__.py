"""Run the named benchmarks, or all of them. A full run writes the page in docs/benchmarks."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from rich.console import Console
from tests.benchmarks import harness, page

NAMES = (
    "search",
    "hybrid",
    "filters",
    "graphs",
    "ivfflat",
    "network",
    "concurrency",
    "ingest",
    "bulk",
    "query",
    "chat",
    "facts",
    "memory",
    "sizes",
    "storage",
    "million",
    "partitions",
    "reembed",
    "upgrades",
    "langchain",
    "llamaindex",
)


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {', '.join(NAMES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer rows and repeats; do not quote these figures")
    parser.add_argument("--major", type=int, choices=(18, 16), default=18, help="Postgres major version")
    parser.add_argument("--peers", type=Path, metavar="PYTHON", help="interpreter of the peers' environment")
    parser.add_argument("--page", action="store_true", help="update the named benchmarks on the page")
    parser.add_argument("--render", action="store_true", help="measure nothing; write the page from results.json")
    parser.add_argument("--out", type=Path, metavar="FOLDER", default=page.FOLDER, help="folder of the page")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; choose from {', '.join(NAMES)}")
    writes = options.render or options.page or (not options.names and not options.quick)
    if writes:
        importlib.import_module("matplotlib")  # before anything is measured
    sections = {}
    if not options.render:
        with harness.started(quick=options.quick, major=options.major, python=options.peers) as bench:
            for name in options.names or NAMES:
                sections[name] = bench.measure(name, page.module(name).run)
                page.show({name: sections[name]}, Console())
    if writes:
        held = page.load(options.out) | sections
        page.write({name: held[name] for name in NAMES if name in held}, options.out)


main()
