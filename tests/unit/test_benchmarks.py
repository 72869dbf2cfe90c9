"""The benchmark page contains what was measured, judged by the targets, and nothing else."""

from __future__ import annotations

import pytest
from tests.benchmarks import page
from tests.benchmarks.figures import Figure, Section, grids

MEASURED = {"measured": "2026-01-31", "seconds": 2.0, "machine": {"cpus": 2, "packages": {"numpy": "2.0"}}}


@pytest.mark.parametrize(
    ("figure", "met", "target", "text"),
    [
        (Figure("a", 0.5, at_most=0.5), True, "≤ 0.5", "0.500"),
        (Figure("a", 0.5004, at_most=0.5), False, "≤ 0.5", "0.5004"),
        (Figure("a", 0.99, at_least=0.99), True, "≥ 0.99", "0.990"),
        (Figure("a", 0.9896, at_least=0.99), False, "≥ 0.99", "0.9896"),
        (Figure("a", 17_206.6, at_least=20), True, "≥ 20", "17,207"),
        (Figure("a", 12.345), None, "", "12.3"),
    ],
)
def test_a_figure_is_judged_by_its_target_and_reads_as_it_is_judged(figure, met, target, text):
    """Bounds belong to the target, and rounding never makes a missed one look met."""
    assert (figure.met, figure.target, figure.text) == (met, target, text)


def test_figures_of_one_name_are_one_row():
    """Each system has a column and each unit a table, in the order in which they were measured."""
    figures = [Figure("p50", 1.0, "ms", series="ours"), Figure("p50", 2.0, "ms", series="theirs"), Figure("ratio", 0.5)]
    figures.append(Figure("p95", 4.0, "ms", series="theirs"))
    first, second = grids(figures)
    assert (first.unit, first.series, list(first.rows)) == ("ms", ["ours", "theirs"], ["p50", "p95"])
    assert list(first.rows["p95"]) == ["theirs"]
    assert (second.series, list(second.rows)) == ([""], ["ratio"])


def test_the_page_names_each_missed_target_and_its_reason():
    """The page names a missed target even if it has no reason."""
    section = Section(**MEASURED, figures=[Figure("speed", 3.0, at_most=2.0)], plans={"The plan": "Seq Scan"})
    text = page.text({"query": section})
    assert "| speed | 3 | ≤ 2 | **missed** |" in text
    assert "**Missed: speed.** No reason is given yet." in text
    assert "| [query](#query) | 1 | 0 | 1 |" in text
    assert "Seq Scan" in text and "numpy 2.0" in text and "2026-01-31" in text
    assert page.unexplained("query", section) == ["speed"]


def test_results_come_back_from_json_as_they_were():
    """The page can be rendered from results.json again."""
    section = Section(**MEASURED, figures=[Figure("speed", 3.0, "ms", at_most=2.0, series="ours")])
    assert Section.of_json(section.as_json()) == section


def test_the_page_is_rendered_from_the_results():
    """Neither the page nor its results were edited by hand."""
    sections = page.load()
    assert (page.FOLDER / "README.md").read_text() == page.text(sections)
    assert [f"{name}.svg" for name in sections if not (page.FOLDER / f"{name}.svg").exists()] == []


def test_every_missed_target_on_the_page_is_explained():
    """Every target that the page reports as missed has a reason."""
    assert {name: page.unexplained(name, section) for name, section in page.load().items()} == {
        name: [] for name in page.load()
    }
