"""`index` and `aindex` keep a collection in step with its source: every cleanup mode, key encoder, and a killed run."""

from __future__ import annotations

import asyncio
import itertools
import warnings

import pytest
from langchain_core.documents import Document
from langchain_core.indexing import aindex, index

from langchain_pgrecall import PGRecallRecordManager, PGRecallVectorStore
from pgrecall import InvalidInput, TenantErased

CLEANUPS = [None, "incremental", "full", "scoped_full"]
ENCODERS = ["sha1", "sha256", "sha512", "blake2b", lambda document: f"own-{hash(document.page_content)}"]


@pytest.fixture
def manager(db, tenant_id) -> PGRecallRecordManager:
    """The records of the store's collection."""
    return PGRecallRecordManager("handbook", connection=db, tenant=tenant_id)


class Indexing:
    """`index` or `aindex`, on one store and one manager."""

    def __init__(self, face: str, manager: PGRecallRecordManager, store: PGRecallVectorStore) -> None:
        self.face, self.manager, self.store = face, manager, store

    def __call__(self, documents: list[Document], **options: object) -> tuple[int, int, int, int]:
        options = {"key_encoder": "sha256", "source_id_key": "source", **options}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # langchain_core's, about sha1
            if self.face == "sync":
                result = index(documents, self.manager, self.store, **options)
            else:
                result = asyncio.run(aindex(documents, self.manager, self.store, **options))
        return result["num_added"], result["num_updated"], result["num_skipped"], result["num_deleted"]

    def texts(self) -> list[str]:
        return sorted(chunk.text for chunk in self.store.core.list_chunks(limit=1000))


@pytest.fixture(params=["sync", "async"])
def indexing(request, manager, store) -> Indexing:
    """Both faces; one object serves them."""
    return Indexing(request.param, manager, store)


def documents(*texts: str, source: str = "a.md") -> list[Document]:
    return [Document(text, metadata={"source": source}) for text in texts]


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: e if isinstance(e, str) else "own")
@pytest.mark.parametrize("cleanup", CLEANUPS, ids=str)
def test_a_collection_follows_its_source(indexing, cleanup, encoder):
    """New documents are added, unchanged ones skipped, and those that are gone are removed as the mode says."""
    options = {"cleanup": cleanup, "key_encoder": encoder}
    both = documents("one", "two") + documents("three", source="b.md")
    assert indexing(both, **options) == (3, 0, 0, 0)
    assert indexing(both, **options) == (0, 0, 3, 0)
    changed = documents("one", "two, changed")  # of a.md; b.md was not loaded this time
    gone = {None: 0, "incremental": 1, "scoped_full": 1, "full": 2}[cleanup]
    assert indexing(changed, **options) == (1, 0, 1, gone)
    left = {None: ["one", "three", "two", "two, changed"], "full": ["one", "two, changed"]}
    assert indexing.texts() == left.get(cleanup, ["one", "three", "two, changed"])
    assert indexing(changed, **options, force_update=True) == (0, 2, 0, 0)


def test_batches_and_many_stale_keys(indexing):
    """Several batches in, several cleanup batches out."""
    assert indexing(documents(*(f"text {n}" for n in range(45))), cleanup="full", batch_size=10) == (45, 0, 0, 0)
    assert indexing(documents("text 7"), cleanup="full", cleanup_batch_size=10) == (0, 0, 1, 44)
    assert indexing.texts() == ["text 7"]
    assert indexing([], cleanup="full") == (0, 0, 0, 1)
    assert indexing.texts() == [] and indexing.manager.list_keys() == []


STEPS = ["exists", "update", "add_documents", "delete", "delete_keys"]


