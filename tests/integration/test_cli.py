"""The command line, as a person and as a script use it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

import pgrecall
from pgrecall import Chunk, EmbedSpace
from pgrecall.admin import migrate
from pgrecall.cli.session import MEANING
from support.cli import SCRIPT, Run, run, text
from support.data import chunks

COMMANDS = [
    *("db upgrade", "db downgrade", "db status", "db plan", "db check", "db mark", "db reset"),
    *("up", "down", "doctor", "search", "export"),
    *("import file", "import langchain-postgres", "import langchain-history", "import langgraph-store"),
    *("tenants list", "tenants show", "tenants create", "tenants delete"),
    *("collections list", "collections show", "collections drop", "spaces list", "spaces add", "spaces drop"),
]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PGRECALL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def cli(app_url: sa.URL, admin_url: sa.URL, maintenance_url: sa.URL, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line with the shared database in its environment, three logins as in production."""
    monkeypatch.setenv("PGRECALL_URL", text(app_url))
    monkeypatch.setenv("PGRECALL_ADMIN_URL", text(admin_url))
    monkeypatch.setenv("PGRECALL_MAINTENANCE_URL", text(maintenance_url))
    return run


def embed(texts: list[str]) -> list[list[float]]:
    """A model of eight dims: how often each of eight letters stands in a text."""
    return [[text.lower().count(letter) + 0.1 for letter in "etaoinsh"] for text in texts]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, with models in it; returns its name."""
    name = f"models_{os.getpid()}_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(
        "import asyncio\n"
        "def embed(texts):\n"
        "    return [[t.lower().count(x) + 0.1 for x in 'etaoinsh'] for t in texts]\n"
        "async def slow(texts):\n"
        "    await asyncio.sleep(0.01)\n"
        "    return embed(texts)\n"
        "class Other:\n"
        "    def model(texts): return [[len(t), 1, 0, 0, 0, 0, 0, 0] for t in texts]\n"
        "def short(texts): return [[1.0] * 3 for t in texts]\n"
        "def broken(texts): raise OSError('no network')\n"
        "number = 5\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


@pytest.fixture
def handbook(db: pgrecall.Database, tenant_id: str, space: EmbedSpace) -> str:
    """A tenant with a collection "handbook" of four texts; returns the tenant."""
    texts = {"tea": "tea and toast", "sea": "she sees the sea", "noon": "onion at noon", "hat": "that hat"}
    made = [Chunk(i, t, doc_id=f"doc-{i}", index=2, metadata={"n": len(t)}) for i, t in texts.items()]
    store = db.tenant(tenant_id).vectors("handbook", space, embed=embed)
    store.upsert(made, documents=[pgrecall.Document("doc-sea", source="songs", uri="https://example.org/sea")])
    return tenant_id


def test_help_tells_every_command_and_what_the_codes_mean():
    """From --help a reader finds each command; its own help has an explanation and the shared options."""
    top = run("--help").out
    for code, meaning in MEANING.items():
        assert f"{int(code)}  {meaning[:30]}" in top
    for name in COMMANDS:
        assert f" {name.split()[0]} " in top
        result = run(*name.split(), "--help")
        assert result.code == 0 and "--json" in result.out and "--url" in result.out


def test_help_starts_fast():
    """Nothing slow to import is imported for the help: no SQLAlchemy, numpy, psycopg or Alembic."""
    slow = "{'sqlalchemy', 'numpy', 'psycopg', 'alembic', 'pgvector'}"
    code = f"import sys, pgrecall.cli; sys.exit(', '.join({slow} & sys.modules.keys()) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_installed_script_runs():
    """The console script is there, says its version, and exits as its commands do."""
    version = subprocess.run([SCRIPT, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout == f"pgrecall {pgrecall.__version__}\n"
    wrong = subprocess.run([SCRIPT, "no-such-command"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2 and wrong.stdout == "" and "no-such-command" in wrong.stderr


def test_a_url_on_the_command_line_never_mixes_with_the_environments(cli, new_database):
    """With --url, PGRECALL_ADMIN_URL of another database is not what gets migrated or reset."""
    url = new_database()
    assert cli("db", "status", "--url", text(url), "--json").json["database"] == url.database
    assert cli("db", "status", "--json").json["revision"] == migrate.head()
    assert cli("--url", text(url), "tenants", "list").code == 3


@pytest.mark.parametrize("option", ["--url", "--admin-url", "--maintenance-url", "--home"])
def test_an_empty_option_is_refused(cli, option):
    """A script's unset variable is not taken for leave to work on the embedded server, before the command or after."""
    for words in ((option, "", "db", "status"), ("db", "status", option, "")):
        result = cli(*words)
        assert result.code == 2 and f"{option} is empty" in result.err


