"""The contract, held by the store on Postgres (both majors) and by the one in memory, each in both modes."""

from __future__ import annotations

import functools
import inspect

import pytest

pytest.register_assert_rewrite(*(f"pgrecall.testing.contract.{part}" for part in ("reads", "writes", "words")))
from pgrecall import MemoryStore, PostgresVectorStore, RunStore, VectorStore  # noqa: E402
from pgrecall.testing.contract.reads import ReadsContract  # noqa: E402 -- only now can its asserts explain themselves
from pgrecall.testing.contract.words import WordsContract  # noqa: E402
from pgrecall.testing.contract.writes import WritesContract  # noqa: E402
from pgrecall.testing.vectors import MemoryVectorStore  # noqa: E402


class VectorStoreContract(ReadsContract, WritesContract, WordsContract):
    """Subclass it and give `opener` to hold another store to the contract."""


class TestPostgres(VectorStoreContract):
    @pytest.fixture
    def opener(self, db, tenant_id):
        def opener(tenant, collection, space, text_config):
            return db.tenant(f"{tenant_id}/{tenant}").vectors(collection, space, text_config=text_config)

        return opener


class TestMemory(VectorStoreContract):
    @pytest.fixture
    def opener(self):
        shelves = {}
        return functools.partial(MemoryVectorStore, shelves)


def verbs(protocol: type) -> list[str]:
    return sorted(name for name in vars(protocol) if not name.startswith("_") and callable(getattr(protocol, name)))


def parameters(function: object) -> dict[str, tuple[object, object]]:
    return {p.name: (p.kind, p.default) for p in inspect.signature(function).parameters.values()}


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


@pytest.mark.parametrize("store", [PostgresVectorStore, MemoryVectorStore])
def test_stores_have_the_protocols_verbs(store):
    """Each verb takes what the protocol says, by its names and defaults; a store's extras are optional."""
    assert issubclass(store, VectorStore)
    for name in verbs(VectorStore):
        said, has = parameters(getattr(VectorStore, name)), parameters(getattr(store, name))
        assert {key: has.get(key) for key in said} == said
        assert all(default is not inspect.Parameter.empty for _, default in (has[k] for k in has.keys() - said.keys()))
        assert inspect.iscoroutinefunction(getattr(store, name)) == inspect.iscoroutinefunction(
            getattr(VectorStore, name)
        )


def test_help_tells_what_a_caller_gives_and_gets():
    """A method made by `twins` has its plan's signature and docstring, and its own name and result."""
    for name in ("query", "aquery"):
        method = getattr(PostgresVectorStore, name)
        assert (method.__name__, method.__qualname__) == (name, f"Searching.{name}")
        assert str(inspect.signature(method)).startswith("(self, vector: 'Vector | None' = None, top_k: 'int' = 10, ")
        assert inspect.signature(method).return_annotation == method.__annotations__["return"] == "Hits"
        assert method.__doc__.startswith("The `top_k` best chunks, best first")
