"""Stores that embed for themselves: what is embedded, when, and how a changed model is noticed."""

from __future__ import annotations

import asyncio
import logging

import numpy as np
import pytest

from pgrecall import (
    Chunk,
    Document,
    Embedder,
    EmbedModel,
    EmbedSpace,
    EmbedSpaceMismatch,
    FingerprintMismatch,
    InvalidEmbedding,
    InvalidInput,
)
from support.data import chunks


class Model:
    """A deterministic embedding of texts in eight dimensions; `turn` makes it another model."""

    def __init__(self, turn: int = 0) -> None:
        self.turn = turn
        self.seen: list[str] = []

    def __call__(self, texts: list[str]) -> list[np.ndarray]:
        self.seen += texts
        return [np.random.default_rng(abs(hash((t, self.turn))) % 2**32).normal(size=8) for t in texts]

    async def later(self, texts: list[str]) -> list[np.ndarray]:
        await asyncio.sleep(0)
        return self(texts)


def bare(count: int, word: str = "text") -> list[Chunk]:
    return [Chunk(f"c{n}", f"{word} {n}", doc_id="d", index=n) for n in range(count)]


def test_only_new_and_changed_texts_are_embedded(db, tenant_id, space):
    """A second ingest of the same texts costs no embedding; a changed one costs one."""
    model = Model()
    store = db.tenant(tenant_id).vectors("handbook", space, embed=model)
    first = store.upsert(bare(30), documents=[Document("d", source="wiki")])
    assert (first.embedded, first.written) == (30, 30)
    model.seen.clear()
    again = store.upsert(bare(30))
    assert (again.embedded, again.written, again.unchanged, model.seen) == (0, 0, 30, [])
    changed = bare(30)
    changed[7] = Chunk("c7", "another text", doc_id="d", index=7)
    third = store.upsert(iter(changed), commit_every=10)
    assert (third.embedded, third.written, model.seen) == (1, 1, ["another text"])
    assert store.query(Model()(["another text"])[0], 1)[0].chunk_id == "c7"


def test_replacing_a_document_embeds_what_changed(db, tenant_id, space):
    """replace_document keeps the vectors of unchanged texts and removes chunks that are gone."""
    model = Model()
    store = db.tenant(tenant_id).vectors("handbook", space, embed=model)
    store.replace_document(Document("d"), bare(10))
    result = store.replace_document(Document("d"), [*bare(5), Chunk("new", "new text")])
    assert (result.embedded, result.removed, store.count()) == (1, 5, 6)


def test_asynchronous_functions_and_sources_work_where_the_caller_is_asynchronous(db, tenant_id, space):
    """aupsert takes an async embed and an async generator; the synchronous call says what to do instead."""
    model = Model()
    store = db.tenant(tenant_id).vectors("handbook", space, embed=model.later)

    async def source():
        for chunk in bare(25):
            await asyncio.sleep(0)
            yield chunk

    assert asyncio.run(store.aupsert(source())).embedded == 25
    assert (
        asyncio.run(db.tenant(tenant_id).vectors("handbook", space, embed=model.later).aupsert(source())).embedded == 0
    )
    with pytest.raises(InvalidInput, match="expected a synchronous one; call aupsert"):
        store.upsert(source())
    with pytest.raises(InvalidInput, match="asynchronous, but the call is not; call the store's a… methods"):
        db.tenant(tenant_id).vectors("handbook", space, embed=model.later).upsert(bare(1))


def test_a_model_that_changed_under_its_name_is_noticed_before_anything_is_compared(db, tenant_id, space):
    """The first use of a store compares its model with the collection's fingerprint: reads and writes are refused."""
    db.tenant(tenant_id).vectors("handbook", space, embed=Model()).upsert(bare(3))
    changed = db.tenant(tenant_id).vectors("handbook", space, embed=Model(turn=1))
    for call in (
        lambda: changed.query([1.0] * 8),
        lambda: changed.upsert(bare(3)),
        lambda: asyncio.run(changed.aquery([1.0] * 8)),
    ):
        with pytest.raises(FingerprintMismatch, match=r"cosine -?0\.\d+, expected at least 0.999"):
            call()
    same = db.tenant(tenant_id).vectors("handbook", space, embed=lambda texts: [v * 3.0 + 1e-5 for v in Model()(texts)])
    assert len(same.query([1.0] * 8)) == 3
    assert isinstance(FingerprintMismatch("x"), EmbedSpaceMismatch)