def test_tenants(cli, handbook):
    """Tenants are listed by maintenance, shown, created once, deleted with counts, and reopened only on demand."""
    listed = cli("tenants", "list", "--json")
    assert listed.code == 0 and handbook in {t["tenant_id"] for t in listed.json}, listed.out
    shown = cli("tenants", "show", handbook)
    assert "1 collection" in shown.out and "handbook" in shown.out
    assert cli("tenants", "create", handbook, "--json").json == {"tenant": handbook, "created": False}
    assert cli("tenants", "delete", handbook).code == 2
    report = cli("tenants", "delete", handbook, "--yes", "--json").json
    gone = {table: rows for table, rows in report["deleted"].items() if rows}
    assert gone == {"chunk_vectors": 4, "chunks": 4, "documents": 4, "collections": 1}
    assert cli("tenants", "show", handbook, "--json").json["erased_at"] is not None
    assert cli("tenants", "create", handbook).code == 4
    assert cli("tenants", "create", handbook, "--reopen").code == 0
    for command in ("show", "delete"):
        assert cli("tenants", command, "nobody", *(["-y"] if command == "delete" else [])).code == 1


def test_listing_tenants_needs_maintenance(cli, app_url):
    """Without a login for maintenance the list is refused, and says which option is missing."""
    result = cli("tenants", "list", "--url", text(app_url))
    assert result.code == 3 and "--maintenance-url" in result.err


def test_collections(cli, handbook, monkeypatch):
    """A tenant's collections are listed and shown with space and counts, and dropped after a confirmation."""
    monkeypatch.setenv("PGRECALL_TENANT", handbook)
    [listed] = cli("collections", "list", "--json").json
    assert (listed["name"], listed["chunks"], listed["space"]["model"]) == ("handbook", 4, "eight")
    assert cli("collections", "show", "handbook", "--json").json == listed
    refused = cli("collections", "drop", "handbook")
    assert refused.code == 2 and "4 chunks" in refused.err and "--yes" in refused.err
    assert cli("collections", "drop", "handbook", "-y").code == 0
    assert cli("collections", "drop", "handbook", "-y").code == 1
    assert cli("collections", "show", "handbook").code == 1
    assert cli("collections", "list", "-t", "nobody").code == 1


def test_spaces(cli, handbook, tenant_id):
    """A space is added once, listed with its use, dropped by the owner, and kept while a collection uses it."""
    added = cli("spaces", "add", "test", tenant_id, 5, "--distance", "l2", "--json").json
    assert cli("spaces", "add", "test", tenant_id, 5, "--distance", "l2", "--json").json == added
    listed = {s["id"]: s for s in cli("spaces", "list", "--json").json}
    assert listed[added["id"]]["collections"] == 0 and listed[added["id"]]["distance"] == "l2"
    used = next(s for s in listed.values() if s["model"] == "eight")
    refused = cli("spaces", "drop", used["id"], "-y")
    assert refused.code == 4 and f"used by {used['collections']:,} collection" in refused.err
    assert cli("spaces", "drop", added["id"]).code == 2
    assert cli("spaces", "drop", added["id"], "-y").code == 0
    assert cli("spaces", "drop", added["id"], "-y").code == 1
    assert cli("spaces", "add", "test", "x", 0).code == 2


def test_search_takes_text_and_gives_chunks(cli, handbook, models):
    """The nearest text comes first, with document, score, source and uri; a filter narrows it; JSON has it all."""
    arguments = ("search", "she sees the sea", "-t", handbook, "-c", "handbook")
    shown = cli(*arguments, "--embed", f"{models}:embed", "-k", 2).out
    first = shown.index("doc-sea #2")
    assert "1.000" in shown and "she sees the sea" in shown and "songs  https://example.org/sea" in shown[first:]
    hits = cli(*arguments, "--embed", f"{models}:slow", "-k", 3, "--json").json
    assert hits[0]["chunk_id"] == "sea" and len(hits) == 3
    narrow = '{"n": {"$gt": 12}, "$not": {"n": 16}}'
    found = cli(*arguments, "--embed", f"{models}:embed", "--filter", narrow, "--json").json
    assert {h["chunk_id"] for h in found} == {"tea", "noon"}


