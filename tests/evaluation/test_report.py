"""The report: one file that needs nothing from anywhere, opened in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from pgrecall import InvalidInput
from pgrecall.evaluation import EvalQuery, EvalSet, evaluate
from pgrecall.evaluation.report import report

HOSTILE = "<script>document.title = 'owned'</script> & <b>bold</b>"
SET = EvalSet(
    "ten",
    tuple(
        EvalQuery(f"q{i}", f"question {i} {HOSTILE if i == 9 else ''}", {f"c{i}": 1}, "acme" if i % 2 else "globex")
        for i in range(10)
    ),
    source="by hand",
    licence="CC0",
)


def retrieve(text):
    number = text.split()[1]
    if number == "8":
        raise RuntimeError("no eights")
    return ["x1", f"c{number}"] if number != "9" else [f"x{HOSTILE}"]


@pytest.fixture(scope="module")
def runs():
    better = evaluate(lambda text: [(f"c{text.split()[1]}", 0.9)], SET, top_k=(1, 3), label="better")
    return [evaluate(retrieve, SET, top_k=(1, 3), label="first"), better]


def texts(tenant, ids):
    return {i: f"the text of {i} of {tenant}" for i in ids}


def test_a_report_has_every_part(runs):
    """Summary with intervals, tenants worst first, plots, worst queries with what was wanted, configuration."""
    html = report(runs[:1], SET, texts=texts, worst=3)
    for part in (
        'id="summary"',
        'id="tenants"',
        "Measures by depth",
        "Latency",
        "Worst queries",
        "RuntimeError: no eights",
        "the text of c8 of globex",
        "not found",
        "licence <bdi>CC0</bdi>",
        SET.sha256[:16],
        "&#34;git_commit&#34;",
        "Mean over tenants of ndcg@3",
    ):
        assert part in html, part
    assert html.count('class="query"') == 3 and html.count('class="plot"') == 2
    assert not re.search(r"https?://(?!www\.w3\.org|purl\.org|creativecommons\.org)", html)


def test_several_runs_are_compared_last_against_first(runs):
    """With the frontier of quality and latency."""
    html = report(runs, SET)
    assert (
        'id="comparison"' in html
        and "<bdi>better</bdi> compared with <bdi>first</bdi>" in html
        and "against latency" in html
    )
    assert html.count('class="plot"') == 3


def test_what_others_wrote_is_text(runs):
    """Neither a query, nor an id, nor a label becomes markup."""
    html = report(runs[:1], SET, title=HOSTILE)
    assert "<script" not in html and "<b>bold" not in html and "&lt;script&gt;" in html


def test_a_report_of_other_data_is_refused(runs):
    """And one of nothing, and one by a metric that the run does not have."""
    with pytest.raises(InvalidInput, match="is on other data"):
        report(runs, EvalSet("ten", SET.queries[:5]))
    with pytest.raises(InvalidInput, match="runs is empty"):
        report([], SET)
    with pytest.raises(InvalidInput, match="has no metric 'map@99'"):
        report(runs[:1], SET, main="map@99")


def browser():
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium is installed (.ci/run installs it)")
    return found


def opened(html, tmp_path):
    """What a browser made of a page: its DOM, with a report by a probe, and what it wrote to its console."""
    probe = """<script>
      window.onerror = (message) => { document.body.dataset.error = message };
      window.onload = () => {
        const all = (selector) => [...document.querySelectorAll(selector)];
        const seen = {
          sizes: all("img.plot").map((i) => [i.naturalWidth, i.naturalHeight]),
          wide: document.documentElement.scrollWidth - window.innerWidth,
          owned: window.owned || 0,
          elements: [...new Set(all("body *").map((e) => e.tagName.toLowerCase()))].sort(),
          handlers: all("*").flatMap((e) => e.getAttributeNames()).filter((name) => name.startsWith("on")),
          title: document.title,
          queries: all(".query b").map((e) => e.textContent),
        };
        document.body.dataset.seen = JSON.stringify(seen);
      };
    </script></body>"""
    page = tmp_path / "report.html"
    before, _, after = html.rpartition("</body>")
    page.write_text(before + probe + after, encoding="utf-8")
    arguments = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --host-resolver-rules=MAP\\ *\\ ~NOTFOUND --enable-logging=stderr "
        "--virtual-time-budget=5000 --window-size=1200,900 --dump-dom"
    )
    command = [browser(), *re.split(r"(?<!\\) ", arguments), f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    command = [part.replace("\\ ", " ") for part in command]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in shown.stderr, shown.stderr
    assert "data-error" not in shown.stdout
    [seen] = re.findall(r'data-seen="([^"]+)"', shown.stdout)
    return json.loads(unescape(seen))


def test_a_browser_shows_every_plot_and_reports_no_error(runs, tmp_path):
    """Headless Chromium, without a network: the images have sizes, and nothing was written to the console."""
    seen = opened(report(runs, SET, texts=texts), tmp_path)
    assert len(seen["sizes"]) == 3 and all(width > 300 and height > 150 for width, height in seen["sizes"])
    assert seen["wide"] <= 0, "the page is wider than its window"


ATTACKS = (
    "<script>window.owned = 1</script>",
    "</style></title></pre></summary></table><script>window.owned = 2</script>",
    """"><img src="x" onerror="window.owned = 3">""",
    "' onmouseover='window.owned = 4' x='",
    "<svg onload=window.owned=5></svg><iframe src='javascript:parent.owned=6'></iframe>",
    "-->]]>&lt;script&gt;{{ 7 * 7 }}{% raw %}",
    "👩\u200d🚀 日本 שלום \u202eright to left",
    r"$x^{$ \frac a_b % costs $5 and $6",
    "_\x01\x1b[31m\x7f\u2028",
)


def test_a_browser_runs_nothing_of_what_others_wrote(tmp_path):
    """As a query, id, tenant, error, text, label, title, or where a set is from: it is shown as the text that it is."""
    queries = tuple(EvalQuery(f"q{i} {a}", f"is {i} {a} so?", {f"c{i} {a}": 1}, a) for i, a in enumerate(ATTACKS))
    hostile = EvalSet(f"set {''.join(ATTACKS[:3])}", queries, ATTACKS[1], ATTACKS[2])

    def retrieve(query):
        if query.tenant == ATTACKS[0]:
            raise RuntimeError("".join(ATTACKS))
        return [(f"x {query.tenant}", 0.5), *query.judged]

    made = [evaluate(retrieve, hostile, label=f"{i} {''.join(ATTACKS[i:])}") for i in range(len(ATTACKS))]
    html = report(
        made, hostile, texts=lambda tenant, ids: {i: f"{tenant} {i}" for i in ids}, title="".join(ATTACKS), worst=99
    )
    seen = opened(html, tmp_path)
    assert (seen["owned"], seen["handlers"]) == (0, [])
    assert not {"iframe", "svg", "style"} & set(seen["elements"]) and html.count("<img") == 3
    assert len(seen["sizes"]) == 3 and all(width > 300 and height > 150 for width, height in seen["sizes"])
    shown = [query.text.replace("\x1b", "") for query in queries]
    assert sorted(text.replace("\x1b", "") for text in seen["queries"] if text.startswith("is ")) == sorted(shown)
    assert ATTACKS[0] in seen["title"]
