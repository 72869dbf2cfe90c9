"""examples/memory/main.py, a week of an agent."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "memory" / "main.py"


def test_an_agents_week_runs_twice_and_shows_what_it_promises(reachable):
    """Learn, correct, recall as of Tuesday, forget, erase, prove; a second run finds nothing of the first."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PGRECALL_")}
    environment["PGRECALL_HOME"] = str(reachable / "week")
    for _ in range(2):
        done = subprocess.run([sys.executable, EXAMPLE], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        days = dict(re.findall(r"(\w+day): [^\n]*\n(.*?)(?=\n\w+day: |\Z)", done.stdout, re.DOTALL))
        assert days["Wednesday"].startswith("preference/diet: Ann eats fish, but no meat.")
        assert days["Thursday"].startswith("preference/diet: Ann eats no meat.")
        assert days["Friday"].splitlines()[0] == "forgotten: 1, found: []"
        assert "deleted: 4 versions; remaining: 0" in days["Saturday"]
        assert days["Sunday"].startswith("facts about ann: []; about bob: 1\nSubjectErased: ")
        assert "bob" in days["Sunday"].partition("put")[2] and "ann" not in days["Sunday"].partition("\nput")[2]
    assert len(EXAMPLE.read_text().splitlines()) <= 80
