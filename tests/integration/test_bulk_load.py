"""bulk_load: any number of chunks, little of them held, and nothing done twice."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from pgrecall import BulkLoadResult, Chunk, Document, EmbedSpaceMismatch, InvalidEmbedding, InvalidInput
from support.data import chunks


class Model:
    """Eight dimensions; fails at the call of number `dies`; counts how many calls run at once."""

    def __init__(self, dies: int = 0) -> None:
        self.dies, self.calls, self.texts, self.running, self.most = dies, 0, 0, 0, 0
        self._lock = threading.Lock()

    def __call__(self, texts: list[str]) -> list[np.ndarray]:
        with self._lock:
            self.calls += 1
            self.running += 1
            self.most = max(self.most, self.running)
            number = self.calls
        time.sleep(0.005)
        with self._lock:
            self.running -= 1
            self.texts += len(texts) if texts[0].startswith("text") else 0
        if number == self.dies:
            raise ConnectionResetError("the model is gone")
        return [np.random.default_rng(sum(t.encode())).normal(size=8) for t in texts]


def source(count: int, drawn: list[int] | None = None) -> Iterator[Chunk]:
    for n in range(count):
        if drawn is not None:
            drawn.append(n)
        yield Chunk(f"c{n:05d}", f"text {n}", doc_id=f"d{n // 10}", index=n % 10)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_what_died_goes_on_where_it_stopped(db, tenant_id, space, mode):
    """The committed part stays and is not embedded again; calls run at once, and not further ahead than that."""

    def load(model: Model, drawn: list[int] | None = None) -> BulkLoadResult:
        store = db.tenant(tenant_id).vectors("corpus", space)
        options = {"embed": model, "embed_concurrency": 3, "commit_every": 500}
        if mode == "sync":
            return store.bulk_load(source(3_000, drawn), **options)

        async def arriving():
            for chunk in source(3_000, drawn):
                yield chunk

        return asyncio.run(store.abulk_load(arriving(), **options))

    first, drawn = Model(dies=18), []
    with pytest.raises(ConnectionResetError) as failed:
        load(first, drawn)
    assert any("chunks were stored before" in note for note in failed.value.__notes__)
    store = db.tenant(tenant_id).vectors("corpus", space)
    kept = store.count()
    assert kept == 1_500
    assert len(drawn) <= 2_200  # not the whole corpus: back-pressure
    assert 1 < first.most <= 3
    second = Model()
    assert load(second) == BulkLoadResult(3_000, 1_500, 1_500, 1_500)
    assert second.texts == 1_500
    assert load(again := Model()) == BulkLoadResult(3_000, 0, 3_000, 0)
    assert again.texts == 0
    assert store.count() == 3_000


def test_what_comes_with_vectors_is_as_if_upserted(db, tenant_id, space):
    """Documents first, generators, the last of one id, progress; nothing enters a graph."""
    store = db.tenant(tenant_id).vectors("corpus", space)
    given = [*chunks(2_500), Chunk("again", "one", [1.0] * 8), Chunk("again", "two", [1.0] * 8)]
    seen: list[tuple[int, int | None]] = []
    described = (Document(c.doc_id, source="file") for c in given if c.doc_id)
    done = store.bulk_load(
        iter(given), documents=described, commit_every=2_000, progress=lambda n, total: seen.append((n, total))
    )
    assert (done.chunks, done.embedded, store.count()) == (2_502, 0, 2_501)
    assert seen == [(1_000, None), (2_000, None), (2_501, None), (2_502, None)]
    assert store.get(["again"])[0].text == "two"
    assert all(d.source == "file" for d in store.list_documents(limit=1_000))
    assert store.bulk_load(given).written == 0


def test_errors_name_the_row_and_keep_what_was_committed(db, tenant_id, space):
    """An item that is no chunk by its place, a bad vector by its chunk; another model before anything is drawn."""
    store = db.tenant(tenant_id).vectors("corpus", space)
    with pytest.raises(InvalidInput, match="item 1,202 of the chunks is dict"):
        store.bulk_load([*chunks(1_201), {"id": "x"}], commit_every=1_000)
    assert store.count() == 1_000
    with pytest.raises(InvalidEmbedding, match="'bad'"):
        store.bulk_load([*chunks(20), Chunk("bad", "text", [float("nan")] * 8)])
    with pytest.raises(InvalidEmbedding, match="chunk 'bare' has no embedding"):
        store.bulk_load([Chunk("bare", "text")])
    drawn: list[int] = []
    other = db.tenant(tenant_id).vectors("corpus", type(space)("test", "other", 8))
    with pytest.raises(EmbedSpaceMismatch):
        other.bulk_load(source(10, drawn), embed=Model())
    assert drawn == []
    for wrong in ({"embed_concurrency": 0}, {"commit_every": 0}, {"retry_on": (1,)}):
        with pytest.raises(InvalidInput):
            store.bulk_load([], **wrong)