@pytest.mark.parametrize(("step", "before"), list(itertools.product(STEPS, [True, False])))
def test_a_run_that_was_killed_between_its_calls_heals_on_the_next(manager, store, monkeypatch, step, before):
    """Whatever call it died before or after: after the next run the collection is exactly what the source says."""
    indexing = Indexing("sync", manager, store)
    indexing(documents("kept", "stale 1", "stale 2"), cleanup="full")
    target = store if hasattr(store, step) and step in ("add_documents", "delete") else manager
    done = getattr(target, step)

    def killed(*args: object, **kwargs: object) -> None:
        if not before:
            done(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(target, step, killed)
        with pytest.raises(KeyboardInterrupt):
            indexing(documents("kept", "new"), cleanup="full")
    indexing(documents("kept", "new"), cleanup="full")
    assert indexing.texts() == ["kept", "new"]
    assert len(manager.list_keys()) == 2 and manager.exists(manager.list_keys()) == [True, True]


def test_what_was_deleted_without_the_index_is_written_again(indexing):
    """A record whose document is gone does not exist: the peers' manager would skip it for ever."""
    indexing(documents("one", "two"), cleanup="incremental")
    keys = indexing.manager.list_keys()
    indexing.store.delete(keys[:1])
    assert indexing.manager.exists(keys) == [False, True]
    assert indexing(documents("one", "two"), cleanup="incremental") == (1, 0, 1, 0)
    indexing.store.core.drop()
    assert indexing.manager.list_keys() == []  # its records went with the collection
    assert indexing(documents("one", "two"), cleanup="incremental") == (2, 0, 0, 0)


def test_collections_namespaces_and_tenants_know_nothing_of_each_other(db, tenant_id, make):
    """A full cleanup of one leaves the others."""
    made = {}
    for tenant, collection, namespace in itertools.product((tenant_id, f"{tenant_id}-2"), ("x", "y"), ("", "n")):
        manager = PGRecallRecordManager(namespace, connection=db, tenant=tenant, collection=collection)
        made[tenant, collection, namespace] = Indexing("sync", manager, make(tenant=tenant, collection=collection))
        made[tenant, collection, namespace](documents(f"text of {namespace}"), cleanup="full")
    first = made[tenant_id, "x", ""]
    assert first([], cleanup="full") == (0, 0, 0, 1)
    assert first.texts() == ["text of n"]
    assert all(len(other.manager.list_keys()) == 1 for other in made.values() if other is not first)


@pytest.fixture
def clock(manager) -> float:
    """The server's time."""
    return manager.get_time()


def test_records_are_noted_listed_and_forgotten(manager, clock):
    """Times are the server's and never run ahead; groups stay where an update gives none."""
    manager.create_schema()
    manager.update(["b", "a", "b"], group_ids=["g1", "g2", "g3"], time_at_least=clock)
    assert manager.list_keys() == ["a", "b"] and manager.exists(["a"]) == [False]  # no document of that id
    assert manager.list_keys(group_ids=["g3"]) == ["b"] and manager.list_keys(group_ids=[]) == []
    assert manager.list_keys(before=clock) == [] and manager.list_keys(after=clock) == ["a", "b"]
    later = manager.get_time()
    assert later >= clock
    manager.update(["a"])
    assert manager.list_keys(before=later) == ["b"] and manager.list_keys(after=later, limit=5) == ["a"]
    assert manager.list_keys(group_ids=["g2"]) == ["a"] and manager.list_keys(limit=1) == ["a"]
    manager.delete_keys(["a", "unknown"])
    assert manager.list_keys() == ["b"]
    manager.update([])
    assert manager.exists([]) == []


def test_bad_records_are_refused(manager, db, tenant_id, clock):
    """Lengths that differ, a clock ahead of the server's, names that can't be stored, a deleted tenant."""
    with pytest.raises(ValueError, match="2 keys and 1 group_ids"):
        manager.update(["a", "b"], group_ids=["g"])
    with pytest.raises(ValueError, match="expected at most the server's current time"):
        manager.update(["a"], time_at_least=clock + 3600)
    for keys in (["a\0"], [""], ["x" * 1001], [1], "abc"):
        with pytest.raises(InvalidInput):
            manager.update(keys)
    with pytest.raises(InvalidInput, match="namespace"):
        PGRecallRecordManager("n" * 201, connection=db, tenant=tenant_id)
    assert manager.list_keys() == []
    manager.update(["a"])
    assert db.delete_tenant(tenant_id)["index_records"] == 1
    with pytest.raises(TenantErased):
        manager.update(["a"])
