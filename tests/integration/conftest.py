"""A migrated database of a test's own, for what concerns the database as a whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

import pgrecall
from conftest import NewDatabase


@pytest.fixture
def url(new_database: NewDatabase) -> sa.URL:
    """As its superuser."""
    return new_database(migrated=True)


@pytest.fixture
def database(url: sa.URL) -> Iterator[pgrecall.Database]:
    """Opened with the owner's login; rows enter graphs by maintenance only."""
    with pgrecall.connect(url, admin_url=url, promote_on_upsert=False) as opened:
        yield opened
