"""`pgrecall ingest`: what is read, what a second run does, and that nothing is written of what can't be read."""

from __future__ import annotations

import json
import sys

import pytest

from pgrecall import InvalidInput, reading
from support.cli import run as cli
from support.cli import text as url_text

MODEL = """
from support import models
calls = []
def embed(texts):
    calls.append(len(texts))
    if any("poison" in text for text in texts):
        raise RuntimeError("the model does not like this")
    return models.new(texts)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files of each kind, one of an unknown kind, and a model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "counting_model.py").write_text(MODEL)
    monkeypatch.delitem(sys.modules, "counting_model", raising=False)
    docs = tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    (docs / ".hidden").mkdir()
    (docs / ".hidden" / "no.txt").write_text("hidden")
    (docs / "picture.png").write_bytes(b"\x89PNG")
    (docs / "empty.txt").write_text(" \n")
    (docs / "plain.txt").write_text("\n\n".join(f"Paragraph {n}. " + "words " * 30 for n in range(10)))
    (docs / "deep" / "guide.md").write_text("# Leave\n\nThirty days.\n\n# Sickness\n\nCall before ten.\n")
    lines = [{"text": "first"}, {"text": "second", "id": "two", "uri": "https://x.example", "metadata": {"n": 2}}]
    (docs / "faq.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    return docs


@pytest.fixture
def ingest(url, folder):
    def run(*arguments, paths=(folder,)):
        return cli(
            "ingest",
            *paths,
            "-t",
            "acme",
            "-c",
            "h",
            "--embed",
            "counting_model:embed",
            "--json",
            "--url",
            url_text(url),
            *arguments,
        )

    return run


def counts(result):
    assert result.code == 0, result.err
    return {k: v for k, v in result.json.items() if k in ("new", "changed", "unchanged", "empty", "pruned") and v}


def test_files_become_documents_and_passages(database, ingest):
    """Each kind is read by its rules, and every hit has provenance and metadata."""
    assert counts(ingest("--chunk-size", 300, "--metadata", '{"team": "hr"}')) == {"new": 4, "empty": 1}
    store = database.tenant("acme").vectors("h")
    assert [d.id for d in store.list_documents()] == ["deep/guide.md", "faq.jsonl#1", "plain.txt", "two"]
    plain = store.list_chunks(limit=50)
    assert all(len(c.text) <= 300 and c.metadata["team"] == "hr" for c in plain)
    of_plain = [c for c in plain if c.doc_id == "plain.txt"]
    assert [c.id for c in sorted(of_plain, key=lambda c: c.index)] == [f"plain.txt#{n}" for n in range(len(of_plain))]
    assert "".join(c.text.replace("\n", "") for c in sorted(of_plain, key=lambda c: c.index)).count("Paragraph") == 10
    [two] = store.list_documents(["two"])
    assert (two.source, two.uri, two.metadata) == ("faq.jsonl", "https://x.example", {"n": 2})
    [chunk] = store.get(["two#0"])
    assert chunk.metadata == {"team": "hr", "n": 2} and chunk.text == "second"


def test_a_second_run_does_what_has_changed_and_no_more(database, ingest, folder):
    """Unchanged documents are not embedded; a changed one has exactly its new passages; what is gone goes on demand."""
    ingest("--chunk-size", 300)
    import counting_model

    counting_model.calls.clear()
    assert counts(ingest("--chunk-size", 300)) == {"unchanged": 4, "empty": 1} and not counting_model.calls
    (folder / "plain.txt").write_text("One paragraph.")
    assert counts(ingest("--chunk-size", 300, "--dry-run"))["changed"] == 1 and not counting_model.calls
    assert counts(ingest("--chunk-size", 300)) == {"changed": 1, "unchanged": 3, "empty": 1}
    store = database.tenant("acme").vectors("h")
    assert [c.text for c in store.list_chunks(limit=50) if c.doc_id == "plain.txt"] == ["One paragraph."]
    (folder / "plain.txt").unlink()
    assert counts(ingest("--chunk-size", 300)) == {"unchanged": 3, "empty": 1} and len(store.list_documents()) == 4
    assert ingest("--chunk-size", 300, "--prune").code == 2 and len(store.list_documents()) == 4  # nobody there to ask
    assert counts(ingest("--chunk-size", 300, "--prune", "--yes")) == {"unchanged": 3, "empty": 1, "pruned": 1}
    assert len(store.list_documents()) == 3
    assert counts(ingest("--chunk-size", 200)) == {"changed": 3, "empty": 1}


def test_a_run_that_was_cut_off_is_gone_on_with(database, ingest, folder):
    """What a model that failed had not reached is done by the next run; nothing counts as finished before it is."""
    (folder / "zz.txt").write_text("poison")
    failed = ingest()
    assert failed.code == 2 and "does not like this" in failed.out
    (folder / "zz.txt").write_text("no harm")
    assert counts(ingest())["empty"] == 1
    store = database.tenant("acme").vectors("h")
    assert {c.doc_id for c in store.list_chunks(limit=50)} == {d.id for d in store.list_documents()}
    assert all(d.content_hash for d in store.list_documents()) and len(store.list_documents()) == 5
    assert counts(ingest()) == {"unchanged": 5, "empty": 1}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("bad.jsonl", b'{"text": "fine"}\n{"text": ', "bad.jsonl, line 2: not JSON"),
        ("bad.jsonl", b"[1]", "line 1: list; expected an object"),
        ("bad.jsonl", b'{"txt": 1}', '"text" is NoneType'),
        ("bad.jsonl", b'{"text": "a", "metadata": 3}', '"metadata" is int'),
        ("bad.jsonl", b'{"text": "a", "id": true}', "expected strings"),
        ("bad.txt", b"fine\nnot \xff fine", "bad.txt, line 2: not UTF-8"),
        ("bad.jsonl", b'{"text": "a", "id": "plain.txt"}', "both contain a document 'plain.txt'"),
    ],
)
def test_what_can_not_be_read_is_named_and_nothing_is_written(database, ingest, folder, name, content, said):
    """By file and line, before the first write."""
    (folder / name).write_bytes(content)
    refused = ingest()
    assert refused.code == 2 and said in refused.json["error"]["message"]
    assert database.tenant("acme").list_collections() == []


def test_other_wrong_input_is_refused(ingest, folder, tmp_path):
    """Each says what was expected."""
    for arguments, paths, said in [
        ((), [tmp_path / "nowhere"], "does not exist"),
        ((), [folder / "picture.png"], "not of a supported kind"),
        (("--chunk-size", 0), [folder], "expected 1 or more"),
        (("--metadata", "[1]"), [folder], "expected a JSON object"),
        (("--metadata", "{"), [folder], "not JSON"),
        ((), [folder / "empty.txt"], "no text was found"),
    ]:
        refused = ingest(*arguments, paths=paths)
        assert refused.code == 2 and said in refused.json["error"]["message"], (arguments, paths)


def test_splitting_without_the_extra_says_what_to_install(monkeypatch):
    """And nothing else of the package needs it."""
    monkeypatch.setitem(sys.modules, "semantic_text_splitter", None)
    with pytest.raises(Exception, match=r"pgrecall\[ingest\]"):
        reading.Splitters()
    with pytest.raises(InvalidInput):
        reading.Splitters(0)
