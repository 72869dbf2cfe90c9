"""The quickstart's texts: real, the same on every run, and apart from tenant to tenant."""

import inspect
import os
import subprocess
import sys
from types import ModuleType

import pytest

pytest.importorskip("semantic_text_splitter", reason="the demo group is not installed")

import corpus

LOADED = {tenant: corpus.load(tenant) for tenant in corpus.TENANTS}
CHUNKS = [chunk for _, chunks in LOADED.values() for chunk in chunks]


def test_the_size_is_what_the_demo_promises():
    """About a thousand chunks, some hundreds of them to each tenant."""
    assert 800 <= len(CHUNKS) <= 1_300
    assert all(len(chunks) > 300 for _, chunks in LOADED.values())


def test_the_tenants_share_no_document_and_no_chunk():
    """Nothing of one tenant, not even a text, is in the other."""
    (docs_a, chunks_a), (docs_b, chunks_b) = LOADED.values()
    assert {d.id for d in docs_a}.isdisjoint(d.id for d in docs_b)
    assert {c.id for c in chunks_a}.isdisjoint(c.id for c in chunks_b)
    assert {c.text for c in chunks_a}.isdisjoint(c.text for c in chunks_b)


@pytest.mark.parametrize("tenant", corpus.TENANTS)
def test_every_chunk_has_its_own_id_and_belongs_to_a_document_in_order(tenant):
    """Chunks are numbered within their document, which has a source and a uri."""
    documents, chunks = LOADED[tenant]
    assert len({c.id for c in chunks}) == len(chunks)
    for document in documents:
        mine = [c for c in chunks if c.doc_id == document.id]
        assert [c.index for c in mine] == list(range(len(mine)))
        assert [c.id for c in mine] == [f"{document.id}#{i}" for i in range(len(mine))]
        assert mine, f"{document.id} has no text"
        assert document.source == "python-stdlib"
        assert document.uri is not None
        assert document.uri.startswith("https://docs.python.org/3.")
    assert {c.doc_id for c in chunks} == {d.id for d in documents}


def test_a_chunk_can_be_understood_alone():
    """Each begins with the symbol that it is about, and is short enough to be shown."""
    for chunk in CHUNKS:
        heading, dash, text = chunk.text.partition(" — ")
        assert dash
        assert text.strip()
        assert heading.startswith(chunk.metadata["symbol"])
        assert chunk.metadata["symbol"].startswith(str(chunk.doc_id))
        assert len(text) <= 500


def test_known_functions_are_in_the_right_tenant():
    """What the demo asks about is there, with the tenant that it asks."""
    for tenant, symbol in (("networking", "socket.create_connection"), ("data", "bisect.insort_right")):
        found = [t for t, (_, chunks) in LOADED.items() if symbol in {c.metadata["symbol"] for c in chunks}]
        assert found == [tenant]


def test_other_processes_with_other_hash_seeds_get_the_same_chunks_without_a_warning():
    """A second run meets the first one's chunks unchanged."""
    code = (
        "import corpus, hashlib\n"
        "print(hashlib.sha256(repr([corpus.load(t) for t in corpus.TENANTS]).encode()).hexdigest())"
    )
    digests = set()
    for seed in "1", "2":
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-W", "error", "-c", code]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert run.stderr == ""
        digests.add(run.stdout)
    assert len(digests) == 1


ERRORS = [AttributeError, TypeError, ValueError, NameError, SyntaxError, RecursionError, RuntimeError, OSError]


class Thing:
    """A class."""

    def whole(self, one, two):
        """The method whose parameters are known."""

    def broken(self, three):
        """The method whose introspection fails."""


@pytest.mark.parametrize("error", ERRORS)
def test_a_method_whose_introspection_fails_is_shown_without_parameters(monkeypatch, error):
    """Whatever `inspect.signature` raises, only the parameters of that one method are missing."""
    module = ModuleType("things", "A module.")
    module.Thing = Thing
    signature = inspect.signature

    def failing(item):
        if item is Thing.broken:
            raise error("no signature")
        return signature(item)

    monkeypatch.setattr(Thing, "__module__", "things")
    monkeypatch.setattr(inspect, "signature", failing)
    [first, (symbol, _, text)] = corpus._sections(module)
    assert first == ("things", "things", "A module.") and symbol == "things.Thing"
    assert "whole(one, two): The method whose parameters are known." in text
    assert "broken: The method whose introspection fails." in text


class Refusing(type):
    """A class of classes whose `__signature__` raises an error of its own."""

    @property
    def __signature__(cls):
        raise LookupError("no signature")


@pytest.mark.parametrize("item", [Refusing("Refusing", (), {}), 42, None, property(), object()])
def test_what_has_no_signature_has_no_parameters(item):
    """Values, properties and objects whose signature can't be read add nothing, and raise nothing."""
    assert corpus._parameters(item) == ""


def test_a_module_that_this_python_lacks_is_skipped(monkeypatch):
    """A Python built without sqlite3 has one document less, and no error."""
    monkeypatch.setitem(sys.modules, "sqlite3", None)  # what import sees where sqlite3 was not built
    documents, chunks = corpus.load("data")
    assert "sqlite3" not in {d.id for d in documents} | {c.doc_id for c in chunks}
    assert len(documents) == len(LOADED["data"][0]) - 1