def test_search_by_words_and_by_both(cli, db, handbook, models):
    """Words need no model; both show each leg's place; --explain and --plan tell how it was answered."""
    arguments = ("search", "sea -tea", "-t", handbook, "-c", "handbook")
    assert "has no full-text search" in cli(*arguments, "--mode", "sparse").err
    db.tenant(handbook).set_text_config("handbook", "english")
    found = cli(*arguments, "--mode", "sparse", "--json").json
    assert "sea" in [h["chunk_id"] for h in found] and all(h["distance"] is None for h in found)
    both = (*arguments, "--embed", f"{models}:embed", "--mode", "hybrid", "--ranks", "--alpha", 0.3, "--fetch-k", 3)
    explained = cli(*both, "--explain", "--json").json
    assert explained["explanation"]["fusion"] == {"k": 60.0, "alpha": 0.3}
    assert (
        explained["explanation"]["depth"] == {"dense": 3, "sparse": 3} and explained["explanation"]["round_trips"] >= 1
    )
    shown = cli(*both, "--plan").out
    assert all(part in shown for part in ("vector", "words", "hybrid", "search exact", "Execution Time"))
    assert cli(*both, "--alpha", 2).code == 2
    explained = cli(*both, "--exact", "--explain", "--json").json["explanation"]
    assert (explained["shape"], explained["exact"]) == ("exact", True)
    assert cli(*both, "--ef-search", 1001).code == 2


def test_search_without_a_model_shows_an_example(cli, handbook, models, monkeypatch):
    """Nothing to embed with is an error with an example; PGRECALL_EMBED is the same as --embed."""
    missing = cli("search", "tea", "-t", handbook, "-c", "handbook")
    assert missing.code == 2 and "--embed my_models:embed" in missing.err
    monkeypatch.setenv("PGRECALL_EMBED", f"{models}:embed")
    assert cli("search", "tea", "-t", handbook, "-c", "handbook").code == 0


SEARCHES = {
    "no such module": (["--embed", "nowhere:embed"], 2, "nowhere"),
    "no such function": (["--embed", "{}:nothing"], 2, "nothing"),
    "no function": (["--embed", "{}:number"], 2, "int"),
    "no colon": (["--embed", "{}"], 2, "package.module:callable"),
    "it fails": (["--embed", "{}:broken"], 2, "OSError: no network"),
    "other dims": (["--embed", "{}:short"], 2, "3 dimensions"),
    "other model": (["--embed", "{}:Other.model"], 4, "cosine"),
    "no collection": (["--embed", "{}:embed", "-c", "nope"], 1, "'nope'"),
    "bad filter": (["--embed", "{}:embed", "-f", "{"], 2, "not JSON"),
    "unknown operator": (["--embed", "{}:embed", "-f", '{"n": {"$near": 1}}'], 2, "near"),
    "unknown key": (["--embed", "{}:embed", "-f", '{"$nor": []}'], 2, "$nor"),
    "no chunks": (["--embed", "{}:embed", "-k", "0"], 2, "top_k"),
}


@pytest.mark.parametrize("case", SEARCHES)
def test_a_search_that_cannot_be_answered_says_why(cli, handbook, models, case):
    """One line on stderr, nothing on stdout, an exit code that tells the kinds apart."""
    arguments, code, words = SEARCHES[case]
    result = cli("search", "tea", "-t", handbook, "-c", "handbook", *(a.replace("{}", models) for a in arguments))
    assert (result.code, result.out) == (code, "") and words in result.err and "Traceback" not in result.err


def test_a_search_writes_nothing(cli, db, tenant_id, space, models, admin_connection):
    """A wrong model in a search leaves no fingerprint behind that would refuse the right one later."""
    db.tenant(tenant_id).vectors("bare", space).upsert(chunks(3))
    cli("search", "tea", "-t", tenant_id, "-c", "bare", "--embed", f"{models}:Other.model")
    sql = "SELECT fingerprint FROM pgrecall.collections WHERE tenant_id = %s"
    assert admin_connection.execute(sql, (tenant_id,)).fetchall() == [(None,)]


