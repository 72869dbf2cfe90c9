"""A collection is re-embedded with another model, during reads and writes, and after kill -9 at any point."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import pgrecall
from pgrecall import (
    Chunk,
    ConfigurationError,
    EmbedModel,
    EmbedSpaceMismatch,
    F,
    FingerprintMismatch,
    InvalidEmbedding,
    NotFound,
)
from pgrecall.operations.chunks import reembed as reembedding
from pgrecall.operations.models import calls
from support import models
from support.cli import run as cli
from support.cli import text as as_text
from support.graphs import LARGE
from support.models import NEW, OLD

TESTS = Path(__file__).parents[1]


def made(count, start=0, about="text"):
    return [
        Chunk(f"c{n:05d}", f"{about} {n}", doc_id=f"d{n // 10}", metadata={"n": n}) for n in range(start, start + count)
    ]


@pytest.fixture
def tenant(db, tenant_id):
    return db.tenant(tenant_id)


@pytest.fixture
def store(tenant):
    store = tenant.vectors("handbook", OLD, embed=models.old)
    store.upsert(made(250))
    return store


def vectors_of(admin_connection, tenant):
    """How many vectors each model's space holds for the tenant."""
    rows = admin_connection.execute(
        "SELECT embed_model, count(*) FROM pgrecall.chunk_embeddings WHERE tenant_id = %s GROUP BY 1",
        [tenant.tenant_id],
    )
    return dict(rows.fetchall())


def assert_whole(tenant, expected, admin_connection):
    """The collection has exactly these texts, each with the new model's vector of it, and no other vectors."""
    answers = tenant.vectors("handbook", NEW)
    held = {c.id: c for c in answers.list_chunks(limit=10_000, with_embeddings=True)}
    assert {i: c.text for i, c in held.items()} == expected
    wanted = models.new([c.text for c in held.values()])
    found = np.array([c.embedding for c in held.values()])
    assert np.abs(found - wanted).max() < 1e-3
    assert vectors_of(admin_connection, tenant) == {"new": len(expected)}


def test_a_collection_answers_in_the_old_space_until_all_of_it_is_in_the_new_one(tenant, store, admin_connection):
    """Readers and writers go on with the old model; then the new one's vectors stand alone, each made of its text."""
    progress_calls, during = [], []

    def embed(texts):
        if len(progress_calls) == 3:  # in the middle: one text changes, one goes, two come, and one is only tagged
            store.upsert([Chunk("c00001", "another text", metadata={"n": -1}), *made(2, 250)])
            store.delete(["c00002"])
            store.set_metadata({"seen": True}, ids=["c00003"])
            hit = store.query(models.old(["another text"])[0], 1)[0]
            during.append((hit.chunk_id, tenant.collection_info("handbook").next_space))
        return models.new(texts)

    done = tenant.reembed("handbook", NEW, embed, batch=100, progress=lambda *at: progress_calls.append(at))
    assert during and set(during) == {("c00001", NEW)}
    assert progress_calls[:2] == [(0, 250), (100, 250)] and progress_calls[-1] == (251, 251)
    assert (done.space, done.switched, done.chunks, done.dropped) == (NEW, True, 251, 251)
    assert done.embedded == 253  # one twice, which had its vector when its text changed; and one went
    assert done.sampled >= 10 and done.found == 1.0 and 0.0 <= done.overlap <= 1.0
    expected = {c.id: c.text for c in made(252)} | {"c00001": "another text"}
    del expected["c00002"]
    assert_whole(tenant, expected, admin_connection)
    info = tenant.collection_info("handbook")
    assert (info.space, info.next_space) == (NEW, None)
    with pytest.raises(EmbedSpaceMismatch, match=r"holds vectors of test/new .*tenant\.reembed"):
        store.query(models.old(["x"])[0])
    with pytest.raises(EmbedSpaceMismatch):
        store.upsert(made(1))
    # The fingerprint is the new model's: it is recognized, and another one is not.
    answers = tenant.vectors("handbook", NEW, embed=models.new)
    assert answers.query(models.new(["another text"])[0], 1, F.n == -1)[0].chunk_id == "c00001"
    with pytest.raises(FingerprintMismatch):
        tenant.vectors("handbook", NEW, embed=lambda texts: -models.new(texts)).upsert(made(1, 900))
    again = tenant.reembed("handbook", NEW, models.new)
    assert (again.switched, again.embedded, again.dropped) == (True, 0, 0)


