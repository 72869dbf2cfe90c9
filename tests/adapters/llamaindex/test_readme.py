"""What the adapter's README shows runs as it stands there, and so do the examples."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import pytest

from support.readme import run_python

ROOT = Path(__file__).resolve().parents[3]
# In the adapter's own source distribution the README is at the root.
README = next(folder / "README.md" for folder in (ROOT / "integrations" / "llamaindex", ROOT) if folder.is_dir())


def test_every_snippet_of_the_readme_runs_and_prints_what_it_says(reachable, monkeypatch):
    """In order, in one namespace, twice, on an embedded server where the other adapter's README runs too."""
    monkeypatch.delenv("PGRECALL_URL", raising=False)
    monkeypatch.setenv("PGRECALL_HOME", str(reachable / "readmes"))
    for _ in range(2):
        namespace: dict[str, object] = {}
        loop = asyncio.new_event_loop()  # LlamaIndex's synchronous methods would make one, and leave it open
        asyncio.set_event_loop(loop)
        try:
            assert run_python(README, namespace) > 4
        finally:
            loop.close()
            asyncio.set_event_loop(None)
            if "vector_store" in namespace:
                namespace["vector_store"].close()  # type: ignore[attr-defined]


SAID = {
    "llamaindex-query": ["Expenses are paid back in two weeks.", "expenses: changed", "holidays: same"],
    "llamaindex-pipeline": [
        "first run: 2 chunks",
        "again: 0 chunks",
        "changed: 1 chunks",
        "failed: nothing is lost",
        "['Everyone has 31 days.']",
    ],
    "llamaindex-chat": ["<fact>Ana drinks tea</fact>", "3 messages, the first: Hello, I am Ana."],
}


@pytest.mark.parametrize("topic", SAID)
def test_an_example_says_what_it_should(topic, app_url, maintenance_url, monkeypatch, capsys):
    """On the suite's database, twice: what it leaves behind does not disturb it."""
    for name, url in (("PGRECALL_URL", app_url), ("PGRECALL_MAINTENANCE_URL", maintenance_url)):
        monkeypatch.setenv(name, url.render_as_string(hide_password=False))
    spec = importlib.util.spec_from_file_location("example", ROOT / "examples" / topic / "main.py")
    assert spec is not None and spec.loader is not None
    for _ in range(2):
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.main()
        assert capsys.readouterr().out.splitlines() == SAID[topic]
