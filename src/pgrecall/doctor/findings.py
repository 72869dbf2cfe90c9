"""What a check finds, and how it says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

FindingStatus: TypeAlias = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `fix` is empty where there is nothing to do."""

    check: str
    status: FindingStatus
    found: str
    expected: str
    fix: str = ""


class Check(NamedTuple):
    """A check by its name, and what it expects."""

    name: str
    expected: str

    def ok(self, found: str) -> Finding:
        """All is well."""
        return Finding(self.name, "ok", found, self.expected)

    def bad(self, status: FindingStatus, found: str, fix: str) -> Finding:
        """Something is not as expected."""
        return Finding(self.name, status, found, self.expected, fix)

    def fail(self, found: str, fix: str) -> Finding:
        """Something is wrong."""
        return self.bad("fail", found, fix)


def quoted(name: str) -> str:
    """A name as an identifier in the SQL of an advice."""
    return '"' + name.replace('"', '""') + '"'