def test_a_store_that_names_no_space_follows(tenant, store):
    """It answers in whatever the collection's space is, before and after, though it remembers the old one."""
    plain = tenant.vectors("handbook")
    assert plain.query(models.old(["text 7"])[0], 1)[0].chunk_id == "c00007"
    tenant.reembed("handbook", NEW, models.new)
    assert plain.query(models.new(["text 7"])[0], 1)[0].chunk_id == "c00007"
    plain.upsert([Chunk("own", "own", models.new(["own"])[0])])
    assert plain.count() == 251


def writing(tenant, expected, stop, failures, seed):
    """Change, add and delete chunks by whichever model the collection is of; keep in mind what must be there."""
    rng = random.Random(seed)
    stores = {s: tenant.vectors("handbook", s, embed=e) for s, e in ((OLD, models.old), (NEW, models.new))}
    by = OLD
    n = 0
    try:
        while not stop.is_set():
            n += 1
            chunk = Chunk(f"c{rng.randrange(seed, 250, 2):05d}", f"changed {seed} {n}")
            new = Chunk(f"n{seed}-{n:05d}", f"new {seed} {n}")
            gone = f"n{seed}-{n - 3:05d}"
            try:
                stores[by].upsert([chunk, new])
            except EmbedSpaceMismatch:
                by = NEW
                stores[by].upsert([chunk, new])
            expected[chunk.id], expected[new.id] = chunk.text, new.text
            if n % 2 == 0:
                stores[by].delete([gone])
                expected.pop(gone, None)
            time.sleep(0.01)
    except BaseException as exc:  # noqa: BLE001 -- asserted by the test
        failures.append(exc)


def reading(url, tenant_id, stop, failures, seen):
    """Ask for texts that nobody changes, each of which must be found; by the new model once the old one is refused."""
    try:
        with pgrecall.connect(url) as other:
            stores = {s: other.tenant(tenant_id).vectors("handbook", s) for s in (OLD, NEW)}
            embed = {OLD: models.old, NEW: models.new}
            by = OLD
            while not stop.is_set():
                n = 250 + len(seen) % 20
                try:
                    hits = stores[by].query(embed[by]([f"text {n}"])[0], 5)
                except EmbedSpaceMismatch:
                    assert by == OLD
                    by = NEW
                    continue
                assert hits[0].chunk_id == f"c{n:05d}" and hits[0].score > 0.99 and len(hits) == 5
                seen.append(by)
    except BaseException as exc:  # noqa: BLE001 -- asserted by the test
        failures.append(exc)


