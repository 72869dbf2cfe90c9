"""Commands that install a missing part name extras, adapters and folders that exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from pgrecall import extras

ROOT = Path(__file__).resolve().parents[2]
CORE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCE = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))


@pytest.mark.parametrize("extra", sorted(set(re.findall(r"""install_extra\(["'](.*?)["']\)""", SOURCE))))
def test_an_error_names_an_extra_that_exists(extra):
    """Each extra that an error mentions is declared, and the command takes it from the project's own address."""
    assert extra in CORE["optional-dependencies"]
    command, checkout = extras.install_extra(extra).split(" (in a checkout: ")
    assert shlex.split(command) == ["pip", "install", f"pgrecall[{extra}] @ git+{CORE['urls']['Source']}"]
    assert checkout == f'pip install ".[{extra}]")'


@pytest.mark.parametrize(("name", "folder"), re.findall(r'install_adapter\("(.*?)", "(.*?)"\)', SOURCE))
def test_an_error_names_an_adapter_that_exists(name, folder):
    """Each adapter that an error mentions is the distribution in that folder."""
    place = ROOT / "integrations" / folder
    assert tomllib.loads((place / "pyproject.toml").read_text())["project"]["name"] == name
    assert f"pip install ./integrations/{folder}" in extras.install_adapter(name, folder)


def test_no_error_has_a_command_of_its_own():
    """`pip install` is written in one module, so that a release changes one module."""
    found = [path.name for path in (ROOT / "src").rglob("*.py") if "pip install" in path.read_text()]
    assert found == ["extras.py"]
