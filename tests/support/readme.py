"""Pages whose code runs as it stands there."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r"^```(\w+)[ \t]*([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: the line that it begins on, its language, what else the fence says, and its text."""

    line: int
    language: str
    note: str
    code: str

    @property
    def reason(self) -> str | None:
        """Why the block can't run, as its fence says: ```` ```python no-run: why ````."""
        return self.note.removeprefix("no-run:").strip() if self.note.startswith("no-run") else None


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page."""
    text = page.read_text()
    return [Block(text.count("\n", 0, found.start(3)), *found.groups()) for found in FENCE.finditer(text)]


def snippets(page: Path, language: str) -> list[tuple[int, str]]:
    """Each block in a language that can run, with the line that it begins on."""
    return [(block.line, block.code) for block in blocks(page) if block.language == language and block.reason is None]


def run_python(page: Path, namespace: dict[str, object]) -> int:
    """Run a page's Python in order, in one namespace; returns how many blocks there were.

    Each must print what its lines `# → …` say; a traceback names the page's line.
    """
    found = snippets(page, "python")
    namespace["__name__"] = "__main__"
    for line, code in found:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * line + code, str(page), "exec"), namespace)
        said = [text.removeprefix("# → ") for text in code.splitlines() if text.startswith("# → ")]
        assert printed.getvalue().splitlines() == said, f"the snippet after line {line} of {page.name}"
    return len(found)