@pytest.mark.slow("runs eight processes, one after the other")
def test_it_survives_kill_9_anywhere_during_writes_and_reads(tenant, store, admin_connection, app_url):
    """Killed at random moments and at each step, gone on with each time: nothing is lost, doubled, stale or mixed."""
    store.upsert(made(770)[250:])
    expected = {c.id: c.text for c in made(770)}
    stop, failures, seen = threading.Event(), [], []
    url = app_url.render_as_string(hide_password=False)
    threads = [threading.Thread(target=writing, args=(tenant, expected, stop, failures, n)) for n in (0, 1)]
    threads.append(threading.Thread(target=reading, args=(app_url, tenant.tenant_id, stop, failures, seen)))
    for thread in threads:
        thread.start()
    rng = random.Random(7)
    try:
        ends = []
        for step in ("", "", "", "before-check", "before-switch", "after-switch", "dropping"):
            command = [sys.executable, "-m", "support.reembed_worker", url, tenant.tenant_id, *([step] if step else [])]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=TESTS) as worker:
                assert worker.stdout.readline() == "begun\n"
                if not step:
                    time.sleep(rng.uniform(0.05, 0.7))
                    worker.kill()
                ends.append(worker.wait(60))
        assert ends == [-9] * 7
        assert tenant.collection_info("handbook").space == NEW
        time.sleep(0.2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    done = tenant.reembed("handbook", NEW, models.new)
    assert (done.embedded, done.switched) == (0, True)
    assert {OLD, NEW} == set(seen)
    assert_whole(tenant, expected, admin_connection)


def test_writers_that_never_rest_are_waited_for_at_the_end(tenant, store, admin_connection, monkeypatch):
    """Where each pass finds chunks that came meanwhile, the last few are embedded while writers wait."""
    n = 0

    def busy(passes, so_far):
        def switch(gate, job, number):
            nonlocal n
            if number <= 3:  # something comes after each pass, before the switch looks
                n += 1
                store.upsert(made(1, 1000 + n))
            passes.append(number)
            return so_far(gate, job, number)

        return switch

    passes = []
    monkeypatch.setattr(reembedding, "_switch", busy(passes, reembedding._switch))
    done = tenant.reembed("handbook", NEW, models.new)
    assert passes == [1, 2, 3] and done.embedded == 253
    assert_whole(tenant, {c.id: c.text for c in made(250)} | {c.id: c.text for c in made(3, 1001)}, admin_connection)


def test_what_the_model_makes_is_checked_before_the_switch(tenant, store, admin_connection):
    """A model that tells nothing apart, and one that changed half-way, switch nothing; giving up leaves no vector."""
    with pytest.raises(InvalidEmbedding, match=r"only \d+ are among the 10 nearest .*cancel_reembed"):
        tenant.reembed("handbook", NEW, lambda texts: np.ones((len(texts), 16)))
    assert store.query(models.old(["text 7"])[0], 1)[0].chunk_id == "c00007"
    with pytest.raises(FingerprintMismatch):  # the call that goes on comes with another model
        tenant.reembed("handbook", NEW, models.new)
    other = pgrecall.EmbedSpace("test", "third", 16)
    with pytest.raises(ConfigurationError, match=r"being re-embedded as test/new .*cancel_reembed"):
        tenant.reembed("handbook", other, models.new)
    assert tenant.cancel_reembed("handbook") == 250
    assert vectors_of(admin_connection, tenant) == {"old": 250}

    def drifting(texts):  # the fingerprint and the first part as ever, then another model answers under the name
        drifting.calls += 1
        return models.new(texts) if drifting.calls <= 2 else -models.new(texts)

    drifting.calls = 0
    with pytest.raises(FingerprintMismatch, match=r"differs from what the embedding function returns now"):
        tenant.reembed("handbook", NEW, drifting)
    tenant.cancel_reembed("handbook")
    for where in (lambda: tenant.reembed("nowhere", NEW, models.new), lambda: tenant.cancel_reembed("nowhere")):
        with pytest.raises(NotFound):
            where()
    with tenant.atomic(), pytest.raises(ConfigurationError, match="atomic"):
        tenant.reembed("handbook", NEW, models.new)
    assert tenant.reembed("handbook", EmbedModel("test", "new"), models.new).space == NEW


def test_bad_vectors_stop_it_and_the_command_line_says_how_it_goes_on(tenant, store, app_url, tmp_path, monkeypatch):
    """NaN, too few vectors and a wrong length are errors that name the chunk; Ctrl-C exits with 130; --cancel works."""

    def flawed(texts):
        return models.new(texts) * np.where(np.array(texts) == "text 120", np.nan, 1.0)[:, None]

    for embed, said in (
        (flawed, "chunk 'c00120' has NaN"),
        (lambda texts: models.new(texts)[: max(1, len(texts) - 1)], "returned 99 vectors for 100 texts"),
        (models.old, "has 8 dimensions; the space test/new"),
    ):
        with pytest.raises(InvalidEmbedding, match=said):
            tenant.reembed("handbook", NEW, embed)
    (tmp_path / "my_interrupted_model.py").write_text(
        "from support.models import new\n"
        "def embed(texts):\n"
        "    if 'text 120' in texts:\n"
        "        raise KeyboardInterrupt\n"
        "    return new(texts)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    command = ("collections", "reembed", "handbook", "-t", tenant.tenant_id, "-u", as_text(app_url))
    progress_calls = cli(*command, "--provider", "test", "--model", "new", "--embed", "my_interrupted_model:embed")
    assert progress_calls.code == 130 and "Run the same command to continue" in " ".join(progress_calls.err.split())
    assert store.query(models.old(["text 7"])[0], 1)[0].chunk_id == "c00007"
    assert tenant.collection_info("handbook").next_space == NEW
    assert [cli(*command, "--cancel", "--json").json["cancelled"] for _ in range(2)] == [True, False]
    assert tenant.collection_info("handbook").next_space is None


class Busy(Exception):
    """As a hosted model's client says that it was asked too often."""

    def __init__(self, status_code):
        self.status_code = status_code


def test_several_calls_at_once_patient_with_a_busy_model(tenant, store, admin_connection, monkeypatch):
    """Async calls stay within the limit, busy answers are retried, other errors are raised, and text_of is used."""
    monkeypatch.setattr(calls, "_backoff", lambda _: 0.001)
    monkeypatch.setattr(reembedding, "EMBED_BATCH", 10)
    running = most = asked = 0
    together = 1  # calls that wait for each other
    deadline = time.monotonic() + 30

    async def embed(texts):
        nonlocal running, most, asked
        running, asked = running + 1, asked + 1
        most = max(most, running)
        try:
            await asyncio.sleep(0.002)
            while most < together and len(texts) == 10 and time.monotonic() < deadline:
                await asyncio.sleep(0.001)
            if asked % 5 == 0:
                raise Busy(429) if asked % 2 else TimeoutError
            return models.new(texts)
        finally:
            running -= 1

    async def failing(texts):
        if texts[0].startswith("1 "):
            raise Busy(400)
        return await embed(texts)

    def text_of(chunk):
        return f"{chunk.metadata['n']} {chunk.text}"

    async def main():
        nonlocal together
        options = {"text_of": text_of, "embed_concurrency": 4, "retry_on": (TimeoutError,)}
        with pytest.raises(Busy):
            await tenant.areembed("handbook", NEW, failing, **options | {"text_of": lambda c: f"{text_of(c)[0]} x"})
        await tenant.acancel_reembed("handbook")
        together = 4
        return await tenant.areembed("handbook", NEW, embed, **options)

    done = asyncio.run(main())
    assert done.embedded == 250 and most == 4
    answers = tenant.vectors("handbook", NEW)
    assert answers.query(models.new(["7 text 7"])[0], 1)[0].score > 0.99


def test_the_new_graph_can_stand_before_the_switch(tmp_path, new_database):
    """Without the switch maintenance builds the next space's graph; after it searches go there at once."""
    url = new_database(migrated=True)
    with pgrecall.connect(url, admin_url=url) as db:
        tenant = db.tenant("acme")
        tenant.vectors("handbook", OLD, embed=models.old).upsert(made(LARGE))
        db.maintain()
        done = tenant.reembed("handbook", NEW, models.new, switch=False)
        assert (done.switched, done.embedded) == (False, LARGE)
        assert sorted(did.action for did in db.maintain()) == ["built", "none"]
        (tmp_path / "my_new_model.py").write_text("from support.models import new as embed")
        arguments = ("--provider", "test", "--model", "new", "--dim", "16", "--embed", "my_new_model:embed")
        sys.path.insert(0, str(tmp_path))
        try:
            progress_calls = cli(
                "collections", "reembed", "handbook", "-t", "acme", *arguments, "-u", as_text(url), "--json"
            )
        finally:
            sys.path.remove(str(tmp_path))
        assert (progress_calls.json["switched"], progress_calls.json["embedded"], progress_calls.json["dropped"]) == (
            True,
            0,
            LARGE,
        )
        hits = tenant.vectors("handbook", NEW).query(models.new(["text 7"])[0], 5, explain=True)
        assert (hits[0].chunk_id, hits.explanation.shape) == ("c00007", "graph")
        assert sorted(did.action for did in db.maintain()) == ["dropped", "none"]
