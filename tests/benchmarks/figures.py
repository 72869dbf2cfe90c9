"""What a benchmark returns: figures with their targets, and their format as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number; `at_least` or `at_most` is its target.

    Figures of one name and unit that differ in `series` (the system that was measured) are one row of a table.
    """

    name: str
    value: float
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    series: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if there is no target."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most

    @property
    def goal(self) -> float | None:
        """The target as a number."""
        return self.at_most if self.at_least is None else self.at_least

    @property
    def target(self) -> str:
        """The target as text."""
        if self.goal is None:
            return ""
        return f"{'≤' if self.at_least is None else '≥'} {_plain(self.goal)}"

    @property
    def text(self) -> str:
        """The value as text. A value that misses its target is never rounded to one that meets it."""
        rounded = number(self.value)
        if self.met is False and rounded.replace(",", "") == number(self.goal or 0).replace(",", ""):
            return f"{self.value:.4g}"
        return rounded


def number(value: float) -> str:
    """About three digits, which is the precision of these figures."""
    size = abs(value)
    if value == int(value) or size >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 1 else f"{value:.3f}"


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


@dataclass(frozen=True, slots=True)
class Section:
    """The result of one benchmark: date, duration, machine, figures, and plans by title."""

    measured: str
    seconds: float
    machine: Mapping[str, Any]
    figures: list[Figure]
    plans: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For results.json."""
        return asdict(self) | {"figures": [asdict(f) | {"met": f.met} for f in self.figures]}

    @classmethod
    def of_json(cls, held: Mapping[str, Any]) -> Self:
        """Read what `as_json` returned."""
        figures = [Figure(**{k: v for k, v in f.items() if k != "met"}) for f in held["figures"]]
        return cls(**{**held, "figures": figures})


@dataclass(frozen=True, slots=True)
class Grid:
    """Figures of one unit as a table: a row for each name, a column for each series."""

    unit: str
    series: list[str]
    rows: dict[str, dict[str, Figure]]

    def goal(self, name: str) -> Figure | None:
        """The figure of a row that has a target, if any."""
        return next((f for f in self.rows[name].values() if f.met is not None), None)


def grids(figures: Iterable[Figure]) -> list[Grid]:
    """Group the figures into tables, in the order in which they were given."""
    found: dict[tuple[str, bool], Grid] = {}
    for f in figures:
        grid = found.setdefault((f.unit, bool(f.series)), Grid(f.unit, [], {}))
        if f.series not in grid.series:
            grid.series.append(f.series)
        grid.rows.setdefault(f.name, {})[f.series] = f
    return list(found.values())
