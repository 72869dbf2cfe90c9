"""The three distributions' metadata is valid, complete and the same where it must be."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

import pgrecall

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (ROOT, ROOT / "integrations" / "langchain", ROOT / "integrations" / "llamaindex")
PYTHONS = ("3.11", "3.12", "3.13")


def settings(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text())


PROJECTS = [settings(folder)["project"] for folder in FOLDERS]
CORE = PROJECTS[0]
each = pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project["name"])


@each
def test_a_distribution_has_the_core_s_version_authors_and_license(project):
    """The three are released together."""
    assert project["version"] == pgrecall.__version__
    for field in ("authors", "license", "requires-python"):
        assert project[field] == CORE[field]


@each
def test_a_distribution_says_where_its_source_documentation_and_issues_are(project):
    """All addresses belong to one repository and one site."""
    urls = project["urls"]
    assert set(urls) == {"Homepage", "Documentation", "Source", "Issues", "Changelog"}
    assert urls["Documentation"] == CORE["urls"]["Documentation"]
    for name in set(urls) - {"Documentation"}:
        assert urls[name].startswith(CORE["urls"]["Homepage"])


@each
def test_a_distribution_names_the_pythons_that_ci_runs(project):
    """The classifiers, the workflow and `.ci/run` name the same versions."""
    classifier = "Programming Language :: Python :: 3."
    assert [c for c in project["classifiers"] if c.startswith(classifier)] == [
        classifier + version.removeprefix("3.") for version in PYTHONS
    ]
    assert f"for version in {' '.join(PYTHONS)}" in (ROOT / ".ci" / "run").read_text()


@each
def test_the_dependencies_are_valid_and_admit_this_version_of_the_core(project):
    """An adapter accepts the core that it is released with, and no version with another interface."""
    requirements = [Requirement(text) for text in project["dependencies"]]
    assert len({requirement.name for requirement in requirements}) == len(requirements)
    for requirement in requirements:
        assert requirement.specifier, f"{requirement.name} has no bound"
        if requirement.name == "pgrecall":
            assert pgrecall.__version__ in requirement.specifier and "0.2.0" not in requirement.specifier


def test_a_dependency_of_two_distributions_has_the_same_bounds():
    """An adapter that uses a library of the core directly accepts the same versions of it."""
    bounds: dict[str, set[str]] = {}
    for project in PROJECTS:
        for requirement in map(Requirement, project["dependencies"]):
            bounds.setdefault(requirement.name, set()).add(str(requirement.specifier))
    assert {name: found for name, found in bounds.items() if len(found) > 1} == {}
