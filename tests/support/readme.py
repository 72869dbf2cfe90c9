"""Pages whose code runs as it stands there."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path


def snippets(page: Path, language: str) -> list[tuple[int, str]]:
    """Each block in a language, with the line that it begins on."""
    text = page.read_text()
    blocks = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, found.start(1)), found[1]) for found in blocks]


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
