"""The README's Python runs as it stands there, from top to bottom, and prints what the README says that it prints."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class FakeModel:
    """Stands for the reader's own model: words, hashed into a vector of 384 dimensions."""

    def encode(self, texts: list[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), 384))
        for vector, text in zip(vectors, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                vector[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % 384] += 1
        return vectors


def snippets() -> list[tuple[int, str]]:
    """Each Python block with the line that it begins on."""
    text = README.read_text()
    return [(text.count("\n", 0, found.start(1)), found[1]) for found in SNIPPET.finditer(text)]


def test_every_python_snippet_of_the_readme_runs_and_prints_what_it_says(
    reachable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, in one namespace, on an embedded server of its own; a traceback names the README's line."""
    for name in ("PGRECALL_URL", "PGRECALL_ADMIN_URL", "PGRECALL_MAINTENANCE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PGRECALL_HOME", str(reachable / "readme"))
    namespace: dict[str, object] = {"__name__": "__main__", "model": FakeModel()}
    found = snippets()
    assert len(found) > 8
    try:
        for line, code in found:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("\n" * line + code, str(README), "exec"), namespace)
            said = [text.removeprefix("# → ") for text in code.splitlines() if text.startswith("# → ")]
            assert printed.getvalue().splitlines() == said, f"the snippet after line {line} of README.md"
    finally:
        for opened in ("db", "production", "mine"):
            if opened in namespace:
                namespace[opened].close()  # type: ignore[attr-defined]
