"""The contract of a memory store, held by the one on Postgres (both majors) and the one in plain Python."""

from __future__ import annotations

import inspect

import pytest

pytest.register_assert_rewrite("pgrecall.testing.contract.memory")
from contract.test_vector_store import parameters, verbs  # noqa: E402
from pgrecall import MemoryStore, PostgresMemoryStore  # noqa: E402
from pgrecall.testing.contract.memory import MemoryContract  # noqa: E402 -- after the line above
from pgrecall.testing.facts import MemoryFacts  # noqa: E402


class TestPostgres(MemoryContract):
    @pytest.fixture
    def opener(self, db, tenant_id):
        return lambda tenant, **options: db.tenant(f"{tenant_id}/{tenant}").memory(**options)


class TestMemory(MemoryContract):
    @pytest.fixture
    def opener(self):
        shelves = {}
        return lambda tenant, **options: MemoryFacts(shelves, tenant, **options)


@pytest.mark.parametrize("store", [PostgresMemoryStore, MemoryFacts])
def test_stores_have_the_protocols_verbs(store):
    """Each verb takes what the protocol says, by its names and defaults; a store's extras are optional."""
    assert issubclass(store, MemoryStore)
    for name in verbs(MemoryStore):
        said, has = parameters(getattr(MemoryStore, name)), parameters(getattr(store, name))
        assert {key: has.get(key) for key in said} == said
        assert all(default is not inspect.Parameter.empty for _, default in (has[k] for k in has.keys() - said.keys()))