def test_a_collection_made_without_a_model_takes_the_first_fingerprint(db, tenant_id, space):
    """Vectors came first, without a function; the first writer with one sets the fingerprint, no reader does."""
    db.tenant(tenant_id).vectors("handbook", space).upsert(chunks(3))
    assert len(db.tenant(tenant_id).vectors("handbook", space, embed=Model(turn=2)).query([1.0] * 8)) == 3
    db.tenant(tenant_id).vectors("handbook", space, embed=Model()).upsert(bare(1))
    with pytest.raises(FingerprintMismatch):
        db.tenant(tenant_id).vectors("handbook", space, embed=Model(turn=1)).query([1.0] * 8)


def test_a_store_that_came_before_its_collection_is_checked_when_that_is_made(db, tenant_id, space):
    """A reader that found nothing yet compares its model once another process has made the collection."""
    early = db.tenant(tenant_id).vectors("handbook", space, embed=Model(turn=1))
    assert early.query([1.0] * 8) == []
    db.tenant(tenant_id).vectors("handbook", space, embed=Model()).upsert(bare(3))
    with pytest.raises(FingerprintMismatch):
        early.query([1.0] * 8)


def test_another_models_store_is_refused_before_anything_is_embedded(db, tenant_id, space):
    """The name of the space is compared first: a refused call costs no embedding."""
    db.tenant(tenant_id).vectors("handbook", space).upsert(chunks(3))
    model = Model()
    other = db.tenant(tenant_id).vectors("handbook", EmbedSpace("test", "other", 8), embed=model)
    with pytest.raises(EmbedSpaceMismatch, match="test/other"):
        other.upsert(bare(3))
    assert model.seen == []


def test_the_fingerprint_is_checked_once_per_store(db, tenant_id, space):
    """The known text is embedded on first use only."""
    model = Model()
    store = db.tenant(tenant_id).vectors("handbook", space, embed=model)
    store.upsert(bare(1))
    model.seen.clear()
    for _ in range(3):
        store.query([1.0] * 8)
    assert model.seen == []


def test_chunks_without_a_vector_and_without_a_function_are_refused_unless_kept(db, tenant_id, space):
    """No embedding means "keep the stored one": fine for the same text, an error that names the chunk otherwise."""
    store = db.tenant(tenant_id).vectors("handbook", space)
    made = chunks(5)
    store.upsert(made)
    same = [Chunk(c.id, c.text, doc_id=c.doc_id, index=c.index, metadata={"new": True}) for c in made]
    assert store.upsert(same).written == 5
    assert store.query(made[2].embedding, 1)[0].metadata == {"new": True}
    with pytest.raises(InvalidEmbedding, match="'c0003' has no embedding"):
        store.upsert([*same[:3], Chunk("c0003", "other words")])
    with pytest.raises(InvalidEmbedding, match="'fresh' has no embedding"):
        store.upsert([Chunk("fresh", "x")])


def test_embedding_needs_no_second_connection(app_url, tenant_id, space):
    """A pool of one connection is enough for an upsert that embeds, from a list and from a generator."""
    import pgrecall

    with pgrecall.connect(app_url, pool_size=1, max_overflow=0, pool_timeout=3) as db:
        store = db.tenant(tenant_id).vectors("handbook", space, embed=Model())
        assert store.upsert(bare(2500)).embedded == 2500
        assert store.upsert(c for c in bare(2600)).embedded == 100


def test_the_log_tells_duration_and_rows_but_never_text(db, tenant_id, space, caplog):
    """The `pgrecall` logger's DEBUG lines carry operation, tenant, rows and milliseconds."""
    store = db.tenant(tenant_id).vectors("handbook", space)
    with caplog.at_level(logging.DEBUG, "pgrecall"):
        store.upsert([Chunk("1", "a secret text", [1.0] * 8, metadata={"password": "hunter2"})])
        store.query([1.0] * 8, 3)
    record = caplog.records[-1]
    assert (record.operation, record.tenant, record.rows) == ("search exact", tenant_id, 1)
    assert 0 < record.duration_ms < 60_000
    assert "secret" not in caplog.text and "hunter2" not in caplog.text


