"""The upgrade to each revision on a filled database, and how long it blocks a writer.

The database has 100,000 chunks, facts and messages of one tenant, and rows in every other table. From the newest
revision downwards, each one is downgraded and upgraded again. During the upgrade one writer for each table that already
existed inserts one row after the other.
"""

from __future__ import annotations

import sys
from pathlib import Path

from alembic.script import ScriptDirectory
from tests.benchmarks.harness import Bench, Figure, say

from pgrecall.admin import migrate

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the tests' `support`

from support.upgrades import fill, upgraded


def run(bench: Bench) -> list[Figure]:
    """Measure the revisions one after the other."""
    rows = 10_000 if bench.quick else 100_000
    figures: list[Figure] = []
    with bench.database(migrated=False) as url:
        migrate.upgrade(url)
        say(f"  filling {rows:,} rows")
        fill(url, rows)
        for step in ScriptDirectory(str(migrate.script_location())).walk_revisions():
            if step.down_revision is None:
                break
            migrate.downgrade(url, step.down_revision)
            done = upgraded(url, step.revision)
            title = f"{step.revision}, {(step.doc or '').splitlines()[0].rstrip('.').lower()}"
            figures += [
                Figure(title, done.seconds * 1e3, "ms", series="upgrade"),
                Figure(title, done.blocked * 1e3, "ms", series="longest block of a write"),
            ]
    return figures
