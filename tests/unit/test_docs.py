"""The documentation points at what exists (files, headings, commands, options), and names all that there is."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

import pgrecall
from pgrecall import cli
from pgrecall.cli.session import MEANING, SHARED
from pgrecall.maintenance.advisories import ADVISORIES, dotted

ROOT = Path(__file__).resolve().parents[2]
SITE = [page for page in (ROOT / "docs").rglob("*.md") if not re.search("/_(build|generated)/", str(page))]
READMES = [*(ROOT / "integrations").glob("*/README.md")]
PAGES = sorted([*ROOT.glob("*.md"), *SITE, *READMES])
TASKS = (ROOT / "docs" / "guides.md").read_text()
REPOSITORY = "https://github.com/pgrecall/pgrecall/blob/main/"
PUBLISHED = "https://pgrecall.readthedocs.io/en/latest/"
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
COMMANDS = typer.main.get_command(cli.app)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, made as GitHub makes them; an adapter's page includes its README."""
    text = prose(page)
    for name in re.findall(r"{include} _generated/(lang\w+|llama\w+)\.md", page.read_text()):
        text += prose(ROOT / "integrations" / name / "README.md")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def local(target: str, page: Path) -> Path | None:
    """The file that a link leads to, if it is one of the repository's or of the site's."""
    if target.startswith(REPOSITORY):
        return ROOT / target.removeprefix(REPOSITORY)
    if target.startswith(PUBLISHED):
        return (ROOT / "docs" / (target.removeprefix(PUBLISHED) or "index.html")).with_suffix(".md")
    return None if target.startswith("https://") else (page.parent / target).resolve()


@pages
def test_links_lead_to_files_and_headings_that_exist(page):
    """No link of the documentation to itself is dead, be it relative, to the repository or to the site."""
    for target in LINK.findall(prose(page)):
        file, _, anchor = target.partition("#")
        path = local(file, page) if file else page
        if path is not None:
            assert path.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(path), f"{page.name}: {target}"