def test_progress_follows_what_takes_the_time(db, tenant_id, space):
    """Reports come each hundred embedded chunks, else each thousand written; a generator's total is None."""
    store = db.tenant(tenant_id).vectors("handbook", space, embed=Model())
    seen: list[tuple[int, int | None]] = []
    store.upsert(bare(250), progress=lambda *report: seen.append(report))
    assert seen == [(100, 250), (200, 250), (250, 250)]
    plain, seen[:] = db.tenant(tenant_id).vectors("handbook", space), []
    plain.upsert(chunks(2100), progress=lambda *report: seen.append(report))
    assert seen == [(1000, 2100), (2000, 2100), (2100, 2100)]
    seen.clear()
    plain.upsert(iter(chunks(1100)), progress=lambda *report: seen.append(report))
    assert seen == [(1000, None), (1100, None)]
    seen.clear()
    store.upsert(bare(120), commit_every=50, progress=lambda *report: seen.append(report))
    assert seen == [(50, 120), (100, 120), (120, 120)]


class Both:
    """A model with a function for each mode, and how often each was called."""

    def __init__(self, turn: int = 0) -> None:
        self.model = Model(turn)
        self.calls: list[str] = []

    def embedder(self) -> Embedder:
        return Embedder(self.sync, self.later)

    def sync(self, texts: list[str]) -> list[np.ndarray]:
        self.calls.append("sync")
        return self.model(texts)

    async def later(self, texts: list[str]) -> list[np.ndarray]:
        self.calls.append("async")
        return await self.model.later(texts)


def test_an_embedder_is_called_in_the_callers_mode(db, tenant_id, space):
    """The a… methods await the asynchronous function, the others call the synchronous one; so does the fingerprint."""
    both = Both()
    embedder = both.embedder()
    store = db.tenant(tenant_id).vectors("handbook", space, embed=embedder)
    asyncio.run(store.aupsert(bare(3)))
    assert both.calls == ["async", "async"]
    store.upsert(bare(3, "other"))
    assert both.calls == ["async", "async", "sync"]
    db.tenant(tenant_id).vectors("handbook", space, embed=embedder).query([1.0] * 8)
    assert len(both.calls) == 3  # a store that shares the embedder needs no fingerprint of its own


def test_a_model_tells_its_dimensions_at_the_first_use_and_not_before(db, tenant_id):
    """Nothing is embedded when the store is made; the collection then has the vectors' length."""
    both, model = Both(), EmbedModel("test", "both", "ip")
    store = db.tenant(tenant_id).vectors("handbook", model, embed=both.embedder())
    assert both.calls == []
    assert asyncio.run(store.aquery([1.0] * 8)) == [] and both.calls == ["async"]
    store.upsert(bare(2))
    assert db.tenant(tenant_id).collection_info("handbook").space == EmbedSpace("test", "both", 8, "ip")
    assert len(db.tenant(tenant_id).vectors("handbook", model, embed=Both().embedder()).query([1.0] * 8)) == 2


def test_a_model_of_another_name_is_refused_before_it_is_called(db, tenant_id, space):
    """By provider, model or distance; and by its fingerprint where only the vectors differ."""
    db.tenant(tenant_id).vectors("handbook", space, embed=Model()).upsert(bare(1))
    others = [EmbedModel("other", "eight"), EmbedModel("test", "nine"), EmbedModel("test", "eight", "l2")]
    for other in others:
        both = Both()
        with pytest.raises(EmbedSpaceMismatch, match="holds vectors of test/eight"):
            db.tenant(tenant_id).vectors("handbook", other, embed=both.embedder()).query([1.0] * 8)
        assert both.calls == []
    with pytest.raises(FingerprintMismatch):
        db.tenant(tenant_id).vectors("handbook", EmbedModel("test", "eight"), embed=Both(1).embedder()).query([1.0] * 8)
    with pytest.raises(InvalidInput, match="no embedding function to determine it"):
        db.tenant(tenant_id).vectors("handbook", EmbedModel("test", "eight"))
