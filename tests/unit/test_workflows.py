"""The workflow for GitHub and the pre-commit hooks run what the Makefile offers."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
VARIABLES = set(re.findall(r"^([A-Z]+) \?=", MAKEFILE, re.MULTILINE)) | {"ARGS"}
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

workflows = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def jobs(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text())["jobs"])


def commands(path: Path) -> list[str]:
    return [step["run"] for job in jobs(path).values() for step in job["steps"] if "run" in step]


@workflows
def test_a_workflow_says_that_it_was_never_run_here(path):
    """The first line is a comment that says so."""
    assert re.match(r"# .*can't be run", path.read_text())


@workflows
def test_each_make_command_of_a_workflow_exists(path):
    """Its target is in the Makefile, and so is each variable that it sets."""
    found = re.findall(r"\bmake ([a-z-]+)((?: [A-Z]+=\S+)*)", "\n".join(commands(path)))
    assert {"lint", "docs", "dist", "demo", "test"} <= {target for target, _ in found} <= TARGETS
    assert {name for _, settings in found for name in re.findall(r"([A-Z]+)=", settings)} <= VARIABLES


@workflows
def test_the_matrix_has_the_pythons_of_the_classifiers_and_each_postgres(path):
    """Every test job runs on the Pythons that the distributions name; together they run on Postgres 16 to 18."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    named = re.findall(r"Python :: (3\.\d+)$", "\n".join(classifiers), re.MULTILINE)
    tests = {name: job for name, job in jobs(path).items() if name.startswith("test")}
    assert [job["strategy"]["matrix"]["python"] for job in tests.values()] == [named, named]
    image = tests["test-postgres-17"]["services"]["postgres"]["image"]
    assert {*tests["test"]["strategy"]["matrix"]["postgres"], image.rpartition("pg")[2]} == {"16", "17", "18"}


@workflows
def test_only_a_tag_that_passed_everything_is_published(path):
    """The job that publishes waits for all others, and is the only one that may ask for an identity."""
    every = jobs(path)
    publish = every.pop("publish")
    assert set(publish["needs"]) == set(every) and "refs/tags/v" in publish["if"]
    assert publish["permissions"] == {"id-token": "write"}
    assert not any("permissions" in job for job in every.values())


def test_the_hooks_run_what_make_lint_runs():
    """The same commands, in the same order, in the environment that `make lint` makes."""
    [line] = re.findall(r"^lint:.*\n\t(.+)$", MAKEFILE, re.MULTILINE)
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["entry"] for hook in repository["hooks"]] == line.replace("$(BIN)", ".venv/bin").split(" && ")
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in repository["hooks"])
