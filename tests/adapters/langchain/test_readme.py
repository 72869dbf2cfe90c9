"""What the adapter's README shows runs as it stands there."""

from __future__ import annotations

from pathlib import Path

from support.readme import run_python

ROOT = Path(__file__).resolve().parents[3]
# In the adapter's own source distribution the README is at the root.
README = next(folder / "README.md" for folder in (ROOT / "integrations" / "langchain", ROOT) if folder.is_dir())


def test_every_snippet_of_the_readme_runs_and_prints_what_it_says(reachable, monkeypatch):
    """In order, in one namespace, twice, on an embedded server where the other adapter's README runs too."""
    monkeypatch.delenv("PGRECALL_URL", raising=False)
    monkeypatch.setenv("PGRECALL_HOME", str(reachable / "readmes"))
    for _ in range(2):
        namespace: dict[str, object] = {}
        try:
            assert run_python(README, namespace) > 3
        finally:
            if "store" in namespace:
                namespace["store"].close()  # type: ignore[attr-defined]
