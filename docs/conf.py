"""The documentation site: `make docs` builds it with warnings as errors."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

from pygments.lexers.sql import PostgresLexer
from pygments.token import Comment
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "https://github.com/pgrecall/pgrecall"
SITE = "https://pgrecall.readthedocs.io/en/latest/"

project = "pgrecall"
author = "pgrecall maintainers"
copyright = "pgrecall maintainers, MIT licence"
version = release = "0.1.0"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "_generated"]
nitpicky = True
smartquotes = False  # it makes dashes of `--option`

html_theme = "furo"
html_title = "pgrecall"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
copybutton_exclude = ".linenos, .gp, .go"

myst_enable_extensions = ["colon_fence", "attrs_block"]
myst_heading_anchors = 4  # made as GitHub makes them, so that one link works in both places

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

# Types of other libraries, and names that only annotations use: they have no page here.
nitpick_ignore_regex = [
    (r"py:.*", r"(collections|datetime|enum|numpy|np|npt|pathlib|sa|sqlalchemy|typing|typing_extensions)\..*"),
    (r"py:.*", r"(annotated_types|langchain|langgraph|llama_index|pydantic|ragas|psycopg).*"),
    (r"py:.*", r"(BaseCheckpointSaver|Extract|LLM|Model|Progress|Subject|dict\[str|timedelta)"),
    (r"py:class", r"pgrecall\.(postgres|operations|statements|stores|testing)\..*"),
    (r"py:class", r"pgrecall\.(protocols\.RunStateT|evaluation\.jobs\.Scorer|doctor\.graphs\.Sampling)"),
    (r"py:class", r"pgrecall\.(postgres|operations|statements|stores|testing)\..*"),
    (r"py:class", r"pgrecall\.(protocols\.RunStateT|evaluation\.jobs\.Scorer|doctor\.graphs\.Sampling)"),
]


def from_the_repository(text: str) -> str:
    """Point relative links that leave `docs/` at the repository, and links to the site's own pages at the pages."""
    text = re.sub(r"\]\(\.\./(?:\.\./)?(?!\.)([^)\s]+)\)", rf"]({REPOSITORY}/blob/main/\1)", text)
    text = re.sub(rf"\]\({REPOSITORY}/blob/main/docs/([^)\s]+?\.md)(#[^)\s]*)?\)", r"](/\1\2)", text)
    return re.sub(rf"\]\({SITE}([^)\s#]+)\.html(#[^)\s]*)?\)", r"](/\1.md\2)", text)


def read_source(_app: object, _docname: str, content: list[str]) -> None:
    """Every page, as Sphinx reads it."""
    content[0] = from_the_repository(content[0])


def generate(_app: object) -> None:
    """Write the pages that are made: the adapters' READMEs, and Typer's description of `pgrecall`."""
    folder = ROOT / "docs" / "_generated"
    folder.mkdir(exist_ok=True)
    for name in ("langchain", "llamaindex"):
        text = (ROOT / "integrations" / name / "README.md").read_text()
        (folder / f"{name}.md").write_text(from_the_repository(text.partition("\n")[2]))
    command = [sys.executable, "-m", "typer", "pgrecall.cli", "utils", "docs", "--name", "pgrecall"]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (folder / "cli.md").write_text(command_line(made))


def command_line(text: str) -> str:
    """Typer's Markdown, without its head and the options that every command shares: the page says those once."""
    text = text[text.index("\n## ") :]
    text = re.sub(r"<span[^>]*>(.*?)</span>", r"`\1`", text)
    for entity, character in (("&#x27;", "'"), ("&quot;", '"'), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")):
        text = text.replace(entity, character)
    text = re.sub(r"^\* `(-u, )?--(url|admin-url|maintenance-url|read-url|home|json|help)\b.*\n", "", text, flags=re.M)
    return text.replace("**Options**:\n\n\n", "").replace("```console", "```bash").replace("\n$ ", "\n")


def docstring(_app: object, what: str, name: str, obj: object, _options: object, lines: list[str]) -> None:
    """Read `code` as Markdown does; an asynchronous twin says whose twin it is, instead of repeating everything."""
    lines[:] = [re.sub(r"(?<![`:])`([^`]+)`(?!`)(\w?)", r"``\1``\\ \2", line) for line in lines]
    if what != "method" or not (inspect.iscoroutinefunction(obj) or inspect.isasyncgenfunction(obj)):
        return
    owner, _, method = name.rpartition(".")
    if method.startswith("a") and hasattr(owner_of(name), method[1:]):
        lines[:] = [f"The asynchronous form of :meth:`~{owner}.{method[1:]}`.", ""]


def skip(_app: object, _what: str, _name: str, obj: object, _skip: bool, _options: object) -> bool | None:
    """Leave the old names of methods out."""
    return True if hasattr(obj, "__deprecated__") else None


def plain(_app: object, what: str, name: str, obj: object, _options: object, lines: list[str]) -> None:
    """Undo what napoleon does to a property or constant, where it takes the words before a colon for a type."""
    if what in ("property", "attribute", "data") and lines and lines[-1].startswith(":type:"):
        lines[:] = (inspect.getdoc(obj) or "").splitlines()


class Psql(PostgresLexer):
    """SQL with psql's own commands."""

    tokens = PostgresLexer.tokens | {"root": [(r"\\\w+.*", Comment.Preproc), *PostgresLexer.tokens["root"]]}


def owner_of(name: str) -> object:
    """The class that has a method of this full name."""
    module, _, owner = name.rpartition(".")[0].rpartition(".")
    return getattr(importlib.import_module(module), owner)


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.add_lexer("sql", Psql)
    app.connect("builder-inited", generate)
    app.connect("source-read", read_source)
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-docstring", docstring, priority=400)
    app.connect("autodoc-process-docstring", plain, priority=600)
