"""Files stay short enough to be read in one sitting."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Folder -> the most lines that a Python file below it may have.
LIMITS = {"src": 450, "integrations": 450, "migrations": 450, "examples": 450, "tests": 500}


def test_no_file_is_too_long():
    """A file above the limit is split by topic."""
    found = {
        f"{path.relative_to(ROOT)}: {lines} lines, at most {limit}"
        for folder, limit in LIMITS.items()
        for path in (ROOT / folder).rglob("*.py")
        if (lines := path.read_text("utf-8").count("\n")) > limit
    }
    assert found == set()
