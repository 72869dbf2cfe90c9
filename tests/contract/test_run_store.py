"""The contract of runs, kept by the store on Postgres (both majors) and by the one in memory."""

from __future__ import annotations

import pytest

from pgrecall.testing import InMemoryRunStore
from pgrecall.testing.contract import RunStoreContract


class TestPostgres(RunStoreContract):
    @pytest.fixture
    def make_store(self, db, tenant_id):
        yield lambda tenant: db.tenant(f"{tenant_id}/{tenant}").runs()
        db.close()


class TestInMemory(RunStoreContract):
    @pytest.fixture
    def make_store(self):
        shared = {}
        return lambda tenant: InMemoryRunStore(tenant=tenant, shared=shared)
