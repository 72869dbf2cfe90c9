"""The page in docs/benchmarks, rendered from results.json and the text in each benchmark's module."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.benchmarks.figures import Grid, Section, grids

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
_VERDICT = {True: "met", False: "**missed**", None: ""}

HEAD = """# Benchmarks

`make bench` runs every benchmark and writes this page, its plots and [results.json](results.json). It takes about half
an hour and creates two environments, one for pgrecall and one for the peers. `make bench ARGS="--quick query"` runs one
benchmark with fewer rows and writes nothing. `--page` updates the named benchmarks on this page, and `--major 16` uses
Postgres 16. The code is in `tests/benchmarks`.

Systems that are compared take turns (A B C, B C A, …) on one embedded server with fsync on. Figures are medians unless
they say otherwise. Machines are noisy: trust the ratios more than the figures. Figures that were measured only once are
in [notes](notes.md).
"""


def module(name: str) -> ModuleType:
    """A benchmark. Its docstring says what it measures; its WHY maps the start of a figure's name to why it misses."""
    return importlib.import_module(f"{__package__}.{name}")


def load(folder: Path = FOLDER) -> dict[str, Section]:
    """The sections that the page has now."""
    path = folder / "results.json"
    held = json.loads(path.read_text()) if path.exists() else {}
    return {name: Section.of_json(section) for name, section in held.items()}


def write(sections: Mapping[str, Section], folder: Path = FOLDER) -> None:
    """Write results.json, a plot for each benchmark, and the page."""
    folder.mkdir(parents=True, exist_ok=True)
    results = {name: section.as_json() for name, section in sections.items()}
    (folder / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    from tests.benchmarks import charts  # matplotlib is needed here only

    for name, section in sections.items():
        charts.draw(section.figures, folder / f"{name}.svg")
    (folder / "README.md").write_text(text(sections))


def text(sections: Mapping[str, Section]) -> str:
    """The page as Markdown."""
    parts = [HEAD, _summary(sections), _machines(sections)]
    parts += [_section(name, section) for name, section in sections.items()]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _summary(sections: Mapping[str, Section]) -> str:
    rows = []
    for name, section in sections.items():
        judged = [f.met for f in section.figures if f.met is not None]
        if judged:
            rows.append([f"[{name}](#{name})", len(judged), judged.count(True), judged.count(False) or ""])
    return "\n".join(["## Targets", "", *_table(["benchmark", "targets", "met", "missed"], rows)])


def _machines(sections: Mapping[str, Section]) -> str:
    """The machines on which the figures were measured."""
    lines = ["## Machine", ""]
    for machine in {json.dumps(s.machine, sort_keys=True): s.machine for s in sections.values()}.values():
        on = [name for name, s in sections.items() if s.machine == machine]
        days = sorted({sections[name].measured for name in on})
        only = "" if len(on) == len(sections) else f" ({', '.join(on)})"
        lines.append(f"Measured {' and '.join(days)}{only}:")
        lines += ["", *(f"- {key}: {_shown(value)}" for key, value in machine.items() if value), ""]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)


def _section(name: str, section: Section) -> str:
    about = module(name)
    parts = [f"## {name}", f"{inspect.getdoc(about)}\n\n`make bench ARGS={name}`, {section.seconds:.0f} s."]
    parts += ["\n".join(_grid(grid)) for grid in grids(section.figures)]
    parts += _explained(section, getattr(about, "WHY", {}))
    parts.append(f"![{name}: figures as bars, targets as lines]({name}.svg)")
    for title, plan in section.plans.items():
        parts.append(f"<details><summary>{title}</summary>\n\n```\n{plan.rstrip()}\n```\n\n</details>")
    return "\n\n".join(parts)


def _grid(grid: Grid) -> list[str]:
    """A row for each name, with its target and verdict."""
    heads = [f"figure, {grid.unit}" if grid.unit else "figure", *_columns(grid)]
    goals = {name: grid.goal(name) for name in grid.rows}
    judged = any(goals.values())
    rows = []
    for name, cells in grid.rows.items():
        rows.append([name, *(cells[s].text if s in cells else "" for s in grid.series)])
        if judged:
            goal = goals[name]
            rows[-1] += [goal.target, _VERDICT[goal.met]] if goal else ["", ""]
    return _table([*heads, *(["target", ""] if judged else [])], rows)


def _columns(grid: Grid) -> list[str]:
    return [series or "value" for series in grid.series]


def _table(heads: list[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    lines = [heads, ["---", *("---:" if head else "---" for head in heads[1:])], *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]


def unexplained(name: str, section: Section) -> list[str]:
    """Figures that miss their targets without a reason in WHY."""
    why = getattr(module(name), "WHY", {})
    return [f.name for f in section.figures if f.met is False and _reason(f.name, why) is None]


def _explained(section: Section, why: Mapping[str, str]) -> list[str]:
    """One paragraph for each reason, with the names of the figures that it explains."""
    explained: dict[str, list[str]] = {}
    for figure in section.figures:
        if figure.met is False:
            explained.setdefault(_reason(figure.name, why) or "No reason is given yet.", []).append(figure.name)
    return [f"**Missed: {'; '.join(names)}.** {reason}" for reason, names in explained.items()]


def _reason(name: str, why: Mapping[str, str]) -> str | None:
    return next((" ".join(reason.split()) for start, reason in why.items() if name.startswith(start)), None)


def show(sections: Mapping[str, Section], console: Console) -> None:
    """Print the figures with their targets."""
    for name, section in sections.items():
        for grid in grids(section.figures):
            table = Table(f"{name}{', ' if grid.unit else ''}{grid.unit}", *_columns(grid), "target", "")
            for figure, cells in grid.rows.items():
                goal = grid.goal(figure)
                verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[goal.met if goal else None]
                values = [cells[s].text if s in cells else "" for s in grid.series]
                table.add_row(figure, *values, goal.target if goal else "", verdict)
            for column in table.columns[1:-1]:
                column.justify = "right"
            console.print(table)