def test_a_stored_text_cannot_steer_the_terminal(cli, db, tenant_id, space, models):
    """Escape sequences of a document are not printed, and brackets are no markup."""
    bad = Chunk("1", "\x1b[2J[bold]x[/] [/nope]\x9b31m", [1.0] * 8, doc_id="\x1b]0;title\x07")
    db.tenant(tenant_id).vectors("bare", space).upsert([bad])
    out = cli("search", "tea", "-t", tenant_id, "-c", "bare", "--embed", f"{models}:embed").out
    assert not {"\x1b", "\x9b", "\x07"} & set(out) and "[bold]x[/] [/nope]" in out


def test_export_and_import(cli, handbook, tmp_path, models):
    """A file goes out and comes in, by name and through pipes, and the same chunks are found."""
    file = tmp_path / "handbook.jsonl"
    assert "8 documents and chunks" in cli("export", "handbook", "-t", handbook, "-o", file).out
    assert file.read_text() == cli("export", "handbook", "-t", handbook).out
    assert [p.name for p in tmp_path.glob("*.jsonl*")] == ["handbook.jsonl"]
    copy = f"{handbook}-copy"
    assert cli("import", file, "-t", copy, "--json").json["written"] == 4
    piped = cli("import", "-", "-t", copy, "-c", "other", "--json", input=file.read_bytes())
    assert piped.json == {"tenant": copy, "collection": "other", "written": 4, "unchanged": 0}
    query = ("search", "the sea", "--embed", f"{models}:embed", "--json", "-t")
    found = [cli(*query, t, "-c", c).json for t, c in ((handbook, "handbook"), (copy, "handbook"), (copy, "other"))]
    assert found[0] == found[1] == found[2] and len(found[0]) == 4
    assert cli("import", file, "--json").json == {
        "tenant": handbook, "collection": "handbook", "written": 0, "unchanged": 4,
    }  # fmt: skip


def test_an_import_or_export_that_fails_leaves_nothing(cli, handbook, tmp_path):
    """Missing collections and files, and broken lines, are errors of one line, without a half-written file."""
    file = tmp_path / "x.jsonl"
    assert cli("export", "nope", "-t", handbook, "-o", file).code == 1 and not list(tmp_path.iterdir())
    assert cli("export", "handbook", "-t", handbook, "-o", tmp_path / "no" / "folder").code == 2
    assert cli("import", file).code == 2
    broken = cli("export", "handbook", "-t", handbook).out.replace('"she sees', "she sees")
    result = cli("import", "-", "-t", f"{handbook}-copy", "--json", input=broken)
    assert result.code == 2 and "line" in result.json["error"]["message"]
    assert result.json["error"]["type"] == "InvalidInput" and result.err == ""
    assert cli("tenants", "show", f"{handbook}-copy").code == 1


def test_the_doctor_as_a_script_sees_it(cli, app_url):
    """The doctor's exit code follows its findings; its JSON has them, and numbers to watch."""
    result = cli("doctor", "--json")
    failed = [f["check"] for f in result.json["findings"] if f["status"] == "fail"]
    assert (result.code, result.json["ok"], failed) == (0, True, [])
    assert {"connections_used", "connections_max", "database_bytes", "tables"} <= set(result.json["metrics"])
    shown = cli("doctor")
    assert "row security" in shown.out and "0 failed" in shown.out and shown.err == ""


@pytest.mark.parametrize(("answer", "code", "left"), [(b"n\n", 1, 4), (b"y\n", 0, 0)])
def test_at_a_terminal_it_asks(db, handbook, app_url, answer, code, left):
    """Somebody at the terminal is asked before a tenant is deleted; no means no."""
    ours, its = pty.openpty()
    os.write(ours, answer)
    command = [SCRIPT, "tenants", "delete", handbook, "--url", text(app_url), "--json"]
    done = subprocess.run(command, stdin=its, capture_output=True, text=True, check=False)
    os.close(ours), os.close(its)
    assert done.returncode == code and "Continue?" in done.stderr
    assert db.tenant(handbook).vectors("handbook").count() == left
