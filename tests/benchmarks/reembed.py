"""A collection is re-embedded with another model by a process that is killed five times, during reads and writes.

The collection has 100,000 chunks of 384 dimensions and a graph. Both models take almost no time. The process that
re-embeds the chunks is killed with SIGKILL at four random points while it fills the new space, and once between that
and its end. After each kill a new process continues. Meanwhile one thread changes, adds and deletes chunks, and another
one searches. Each uses the old model until the collection refuses it. At the end every chunk's text and vector is
compared with the expected one.

*Lost* is a chunk that is missing, or that has no vector of its text by the new model. *Doubled* is a surplus vector, or
one that remains in the old space. *Mixed* is an answer with a score that is not the searching model's.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import psycopg
import sqlalchemy as sa
from tests.benchmarks.harness import Bench, Figure, dsn, say

import pgrecall
from pgrecall import Chunk, EmbedSpace, EmbedSpaceMismatch
from pgrecall.postgres import wire

ROWS, DIM, K, KILLS = 100_000, 384, 10, 5
OLD, NEW = EmbedSpace("bench", "reembed-old", DIM), EmbedSpace("bench", "reembed-new", DIM)
#: The last kill comes within this many seconds after filling. The check, the switch and the drop take longer.
LAST = 0.3
#: How far a score may be from that of the vectors before their conversion to halfvec.
CLOSE = 5e-3


class Model:
    """Embeds texts "chunk NUMBER VERSION" as distinct vectors, by adding three rows of tables."""

    def __init__(self, space: EmbedSpace) -> None:
        rng = np.random.default_rng([ord(c) for c in space.model])
        self.space = space
        self._tables = rng.normal(size=(3, 1_000, space.dim)).astype(np.float32)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """One row per text, of length 1."""
        # The fingerprint's text has another form and gets a vector of its own.
        parts = [text.split()[1:] if text.startswith("chunk ") else (999_999, 999) for text in texts]
        number, version = np.array(parts, dtype=int).T
        thousands, versions = self._tables[1], self._tables[2]
        made = self._tables[0][number % 1_000] + thousands[number // 1_000 % 1_000] + versions[version % 1_000]
        return made / np.linalg.norm(made, axis=1, keepdims=True)


def _text(number: int, version: int = 0) -> str:
    return f"chunk {number} {version}"


def _chunks(start: int, stop: int) -> Iterator[Chunk]:
    return (Chunk(f"c{n:06d}", _text(n), doc_id=f"d{n // 10}", metadata={"n": n}) for n in range(start, stop))


@dataclass
class Seen:
    """What the reading and the writing thread saw, and the chunks that the writer left."""

    expected: dict[str, str]
    stop: threading.Event = field(default_factory=threading.Event)
    reads: dict[str, int] = field(default_factory=lambda: {OLD.model: 0, NEW.model: 0})
    failed: int = 0
    mixed: int = 0
    writes: int = 0
    failures: list[BaseException] = field(default_factory=list)


def run(bench: Bench) -> list[Figure]:
    """Fill, re-embed with kills, compare."""
    rows = ROWS // 10 if bench.quick else ROWS
    with bench.database() as url, pgrecall.connect(url, admin_url=url) as db:
        store = db.tenant("acme").vectors("handbook", OLD, embed=Model(OLD))
        store.upsert(_chunks(0, rows), commit_every=5_000)
        say("  the old space's graph")
        db.maintain()
        seen = Seen({f"c{n:06d}": _text(n) for n in range(rows)})
        with _reading_and_writing(db, rows, seen):
            kills, seconds = _killed_and_resumed(url, rows)
            time.sleep(1.0)  # both threads continue in the new space
        if seen.failures:
            raise seen.failures[0]
        lost, doubled = _compared(url, seen.expected)
    return [
        Figure("chunks", rows),
        Figure("kills", kills, at_least=KILLS),
        Figure("seconds, six starts of a process included", seconds, "s"),
        Figure("chunks a second, so", rows / seconds, "rows/s"),
        Figure("writes meanwhile", seen.writes),
        Figure("chunks lost", lost, at_most=0),
        Figure("vectors doubled", doubled, at_most=0),
        Figure("reads by the old model", seen.reads[OLD.model], at_least=1),
        Figure("reads by the new model", seen.reads[NEW.model], at_least=1),
        Figure("reads that failed", seen.failed, at_most=0),
        Figure("reads that mixed models", seen.mixed, at_most=0),
    ]


def _killed_and_resumed(url: sa.URL, rows: int) -> tuple[int, float]:
    """Start it and kill it at each point, until one finishes. Returns the number of kills and the total seconds."""
    rng = random.Random(8)
    points = sorted(rng.randrange(rows) for _ in range(KILLS - 1))
    kills, started = 0, time.perf_counter()
    for point in [*points, rows, None]:
        with subprocess.Popen([sys.executable, "-m", __name__, dsn(url)], stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            for line in worker.stdout:
                if point is not None and int(line) >= point:
                    time.sleep(rng.uniform(0, LAST) if point == rows else 0)
                    worker.kill()
                    break
            code = worker.wait()
        say(f"  {'killed at' if code == -9 else 'ended, instead of killed at' if point else 'ended'} {point or ''}")
        if code not in (0, -9):
            raise SystemExit(f"re-embedding failed with exit code {code}")
        kills += code == -9
    return kills, time.perf_counter() - started


@contextmanager
def _reading_and_writing(db: pgrecall.Database, rows: int, seen: Seen) -> Iterator[None]:
    threads = [threading.Thread(target=work, args=(db, rows, seen)) for work in (_read, _write)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        seen.stop.set()
        for thread in threads:
            thread.join()


def _read(db: pgrecall.Database, rows: int, seen: Seen) -> None:
    """Search for one chunk after another, with the model that the collection accepts."""
    models = [Model(OLD), Model(NEW)]
    rng = random.Random(1)
    while not seen.stop.is_set():
        model = models[0]
        asked = model([_text(rng.randrange(rows))])[0]
        try:
            hits = db.tenant("acme").vectors("handbook", model.space).query(asked, K)
        except EmbedSpaceMismatch:
            if len(models) == 1:
                seen.failed += 1
            models = models[-1:]
            continue
        except pgrecall.PgRecallError:
            seen.failed += 1
            continue
        seen.reads[model.space.model] += 1
        seen.failed += len(hits) != K
        wanted = model([hit.text for hit in hits]) @ asked
        seen.mixed += bool(np.abs(wanted - [hit.score for hit in hits]).max(initial=0.0) > CLOSE)


def _write(db: pgrecall.Database, rows: int, seen: Seen) -> None:
    """Change a chunk, add one, delete an added one, with the new model as soon as the old one is refused."""
    stores = [db.tenant("acme").vectors("handbook", space, embed=Model(space)) for space in (OLD, NEW)]
    rng = random.Random(2)
    try:
        while not seen.stop.is_set():
            seen.writes += 1
            number, added = rng.randrange(rows), rows + seen.writes
            both = [
                Chunk(f"c{number:06d}", _text(number, 1 + seen.writes % 900), metadata={"n": number}),
                Chunk(f"c{added:06d}", _text(added)),
            ]
            try:
                stores[0].upsert(both)
            except EmbedSpaceMismatch:
                stores = stores[-1:]
                stores[0].upsert(both)
            seen.expected |= {chunk.id: chunk.text for chunk in both}
            gone = f"c{added - 3:06d}"
            if seen.writes % 3 == 0 and gone in seen.expected and seen.writes > 3:
                stores[0].delete([gone])
                del seen.expected[gone]
            time.sleep(0.02)
    except BaseException as exc:  # noqa: BLE001 - raised by the main thread
        seen.failures.append(exc)


def _compared(url: sa.URL, expected: dict[str, str]) -> tuple[int, int]:
    """Return the number of lost chunks and of doubled vectors."""
    model, right, vectors = Model(NEW), 0, 0
    with psycopg.connect(dsn(url)) as connection, connection.cursor(name="all", binary=True) as cursor:
        cursor.itersize = 5_000
        cursor.execute(
            "SELECT c.id, c.text, e.embed_model, halfvec_send(e.embedding) FROM pgrecall.chunks c"
            " JOIN pgrecall.chunk_embeddings e USING (tenant_id, collection) WHERE e.chunk_id = c.id"
        )
        while page := cursor.fetchmany(5_000):
            vectors += len(page)
            there = [(i, t, v) for i, t, name, v in page if name == NEW.model and expected.get(i) == t]
            if there:
                held = np.array([wire.halfvec_values(v) for _, _, v in there], dtype=np.float32)
                right += int((np.abs(held - model([t for _, t, _ in there])).max(axis=1) < CLOSE).sum())
    return len(expected) - right, vectors - len(expected)


def _work(url: str) -> None:
    """Re-embed the collection, and print the number of finished chunks. This process is killed."""
    with pgrecall.connect(url) as db:
        db.tenant("acme").reembed(
            "handbook",
            NEW,
            Model(NEW),
            progress=lambda done, _: print(done, flush=True),  # noqa: T201
        )


if __name__ == "__main__":
    _work(sys.argv[1])
