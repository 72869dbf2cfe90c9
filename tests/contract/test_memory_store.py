"""The contract of a memory store, kept by the one on Postgres (both majors) and the one in memory."""

from __future__ import annotations

import pytest

from pgrecall.testing import InMemoryFactStore
from pgrecall.testing.contract import MemoryStoreContract


class TestPostgres(MemoryStoreContract):
    @pytest.fixture
    def make_store(self, db, tenant_id):
        return lambda tenant, **options: db.tenant(f"{tenant_id}/{tenant}").memory(**options)


class TestInMemory(MemoryStoreContract):
    @pytest.fixture
    def make_store(self):
        shared = {}
        return lambda tenant, **options: InMemoryFactStore(tenant=tenant, shared=shared, **options)
