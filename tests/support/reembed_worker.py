"""A process that re-embeds a collection slowly, and may kill itself.

    python -m support.reembed_worker URL TENANT [STEP]

Without a step it goes on until it is done, or killed. Steps are where it kills itself with SIGKILL.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import numpy as np

from pgrecall import connect
from pgrecall.operations.chunks import reembed as reembedding
from support import models

#: Step -> the function before (or after) which it dies.
STEPS: dict[str, tuple[str, bool]] = {
    "before-check": ("_check", False),
    "before-switch": ("_switch", False),
    "after-switch": ("_switch", True),
    "dropping": ("_drop", True),
}


def slowly(texts: list[str]) -> np.ndarray:
    """As a model that takes its time."""
    time.sleep(0.03)
    return models.new(texts)


def die_at(step: str) -> None:
    """Arrange for this process to be killed."""
    name, after = STEPS[step]
    lives = getattr(reembedding, name)

    def dies(*args: Any, **kwargs: Any) -> None:
        if after:
            lives(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(reembedding, name, dies)


def main(url: str, tenant: str, step: str = "") -> None:
    """Do it."""
    if step:
        die_at(step)
    reembedding.EMBED_BATCH = 20
    with connect(url) as db:
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        print(db.tenant(tenant).reembed("handbook", models.NEW, slowly, batch=40))  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main(*sys.argv[1:])