@pytest.mark.parametrize("page", [ROOT / "README.md", *READMES], ids=lambda page: str(page.relative_to(ROOT)))
def test_the_readmes_links_are_absolute(page):
    """They are read on a package index too."""
    text = prose(page)
    targets = [*LINK.findall(text), *re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", text)]
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []


def command_lines(page: Path) -> list[list[str]]:
    """What the page tells to type after `pgrecall`: each command of its shell blocks, and each in backquotes."""
    blocks = [line for kind, text in FENCE.findall(page.read_text()) if kind == "bash" for line in text.splitlines()]
    quoted = [span for span in re.findall(r"`([^`\n]+)`", prose(page)) if span.startswith("pgrecall ")]
    typed = re.compile(r"(?:^|[ ;(])pgrecall (.+?)(?=$|\)|\|| && )")
    lines = [command for line in [*blocks, *quoted] for command in typed.findall(line)]
    return [shlex.split(line.replace("…", ""), comments=True) for line in lines]


def unknown_word(words: list[str]) -> str | None:
    """The first word of a command line that the command line does not know: a command or an option."""
    command, options = COMMANDS, set()
    for word in words:
        children = getattr(command, "commands", None)
        if word.startswith("-"):
            options.add(word.partition("=")[0])
        elif children is not None:
            # A group may take what is none of its commands: `pgrecall import FILE`.
            if word not in children and not hasattr(command, "default"):
                return word
            command = children.get(word) or children[command.default]
    known = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
    known |= {name for annotated in SHARED.values() for name in annotated.__metadata__[0].param_decls}
    return next((option for option in sorted(options) if option not in known), None)


@pages
def test_commands_in_the_documentation_exist(page):
    """Each `pgrecall …` is a command with such options."""
    for words in command_lines(page):
        assert unknown_word(words) is None, f"{page.name}: pgrecall {' '.join(words)}"


@pytest.mark.parametrize("words", ["db upgarde", "doctor --jsno", "tenants purge acme", "serve"])
def test_a_command_that_does_not_exist_is_found(words):
    """The check above can fail."""
    assert unknown_word(words.split()) is not None


def leaves(command, *path):
    for name, child in getattr(command, "commands", {}).items():
        yield from leaves(child, *path, name) if hasattr(child, "commands") else [" ".join((*path, name))]


@pytest.mark.parametrize("command", sorted(leaves(COMMANDS)))
def test_the_tasks_name_every_command(command):
    """A reader finds each command there."""
    assert re.search(rf"`pgrecall {command}\b", TASKS)


def public_methods():
    stores = (pgrecall.PostgresVectorStore, pgrecall.PostgresMemoryStore, pgrecall.PostgresChat, pgrecall.PostgresRuns)
    for kind in (*stores, pgrecall.Tenant):
        for name, value in vars(kind).items():
            twin = name[0] == "a" and hasattr(kind, name[1:])
            if callable(value) and name[0] != "_" and not twin and not hasattr(value, "__deprecated__"):
                yield name
    yield from (
        "create_tenant",
        "delete_tenant",
        "tenant_info",
        "list_tenants",
        "list_spaces",
        "add_space",
        "drop_space",
        "space_use",
        "mark",
        "reset",
        "tenant",
        "sweep",
        "on_erase",
    )
    yield from ("close", "aclose")


@pytest.mark.parametrize("method", sorted(set(public_methods())))
def test_the_tasks_show_every_method(method):
    """A reader finds each verb there, called on something."""
    assert re.search(rf"\b(store|memory|db|tenant|chat|runs)\.{method}\(", TASKS)


def test_each_setting_operator_and_exit_code_has_its_place():
    """Arguments of `connect` and `upsert`, what a field can do, the codes as the CLI means them."""
    text = {
        name: (ROOT / "docs" / f"{name}.md").read_text() for name in ("configuration", "documents", "filters", "cli")
    }
    missing = [
        name for name in inspect.signature(pgrecall.connect).parameters if f"`{name}`" not in text["configuration"]
    ]
    arguments = [*inspect.signature(pgrecall.PostgresVectorStore.upsert).parameters][2:]
    missing += [name for name in arguments if name != "embed" and not re.search(rf"\b{name}\b", text["documents"])]
    operators = [name for name in vars(type(pgrecall.F.any_key)) if not name.startswith("_") and name != "path"]
    missing += [name for name in operators if f"`{name}`" not in text["filters"]]
    missing += [line for code, line in MEANING.items() if f"| {int(code)} | {line} |" not in text["cli"]]
    assert missing == []


def test_the_reference_has_every_public_name():
    """Each name of the root has its entry, and each error a row that says what to do."""
    reference = "\n".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    errors = (ROOT / "docs" / "errors.md").read_text()
    listed = set(re.findall(r"^\.\. auto\w+:: (\w+)", reference + errors, re.MULTILINE))
    assert set(pgrecall.__all__) - {"Filter"} - listed == set()
    raised = [n for n in pgrecall.__all__ if isinstance(o := getattr(pgrecall, n), type) and issubclass(o, Exception)]
    assert [
        name for name in raised if name != "PgRecallError" and not re.search(rf"^\| (↳ )?`{name}`", errors, re.M)
    ] == []


def test_the_operations_guide_tells_the_faults_that_the_doctor_knows():
    """Each advisory with its verdict, and the version that fixes it."""
    guide = (ROOT / "docs" / "operations.md").read_text()
    verdict = {"fail": "fails", "warn": "warns"}
    for fault in ADVISORIES:
        [row] = re.findall(rf"^\| {re.escape(fault.name)} \| {verdict[fault.status]} \|.*$", guide, re.MULTILINE)
        assert dotted(fault.fixed) in row and fault.what in row


@pages
def test_environment_variables_in_the_documentation_are_read_somewhere(page):
    """Each PGRECALL_… that a page names is one that the source reads, or the benchmarks and notebooks do."""
    folders = ("src", "tests/benchmarks", "notebooks")
    source = "\n".join(path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.py"))
    for name in set(re.findall(r"\bPGRECALL_[A-Z_]+\b", page.read_text())):
        assert f'"{name}"' in source, f"{page.name}: {name}"


@pages
def test_no_page_names_a_machines_own_paths(page):
    """Nobody else has them."""
    assert re.findall(r"(?<![\w.])/(?:root|home/\w+|Users|work|opt|tmp)\b/?\S*", page.read_text()) == []


def test_the_compose_file_is_pinned_and_healthy_and_its_url_is_the_pages():
    """The image says both versions; the healthcheck asks Postgres; who pastes the page's URL reaches this server."""
    services = yaml.safe_load((ROOT / "docs" / "compose.yml").read_text())["services"]
    assert list(services) == ["postgres"]
    service = services["postgres"]
    assert re.fullmatch(r"pgvector/pgvector:\d+\.\d+\.\d+-pg18(-\w+)?", service["image"])
    assert "pg_isready" in " ".join(service["healthcheck"]["test"])
    assert [volume.partition(":")[2] for volume in service["volumes"]] == ["/var/lib/postgresql"]
    address, port, inside = service["ports"][0].split(":")
    assert (address, inside) == ("127.0.0.1", "5432")
    values = service["environment"]
    login = f"{values['POSTGRES_USER']}:{values['POSTGRES_PASSWORD']}"
    url = f"export PGRECALL_URL=postgresql://{login}@localhost:{port}/{values['POSTGRES_DB']}\n"
    assert url in (ROOT / "docs" / "configuration.md").read_text()


@pytest.mark.parametrize("file", sorted((ROOT / "tests").rglob("*.py")), ids=lambda file: file.name)
def test_every_test_says_the_fact_that_it_proves(file):
    """A test without a docstring fails here."""
    functions = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef))
    assert [f.name for f in functions if f.name.startswith("test_") and not ast.get_docstring(f)] == []
