"""Homes for embedded servers, where root's server may go too."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pgrecall import embedded
from support.embedded_server import FAST, folder


@pytest.fixture
def base() -> Iterator[Path]:
    with folder() as path:
        yield path


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    with folder() as path:
        embedded.start(path / "home", settings=FAST).release()
        yield path / "home"


@pytest.fixture
def home(installed: Path) -> Iterator[Path]:
    """A home with data, and no server."""
    assert not embedded.status(installed).running
    yield installed
    embedded.stop(installed)
