"""The contract of runs, held by the store on Postgres (both majors) and by the one in memory, each in both modes."""

from __future__ import annotations

import asyncio

import pytest

pytest.register_assert_rewrite("pgrecall.testing.contract.runs")
from pgrecall import PostgresRuns, RunStore  # noqa: E402
from pgrecall.testing.contract.base import AsyncFace  # noqa: E402 -- only now can its asserts explain themselves
from pgrecall.testing.contract.runs import RunStoreContract  # noqa: E402
from pgrecall.testing.runs import MemoryRuns  # noqa: E402


class Faces(RunStoreContract):
    @pytest.fixture(params=["sync", "async"])
    def store(self, request, opened):
        with asyncio.Runner() as runner:
            yield opened if request.param == "sync" else AsyncFace(opened, runner)


class TestPostgres(Faces):
    @pytest.fixture
    def opened(self, db, tenant_id):
        yield db.tenant(tenant_id).runs()
        db.close()


class TestMemory(Faces):
    @pytest.fixture
    def opened(self):
        return MemoryRuns()


@pytest.mark.parametrize("store", [PostgresRuns, MemoryRuns])
def test_run_stores_have_the_protocol_s_verbs(store):
    """So that one can stand in for the other."""
    assert issubclass(store, RunStore)
