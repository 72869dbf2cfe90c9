"""The example that `make demo` runs, with words hashed in the place of its model, which takes most of a minute."""

from __future__ import annotations

import re

import pytest
from rich.console import Console

import pgrecall
from support.data import hashed_words

pytest.importorskip("semantic_text_splitter", reason="the demo group is not installed")
pytest.importorskip("tokenizers", reason="the demo group is not installed")
pytest.importorskip("safetensors", reason="the demo group is not installed")
pytest.importorskip("threadpoolctl", reason="the demo group is not installed")

import main
import minilm


def test_the_demo_shows_what_it_promises_and_a_second_run_writes_nothing(reachable, monkeypatch, capsys):
    """Ingest, answers, a filter, the other tenant, a refusal, deletes; then all of it again with nothing to embed."""
    monkeypatch.delenv("PGRECALL_URL", raising=False)
    monkeypatch.setenv("PGRECALL_HOME", str(reachable / "quickstart"))
    monkeypatch.setattr(minilm, "embed", hashed_words)
    monkeypatch.setattr(main, "console", Console(width=200, highlight=False, markup=False))
    monkeypatch.setattr(main, "say", lambda *args: main.console.print(*args, end="\n\n"))
    monkeypatch.setattr(main, "section", main.console.rule)
    outputs = []
    with pgrecall.connect():  # the server stays up between the two runs
        for _ in range(2):
            main.main(0.0)
            outputs.append(capsys.readouterr().out)
    counts = [re.search(r"([\d,]+) embedded, ([\d,]+) unchanged", text).groups() for text in outputs]
    assert counts[0] == counts[1][::-1]
    assert counts[1][0] == "0" and len(counts[1][1]) > 2
    for text in outputs:
        assert text.count("https://docs.python.org/3") == 6 * 3  # six questions, three chunks each
        assert len(re.findall(r"networking: How do I open", text)) == 2
        assert re.search(r"get\(\['\S+', '\S+', '\S+'\]\) returns \[\]", text)
        assert "EmbedSpaceMismatch: collection 'stdlib' holds vectors of sentence-transformers/all-MiniLM-L6-v2" in text
        assert re.search(r"delete_tenant: \{'chunk_vectors': \d+, .*'collections': 1.*\}; 0 left", text)
