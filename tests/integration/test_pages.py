"""Each page's Python, and some pages' commands, run as they stand there, each page in an empty database of its own."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

import pgrecall
from conftest import NewDatabase
from pgrecall.evaluation import Evaluations
from support.cli import run, text
from support.readme import blocks, run_python, snippets

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT, ROOT / "docs", ROOT / "integrations" / "langchain", ROOT / "integrations" / "llamaindex")
#: Pages whose blocks other tests run: tests/unit/test_testing.py and test_operations_guide.py.
ELSEWHERE = {"docs/testing.md", "docs/operations.md"}
PAGES = {str(page.relative_to(ROOT)): page for folder in FOLDERS for page in sorted(folder.glob("*.md"))}
WITH_PYTHON = [name for name, page in PAGES.items() if snippets(page, "python") and name not in ELSEWHERE]
#: Blocks that can't run here, by page; each one's fence says why.
NO_RUN = {"docs/migration.md": 6, "integrations/langchain/README.md": 2}
WITH_COMMANDS = {
    "docs/cli.md": ["ingest", "search", "search", "tenants", "collections", "collections", "export", "import"],
    "docs/evaluation.md": ["eval"] * 8,
    "docs/ingest.md": ["ingest", "search"],
    "docs/memory.md": ["facts"] * 8 + ["subjects"] * 3 + ["sweep"],
}
WORDS = ["holidays", "expenses", "days", "weeks"]
_homes = itertools.count()


def embed(texts):
    return [[text.count(word) + 0.01 for word in WORDS] for text in texts]


@pytest.fixture
def url(new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> sa.URL:
    """An empty database at the newest revision, which the environment names; the current folder is empty too."""
    for name in [name for name in os.environ if name.startswith("PGRECALL_")]:
        monkeypatch.delenv(name)
    url = new_database(migrated=True)
    for name in ("PGRECALL_URL", "PGRECALL_ADMIN_URL", "PGRECALL_MAINTENANCE_URL"):
        monkeypatch.setenv(name, text(url))
    monkeypatch.chdir(tmp_path)
    return url


@pytest.fixture
def home(reachable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No URL, and a folder of its own for the embedded server."""
    for name in [name for name in os.environ if name.startswith("PGRECALL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PGRECALL_HOME", str(reachable / f"pages-{next(_homes)}"))


def run_page(page: Path) -> None:
    """Run its blocks, and close what they left open."""
    namespace: dict[str, object] = {}
    try:
        run_python(page, namespace)
    finally:
        for value in [*namespace.values(), *(getattr(value, "database", None) for value in namespace.values())]:
            if isinstance(value, pgrecall.Database):
                value.close()


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:(ragas|instructor|langchain|llama_index).*")
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # ragas' files
@pytest.mark.usefixtures("url")
@pytest.mark.parametrize("name", WITH_PYTHON)
def test_every_python_block_of_a_page_runs_and_prints_what_it_says(name: str) -> None:
    """In order, in one namespace; a traceback names the page's line."""
    if name == "docs/evaluation.md":
        pytest.importorskip("ragas", reason="the eval extra is not installed")
    run_page(PAGES[name])


@pytest.mark.usefixtures("home")
def test_the_readme_runs_on_the_embedded_server() -> None:
    """Without any setting, as a newcomer runs it."""
    run_page(PAGES["README.md"])


@pytest.mark.usefixtures("url")
def test_a_newcomer_can_run_the_first_pages_again() -> None:
    """The README, then the quickstart, then both again, in one database."""
    for name in ("README.md", "docs/quickstart.md") * 2:
        run_page(PAGES[name])


def test_blocks_that_do_not_run_are_counted_and_say_why() -> None:
    """A block is left out by its fence only, with a reason, and a page has no more of them than is known here."""
    found = {name: [block.reason for block in blocks(page) if block.reason is not None] for name, page in PAGES.items()}
    assert {name: len(reasons) for name, reasons in found.items() if reasons} == NO_RUN
    assert all(len(reason) > 10 for reasons in found.values() for reason in reasons)


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:(ragas|instructor|langchain|llama_index).*")
@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_every_command_of_a_page_runs(name: str, url: sa.URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, on small files under the page's names; a RUN is the newest one."""
    assert run("db", "mark", "development").code == 0
    monkeypatch.setitem(sys.modules, "my_models", SimpleNamespace(embed=embed))
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    make_files(tmp_path)
    ran = []
    for command in [line for _, code in snippets(PAGES[name], "bash") for line in code.splitlines()]:
        first, *arguments = shlex.split(command, comments=True) or [""]
        if first == "export":
            for variable, _, value in (pair.partition("=") for pair in arguments):
                monkeypatch.setenv(variable, value)
        elif first == "pgrecall":
            result = run(*(newest(url) if argument == "RUN" else argument for argument in arguments))
            assert result.code == 0, (command, result.out, result.err)
            ran.append(arguments[0])
    expected = WITH_COMMANDS[name]
    assert ran[: len(expected)] == expected
    assert [Path(page.removeprefix("file://")).name for page in opened] == ["report.html"] * name.count("evaluation")


def make_files(folder: Path) -> None:
    """What the pages' commands read: files to ingest, and a data set in BEIR's format."""
    (folder / "handbook").mkdir()
    (folder / "handbook" / "leave.md").write_text("# Leave\n\nEveryone has 30 days of holidays.\n")
    (folder / "faq.jsonl").write_text(json.dumps({"text": "Expenses: two weeks.", "metadata": {"lang": "en"}}))
    (folder / "scifact" / "qrels").mkdir(parents=True)
    for name, form in (("corpus", "all about {}"), ("queries", "what about {}?")):
        lines = [json.dumps({"_id": word, "text": form.format(word)}) for word in WORDS]
        (folder / "scifact" / f"{name}.jsonl").write_text("\n".join(lines))
    (folder / "scifact" / "qrels" / "test.tsv").write_text("".join(f"{word}\t{word}\t1\n" for word in WORDS))


def newest(url: sa.URL) -> str:
    """The id of the evaluation that was run last."""
    with pgrecall.connect(url) as db:
        return Evaluations(db.tenant("acme")).runs(limit=1)[0].run_id
