"""The contracts of chunks and facts where the tables are partitioned, and with transactions that open as on Citus."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa

import pgrecall
from conftest import LOGINS, NewDatabase, as_dsn
from pgrecall.admin import migrate
from pgrecall.testing.contract import MemoryStoreContract, VectorStoreContract
from support.citus import STAND_INS


def _made(new_database: NewDatabase, more: str = "", parts: int | None = None) -> sa.URL:
    url = new_database()
    migrate.upgrade(url, parts=parts)
    with psycopg.connect(as_dsn(url), autocommit=True) as connection:
        connection.execute(LOGINS + more)
    return url.set(username="test_app")


@pytest.fixture(scope="module")
def partitioned(_databases: NewDatabase) -> Iterator[pgrecall.Database]:
    with pgrecall.connect(_made(_databases, parts=4)) as db:
        yield db


@pytest.fixture(scope="module")
def on_citus(_databases: NewDatabase) -> Iterator[pgrecall.Database]:
    """Every setting is a message of its own, in a pipeline; the tables are where they were."""
    with pgrecall.connect(_made(_databases, STAND_INS)) as db:
        assert db.backend.server(db.backend.engines.sync_gate()).ground.citus
        yield db


class TestPartitioned(VectorStoreContract):
    @pytest.fixture
    def make_store(self, partitioned, tenant_id):
        def make_store(tenant, collection, space, text_config):
            return partitioned.tenant(f"{tenant_id}/{tenant}").vectors(collection, space, text_config=text_config)

        return make_store


class TestPartitionedMemory(MemoryStoreContract):
    @pytest.fixture
    def make_store(self, partitioned, tenant_id):
        return lambda tenant, **options: partitioned.tenant(f"{tenant_id}/{tenant}").memory(**options)


class TestOpenedAsOnCitus(VectorStoreContract):
    @pytest.fixture
    def make_store(self, on_citus, tenant_id):
        def make_store(tenant, collection, space, text_config):
            return on_citus.tenant(f"{tenant_id}/{tenant}").vectors(collection, space, text_config=text_config)

        return make_store
