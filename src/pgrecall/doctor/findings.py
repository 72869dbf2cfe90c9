"""Checks and their findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

FindingStatus: TypeAlias = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `fix` is empty if there is nothing to do."""

    check: str
    status: FindingStatus
    found: str
    expected: str
    fix: str = ""


class Check(NamedTuple):
    """A check's name, and what it expects."""

    name: str
    expected: str

    def ok(self, found: str) -> Finding:
        """The check passed."""
        return Finding(self.name, "ok", found, self.expected)

    def bad(self, status: FindingStatus, found: str, fix: str) -> Finding:
        """The check failed, or warns."""
        return Finding(self.name, status, found, self.expected, fix)

    def fail(self, found: str, fix: str) -> Finding:
        """The check failed."""
        return self.bad("fail", found, fix)


def quoted(name: str) -> str:
    """A name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
