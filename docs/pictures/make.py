"""Makes the documentation's pictures, in an environment of `make test` with chromium: `python docs/pictures/make.py`.

Terminals are rich's own SVG of what the program printed; the report is a screenshot of what it wrote.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

import pgrecall

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "examples" / "quickstart"))

import main as quickstart  # noqa: E402 # it lies in the folder that was just named
import minilm  # noqa: E402


def save(console: Console, name: str, title: str) -> None:
    """Write what a console recorded."""
    console.save_svg(str(HERE / f"{name}.svg"), title=title, theme=DIMMED_MONOKAI)


def demo() -> None:
    """The quickstart's second run, which finds its rows there; two of its four questions are enough for a picture."""
    ask = quickstart.ask

    def some(store: Any, question: str, *filters: Any) -> Any:
        if "IP address" in question or "comma" in question:
            return None
        return ask(store, question, *filters)

    quickstart.console.file = io.StringIO()
    quickstart.main(time.perf_counter())
    plain: dict[str, Any] = {"highlight": False, "markup": False, "color_system": "truecolor"}
    console = Console(record=True, width=100, file=io.StringIO(), **plain)
    quickstart.console, quickstart.ask = console, some
    quickstart.section = partial(console.rule, align="left", style="cyan")
    quickstart.say = partial(console.print, end="\n\n")
    quickstart.main(time.perf_counter())
    save(console, "demo", "make demo")


def doctor() -> None:
    """The doctor of the demo's database."""
    command = [Path(sys.executable).with_name("pgrecall"), "doctor"]
    environment = os.environ | {"COLUMNS": "110", "FORCE_COLOR": "1"}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    console = Console(record=True, width=110, file=io.StringIO())
    console.print(Text.from_ansi(printed))
    save(console, "doctor", "pgrecall doctor")


def report() -> None:
    """Sentences of the demo's chunks as questions: by vectors, by words, by both."""
    from pgrecall.evaluation import Evaluations, evaluate, known_items
    from pgrecall.evaluation.report import report as written

    with pgrecall.connect() as db:
        tenant = db.tenant("data")
        tenant.set_text_config("stdlib", "english")
        store = tenant.vectors("stdlib", quickstart.SPACE, embed=minilm.embed)
        kept = Evaluations(tenant)
        questions = known_items(store.list_chunks(limit=10_000), 200, name="stdlib")
        asked = kept.load_set("stdlib", kept.save_set(questions).version)
        runs = [
            evaluate(store, asked, store=kept, embed=minilm.embed, mode=mode, top_k=(1, 3, 5, 10), label=mode)
            for mode in ("dense", "sparse", "hybrid")
        ]
        page = written(runs, asked, title="stdlib: vectors, words, both")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "report.html").write_text(page)
        command = [shutil.which("chromium") or "chromium", "--headless", "--no-sandbox", "--disable-gpu"]
        command += ["--hide-scrollbars", "--window-size=1120,1120", f"--screenshot={HERE / 'report.png'}"]
        subprocess.run([*command, f"file://{folder}/report.html"], check=True, capture_output=True)
    Image.open(HERE / "report.png").convert("RGB").quantize(64).save(HERE / "report.png", optimize=True)


if __name__ == "__main__":
    for picture in (demo, doctor, report):
        picture()
