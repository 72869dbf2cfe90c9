"""Plots for the report and the notebooks, as SVG or PNG. Only this module imports matplotlib."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pgrecall.evaluation.metrics import in_order
from pgrecall.evaluation.runs import EvalRun

COLOURS = ("#2563eb", "#d97706", "#059669", "#a855f7", "#dc2626", "#0891b2", "#64748b")
#: Text is stored as text, and equal figures produce equal files.
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pgrecall",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e2e8f0",
}


def named(run: EvalRun) -> str:
    """The name of a run: its label, or its id if it has none."""
    return str(run.config.get("label") or run.run_id)


def _verbatim(name: str) -> str:
    """A name for a plot: without formulas between dollars, valid in XML, and short enough for a legend."""
    shown = "".join(c if c.isprintable() else " " for c in name).strip().lstrip("_")
    return textwrap.shorten(shown or "–", 80, placeholder=" …").replace("$", r"\$")


def svg(draw: Callable[[Figure], None], *, width: float = 7.0, height: float = 3.2) -> str:
    """An SVG document of the figure that `draw` fills; width and height are in inches."""
    return _image(draw, width, height, "svg", metadata={"Date": None}).decode()


def png(draw: Callable[[Figure], None], *, width: float = 7.0, height: float = 3.2, dpi: int = 144) -> bytes:
    """The same as a PNG, for viewers without SVG."""
    return _image(draw, width, height, "png", dpi=dpi, metadata={"Software": None})


def _image(draw: Callable[[Figure], None], width: float, height: float, kind: str, **options: Any) -> bytes:
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # If matplotlib's font lacks a letter, it is measured as a box; the browser draws the text of an SVG.
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        out = io.BytesIO()
        figure.savefig(out, format=kind, facecolor="white", **options)
    return out.getvalue()


def metric_curves(runs: Sequence[EvalRun]) -> Callable[[Figure], None]:
    """Draws each measure against k: a panel for each measure, a line with its 95 % interval for each run."""
    measures: defaultdict[str, set[int]] = defaultdict(set)
    for run in runs:
        for name in run.summary["metrics"]:
            measure, at, k = name.partition("@")
            if at:
                measures[measure].add(int(k))
    shown = {measure: sorted(measures[measure]) for measure in in_order(measures)}

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, max(len(shown), 1), sharey=True, squeeze=False)[0]
        for panel, (measure, depths) in zip(panels, shown.items(), strict=False):
            for run, colour in zip(runs, COLOURS * len(runs), strict=False):
                _curve(panel, run, measure, depths, colour)
            panel.set_title(measure)
            panel.set_xlabel("k")
            panel.set_xticks(depths)
        panels[0].set_ylim(0, 1.02)
        if len(runs) > 1:
            figure.legend(
                *panels[0].get_legend_handles_labels(),
                loc="outside lower center",
                ncols=min(len(runs), 4),
                frameon=False,
            )

    return draw


def _curve(panel: Axes, run: EvalRun, measure: str, depths: Sequence[int], colour: str) -> None:
    held = [(k, run.summary["metrics"][f"{measure}@{k}"]) for k in depths if f"{measure}@{k}" in run.summary["metrics"]]
    if not held:
        return
    ks = [k for k, _ in held]
    panel.plot(ks, [m["mean"] for _, m in held], marker="o", markersize=3, color=colour, label=_verbatim(named(run)))
    panel.fill_between(ks, [m["low"] for _, m in held], [m["high"] for _, m in held], color=colour, alpha=0.15, lw=0)


def latency_histogram(runs: Sequence[EvalRun], step: str = "total") -> Callable[[Figure], None]:
    """Draws a histogram of latencies in milliseconds, on a logarithmic axis; the last bar has the slowest 0.5 %."""
    taken = {named(run): [r.latency[step] for r in run.results if step in r.latency] for run in runs}
    taken = {name: values for name, values in taken.items() if values}

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        every = np.concatenate([*taken.values(), np.array([])])
        if len(every):
            low, high = max(every.min(), 1e-3), max(float(np.percentile(every, 99.5)), 2e-3)
            bins = np.geomspace(low * 0.95, high * 1.05, 40)
            for (name, values), colour in zip(taken.items(), COLOURS * len(taken), strict=False):
                panel.hist(np.minimum(values, high), bins=list(bins), color=colour, alpha=0.55, label=_verbatim(name))
                panel.axvline(float(np.median(values)), color=colour, lw=1.5)
            _milliseconds(panel)
            panel.legend(frameon=False)
        panel.set_xlabel(f"{step}, ms (line: p50; the last bar includes all slower queries)")
        panel.set_ylabel("queries")

    return draw


def _milliseconds(panel: Axes) -> None:
    """Make the axis logarithmic, with ticks at 1, 1.5, 2, 3, 5, 7, 10, …"""
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())


def frontier(points: Sequence[tuple[str, float, float, bool]], metric: str, step: str) -> Callable[[Figure], None]:
    """Draws quality against latency. A point is (name, mean, p50 in milliseconds, whether it is on the frontier)."""

    def draw(figure: Figure) -> None:
        panel = figure.subplots()
        best = sorted((p for p in points if p[3]), key=lambda p: p[2])
        panel.plot([p[2] for p in best], [p[1] for p in best], color=COLOURS[0], lw=1, zorder=1)
        for on, colour, label in ((True, COLOURS[0], "frontier"), (False, "#94a3b8", "others")):
            some = [p for p in points if p[3] is on]
            if some:
                panel.scatter([p[2] for p in some], [p[1] for p in some], color=colour, label=label, zorder=2)
        for name, quality, latency, _ in points:
            panel.annotate(_verbatim(name), (latency, quality), (4, 4), textcoords="offset points", size=7)
        panel.set_xlabel(f"{step} p50, ms")
        panel.set_ylabel(metric)
        panel.margins(x=0.15, y=0.15)
        panel.legend(frameon=False)

    return draw
