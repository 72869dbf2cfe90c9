"""The command line, run in this process with nobody at the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from typer.testing import CliRunner

from pgrecall.cli import app

SCRIPT = Path(sys.executable).with_name("pgrecall")


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def text(url: sa.URL) -> str:
    return url.render_as_string(hide_password=False)


def run(*arguments: object, **options: Any) -> Result:
    """Run a command in this process, with nobody at the terminal, which is as wide as a pipe's output is made."""
    options["env"] = {"COLUMNS": "140"} | (options.get("env") or {})
    result = CliRunner().invoke(app, [str(a) for a in arguments], **options)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Result(result.exit_code, result.stdout, result.stderr)


Run = Callable[..., Result]
