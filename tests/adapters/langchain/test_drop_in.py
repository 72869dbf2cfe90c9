"""One application runs on langchain-postgres' store and on ours, and finds the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("drop_in.py")
REPOSITORY = Path(__file__).resolve().parents[3]
#: The environment that `make bench` makes, with the peers in it.
PEERS = REPOSITORY / ".venv-peers" / "bin" / "python"


def answers_of(python: str, whose: str, url: str) -> dict[str, object]:
    done = subprocess.run([python, str(SCRIPT), whose, url], capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def ours(app_url, db) -> dict[str, object]:
    """What the application finds here."""
    db.delete_tenant("drop-in")
    db.create_tenant("drop-in", reopen=True)
    return answers_of(sys.executable, "ours", app_url.render_as_string(hide_password=False))


def test_the_application_runs_on_ours(ours):
    """It finds what its texts and filters say."""
    ids = [f"00000000-0000-0000-0000-00000000000{n}" for n in range(8)]
    assert ours["nearest"][0] == [ids[3], "text 3", {"n": 3, "even": False, "kind": "a"}]
    assert ours["scores"][0] == [ids[3], 0.0] and ours["relevance"][0] == [ids[3], 1.0]
    assert ours["filtered"] == [
        *([ids[n] for n in chosen] for chosen in ((0, 3, 6), (3, 4, 5, 6), (1, 2, 3), (1, 2, 4, 5))),
        *([ids[n] for n in chosen] for chosen in ((0, 3), (1, 2), (0, 3, 6), (7,))),
    ]
    assert ours["read"][0] == [ids[0], "text 0, changed", {"n": 0, "kind": "a"}]
    assert (ours["retrieved"][0][0], ours["deleted"], ours["left"]) == (ids[6], True, ids[4:])


@pytest.mark.skipif(not PEERS.exists(), reason="the peers' environment is not there; make bench makes it")
def test_the_application_finds_the_same_on_theirs(ours, new_database):
    """Their store in their environment, on the same server."""
    assert answers_of(str(PEERS), "theirs", new_database().render_as_string(hide_password=False)) == ours
