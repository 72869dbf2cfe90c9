"""A collection brought up to date with its sources: what differs, what is written, and what an interrupt leaves."""

from __future__ import annotations

import asyncio

import pytest

from pgrecall import Chunk, Document, InvalidInput
from pgrecall.types import DocumentChanges, UpdateResult

ONES = [1.0] * 8


def documents(**hashes: str | None) -> list[Document]:
    return [Document(name, content_hash=digest) for name, digest in hashes.items()]


def chunks_of(document: Document) -> list[Chunk]:
    """Two chunks, of which the text says which version of the document they are of."""
    return [Chunk(f"{document.id}#{n}", f"{document.content_hash} {n}", ONES, index=n) for n in (0, 1)]


@pytest.fixture
def store(db, tenant_id, space):
    return db.tenant(tenant_id).vectors("notes", space)


def test_only_what_is_new_or_changed_is_written(store):
    """A changed document has exactly its new chunks; what is missing stays unless it is pruned."""
    first = store.update_documents(documents(a="1", b="1", c="1"), chunks_of)
    assert first == UpdateResult(new=3, changed=0, unchanged=0, deleted=0, chunks=6)
    now = documents(a="1", b="2", d="1")
    found = store.compare_documents(now)
    assert found == DocumentChanges((now[2],), (now[1],), (now[0],), ("c",))
    asked: list[str] = []
    done: list[tuple[int, int | None]] = []

    def one_chunk(document):
        asked.append(document.id)
        return chunks_of(document)[:1]

    result = store.update_documents(found, one_chunk, progress=lambda count, total: done.append((count, total)))
    assert (asked, done, result.deleted) == (["b", "d"], [(1, 2), (2, 2)], 0)
    assert [(c.id, c.text, c.doc_id) for c in store.list_chunks(doc_ids=["b"])] == [("b#0", "2 0", "b")]
    assert store.update_documents(now, one_chunk, prune=True).deleted == 1 and asked == ["b", "d"]
    assert [d.id for d in store.list_documents()] == ["a", "b", "d"] and store.count() == 4


def test_a_document_without_a_hash_counts_as_changed(store):
    """Nothing says that it is the same."""
    store.update_documents(documents(a=None), chunks_of)
    assert [d.id for d in store.compare_documents(documents(a=None)).changed] == ["a"]
    assert [d.id for d in store.compare_documents(documents(a="1")).changed] == ["a"]


def test_an_interrupted_update_continues(store):
    """A new document counts as changed until all its chunks are stored."""

    def fails(document):
        if document.id == "b":
            raise RuntimeError("power cut")
        return chunks_of(document)

    with pytest.raises(RuntimeError, match="power cut"):
        store.update_documents(documents(a="1", b="1"), fails)
    assert len(store.compare_documents(documents(a="1", b="1")).changed) == 2
    assert store.update_documents(documents(a="1", b="1"), chunks_of).changed == 2
    assert len(store.compare_documents(documents(a="1", b="1")).unchanged) == 2


def test_the_asynchronous_methods_do_the_same(db, tenant_id, space):
    """From an event loop."""
    store = db.tenant(tenant_id).vectors("notes", space)

    async def work():
        await store.aupdate_documents(documents(a="1", b="1"), chunks_of)
        found = await store.acompare_documents(documents(a="2"))
        return found, await store.aupdate_documents(found, chunks_of, prune=True)

    found, result = asyncio.run(work())
    assert (len(found.changed), found.missing) == (1, ("b",))
    assert result == UpdateResult(new=0, changed=1, unchanged=0, deleted=1, chunks=2)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s: s.compare_documents(documents(a="1") * 2), "two documents have the id 'a'"),
        (lambda s: s.compare_documents(["a"]), "expected pgrecall.Document"),
        (lambda s: s.update_documents(documents(a="1"), [Chunk("x", "t", ONES)]), "chunks_of is list"),
        (
            lambda s: s.update_documents(documents(a="1"), lambda _: [Chunk("x", "t", ONES, "b")]),
            "has doc_id 'b'; expected 'a' or None",
        ),
        (lambda s: s.update_documents(documents(a="1"), lambda _: "text"), "expected an iterable"),
        (lambda s: s.update_documents(documents(a="1"), chunks_of, embed_concurrency=0), "embed_concurrency is 0"),
    ],
)
def test_wrong_input_is_refused(store, call, said):
    """Each says what was expected."""
    with pytest.raises(InvalidInput, match=said):
        call(store)
