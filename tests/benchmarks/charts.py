"""Plots: horizontal bars, one panel for each table of the page, a line for each target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from tests.benchmarks.figures import Figure, Grid, grids

FIRST = "#2563eb"
OTHERS = ("#94a3b8", "#d97706", "#059669", "#a855f7", "#dc2626", "#0891b2")
MET, MISSED, PLAIN = "#059669", "#dc2626", "#94a3b8"
#: Inches.
WIDTH, BAR, ROW_GAP, PANEL = 10.0, 0.2, 0.12, 0.85
#: Text stays text, and the same figures give the same file.
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pgrecall",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(figures: Sequence[Figure], path: Path) -> None:
    """Draw the plot of one benchmark."""
    panels = grids(figures)
    heights = [PANEL + sum(BAR * len(cells) + ROW_GAP for cells in grid.rows.values()) for grid in panels]
    with mpl.rc_context(STYLE):
        figure, axes = pyplot.subplots(
            len(panels), figsize=(WIDTH, sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
        )
        for grid, (panel,) in zip(panels, axes, strict=True):
            _panel(panel, grid)
        figure.savefig(path, metadata={"Date": None}, facecolor="white")
        pyplot.close(figure)


def _panel(panel: Axes, grid: Grid) -> None:
    at, ticks, labels, goals = 0.0, [], [], []
    widest = max(f.value for cells in grid.rows.values() for f in cells.values())
    for name, cells in grid.rows.items():
        top = at
        for series in grid.series:
            if (figure := cells.get(series)) is None:
                continue
            panel.barh(at, figure.value, BAR * 0.9, color=_colour(grid, figure), label=series)
            end = max(figure.value, figure.goal or 0)
            panel.annotate(figure.text, (end, at), (3, 0), textcoords="offset points", va="center", size=8)
            if figure.goal is not None:
                goals.append((figure.goal, at))
            at += BAR
        ticks.append((top + at - BAR) / 2)
        labels.append(name)
        at += ROW_GAP
    widest = max(widest, *(goal for goal, _ in goals), 0) if goals else widest
    for goal, y in goals:
        panel.plot([goal, goal], [y - BAR * 0.6, y + BAR * 0.6], color="black", linewidth=1.6)
    panel.set_yticks(ticks, labels)
    panel.set_ylim(at, -BAR)
    panel.set_xlim(0, widest * 1.12)
    panel.set_xlabel(grid.unit)
    if grid.series != [""]:
        handles = {label: bar for bar, label in zip(*panel.get_legend_handles_labels(), strict=True)}
        columns = min(len(grid.series), 3)
        panel.legend(handles.values(), handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False)


def _colour(grid: Grid, figure: Figure) -> str:
    if not figure.series:
        return {True: MET, False: MISSED, None: PLAIN}[figure.met]
    place = grid.series.index(figure.series)
    return OTHERS[(place - 1) % len(OTHERS)] if place else FIRST
