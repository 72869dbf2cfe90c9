"""The contract, kept by the store on Postgres (both majors) and by the one in memory, each in both modes."""

from __future__ import annotations

import inspect

import pytest

from pgrecall import MemoryStore, PostgresVectorStore, RunStore, VectorStore
from pgrecall.testing import InMemoryVectorStore
from pgrecall.testing.contract import VectorStoreContract
from pgrecall.testing.contract.base import verbs


class TestPostgres(VectorStoreContract):
    @pytest.fixture
    def make_store(self, db, tenant_id):
        def make_store(tenant, collection, space, text_config):
            return db.tenant(f"{tenant_id}/{tenant}").vectors(collection, space, text_config=text_config)

        return make_store


class TestInMemory(VectorStoreContract):
    @pytest.fixture
    def make_store(self):
        shared = {}

        def make_store(tenant, collection, space, text_config):
            return InMemoryVectorStore(
                space, tenant=tenant, collection=collection, text_config=text_config, shared=shared
            )

        return make_store


@pytest.mark.parametrize("protocol", [VectorStore, MemoryStore, RunStore])
def test_every_verb_has_its_asynchronous_twin(protocol):
    """`aname` is a coroutine function with the parameters and the result of `name`."""
    names = verbs(protocol)
    plain = [n for n in names if f"a{n}" in names]
    assert sorted([*plain, *(f"a{n}" for n in plain)]) == names
    for name in plain:
        one, other = getattr(protocol, name), getattr(protocol, f"a{name}")
        assert (inspect.iscoroutinefunction(one), inspect.iscoroutinefunction(other)) == (False, True)
        assert inspect.signature(one) == inspect.signature(other)


def test_help_tells_what_a_caller_gives_and_gets():
    """A method made by `twins` has its plan's signature and docstring, and its own name and result."""
    for name in ("query", "aquery"):
        method = getattr(PostgresVectorStore, name)
        assert (method.__name__, method.__qualname__) == (name, f"VectorSearch.{name}")
        assert str(inspect.signature(method)).startswith("(self, vector: 'Vector | None' = None, top_k: 'int' = 10, ")
        assert inspect.signature(method).return_annotation == method.__annotations__["return"] == "Hits"
        assert method.__doc__.startswith("Search the collection; returns the `top_k` best chunks")
