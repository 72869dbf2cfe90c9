"""Re-embeds a collection: fills a new space while searches use the old one, checks it, and switches atomically.

The process may die after any step. Vectors that were written stay, and the next call embeds only what is missing. The
switch is one UPDATE of the row that every writer locks. The next call drops what is left of the old space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from pgrecall import guards
from pgrecall.errors import ConfigurationError, FingerprintMismatch, InvalidEmbedding, InvalidInput, NotFound
from pgrecall.operations import registry, tombstones
from pgrecall.operations.chunks.upsert import Progress
from pgrecall.operations.models.calls import EMBED_BATCH, PLAIN, Calls, embed_ahead, with_retries
from pgrecall.operations.models.embedding import Embedder
from pgrecall.operations.registry import Place
from pgrecall.operations.search.routes import Route
from pgrecall.operations.search.shapes import Query, exact
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Gate, Rows
from pgrecall.statements import reembedding as sql
from pgrecall.statements.reads import Where
from pgrecall.types import Chunk, EmbedModel, EmbedSpace, ReembedResult, Vector

#: Chunks per page and per transaction that writes vectors: at most this many are embedded again after a kill.
BATCH = 500
#: Old vectors per transaction that drops them.
DROP_BATCH = 5_000
#: Passes after which the last chunks are embedded while writers wait, because writers may be faster than the passes.
PATIENT_PASSES = 2
#: Vectors of the new space that are checked before the switch, and the rows that all searches of the check may read.
SAMPLE, SAMPLE_READS = 20, 4_000_000
#: The share of checked vectors that must find their own chunk among the K nearest.
LEAST_FOUND, K = 0.9, 10
#: Seconds between attempts to drop old vectors that another transaction has locked.
PAUSE = 0.05


def own_text(chunk: Chunk) -> str:
    """The default text to embed: the chunk's own."""
    return chunk.text


@dataclass(slots=True)
class ReembedJob:
    """One call: the collection, the model and the options."""

    place: Place
    to: EmbedSpace
    embedder: Embedder
    halfvec_oid: int
    text_of: Callable[[Chunk], str] = own_text
    batch: int = BATCH
    calls: Calls = PLAIN
    progress: Progress | None = None
    #: The id of the new space, once it is known.
    number: int = -1
    embedded: int = field(default=0, init=False)

    @property
    def what(self) -> str:
        """The collection, as error messages name it."""
        return f"collection {self.place.collection!r}"

    def at(self, **values: Any) -> dict[str, Any]:
        """Parameters of a statement about the new space."""
        return self.place.at(space=self.number, **values)


class SampleCheck(NamedTuple):
    """Result of the check: `sampled`, `found` and `overlap` as in `ReembedResult`."""

    sampled: int
    found: float | None
    overlap: float | None


class _OldSpace(NamedTuple):
    """The space that searches use until the switch."""

    number: int
    space: EmbedSpace


class _Part(NamedTuple):
    """Chunks that lack a vector, and their row versions."""

    chunks: list[Chunk]
    versions: list[str]


#: Reads the page of MISSING after an id.
_ReadPage: TypeAlias = Callable[[str], Rows]


class _AlreadySwitched(Exception):
    """Another call has switched to the space."""


def space_of(gate: Gate, to: EmbedSpace | EmbedModel, embedder: Embedder, calls: Calls) -> EmbedSpace:
    """The new space. If `to` is a model, its number of dimensions is that of the fingerprint's vector."""
    fingerprint = with_retries(gate, calls, lambda: embedder.fingerprint(gate))
    return to if isinstance(to, EmbedSpace) else to.space(len(fingerprint))


def reembed(gate: Gate, job: ReembedJob, *, switch: bool) -> ReembedResult:
    """Fill the space, check it, switch to it and drop the old vectors, skipping steps that are already done.

    Raises: NotFound, EmbedSpaceMismatch, FingerprintMismatch, InvalidEmbedding, ConfigurationError, Conflict.
    """
    old = gate.retrying(lambda: _begin(gate, job))
    checked = SampleCheck(0, None, None)
    switched = old is None
    if old is not None:
        try:
            checked = _fill(gate, job, old, switch=switch)
            switched = switch
        except _AlreadySwitched:
            switched = True
    dropped = drop_unused(gate, job.place) if switched else 0
    return ReembedResult(job.to, switched, _counts(gate, job)[0], job.embedded, dropped, *checked)


def _counts(gate: Gate, job: ReembedJob) -> tuple[int, int]:
    """The number of chunks, and of those that have a vector in the new space."""
    with gate.transaction(job.place.scope, "reembed counts") as tx:
        [(chunks, vectors)] = tx.last(sql.COUNTS, job.at())
    return chunks, vectors


def _begin(gate: Gate, job: ReembedJob) -> _OldSpace | None:
    """Register the new space, so that writers invalidate its vectors. Returns the old space; None if it is switched."""
    fingerprint = job.embedder.fingerprint(gate)
    guards.to_stored([fingerprint], job.to, ["the embedding function's fingerprint"])
    with gate.transaction(job.place.scope, "reembed") as tx:
        rows = tx.rows(sql.HELD, job.place.at())
        if not rows:
            raise NotFound(f"{job.what} does not exist, so it cannot be re-embedded; check its name")
        erased_at, old, held_next, next_print, own_print, *identities = rows[0]
        tombstones.refuse_erased_tenant(job.place.scope, erased_at)
        holds, coming = EmbedSpace(*identities[:4]), None if held_next is None else EmbedSpace(*identities[4:])
        if coming is not None and coming != job.to:
            raise ConfigurationError(
                f"{job.what} is already being re-embedded as {coming}; finish that, or cancel it: "
                f"tenant.cancel_reembed({job.place.collection!r}), "
                f"pgrecall collections reembed {job.place.collection} -t {job.place.scope.tenant} --cancel"
            )
        if holds == job.to:
            if own_print is not None:
                registry.check_fingerprint(job.what, job.to, own_print, fingerprint)
            job.number = old
            return None
        if coming is not None:
            job.number = held_next
            if next_print is not None:
                registry.check_fingerprint(job.what, job.to, next_print, fingerprint)
        else:
            job.number = registry.add_space(tx, job.to)
            tx.count(sql.BEGIN, job.at(fingerprint=wire.float4_array(np.asarray(fingerprint))))
        return _OldSpace(old, holds)


def _fill(gate: Gate, job: ReembedJob, old: _OldSpace, *, switch: bool) -> SampleCheck:
    """Run passes until no vector is missing, check the space, and switch. Raises _AlreadySwitched."""

    def read(after: str) -> Rows:
        with gate.transaction(job.place.scope, "reembed read") as tx:
            return tx.last(sql.MISSING, job.at(after=after, batch=job.batch))

    for passes in count(1):
        total, there = _counts(gate, job)
        _report(job, there, total)
        for part, vectors in embed_ahead(gate, job.embedder, _missing_vectors(job, read), job.calls):
            written = _write(gate, job, part, vectors)
            job.embedded, there = job.embedded + written, there + written
            _report(job, there, max(total, there))
        if passes == 1:
            checked = _check(gate, job, old)
        if not switch or gate.retrying(lambda so_far=passes: _switch(gate, job, so_far)):  # type: ignore[misc]
            return checked
    raise AssertionError("unreachable")


def _report(job: ReembedJob, done: int, total: int) -> None:
    if job.progress is not None:
        job.progress(done, total)


def _missing_vectors(job: ReembedJob, read: _ReadPage) -> Iterator[tuple[_Part, list[str]]]:
    """Chunks that lack a vector, ordered by id, with their texts. Each part is one call of the model."""
    after: str | None = ""
    while after is not None:
        rows = read(after)
        size, last = rows[0][:2]
        there = [row[2:] for row in rows if row[2] is not None]
        for start in range(0, len(there), EMBED_BATCH):
            of_one_call = there[start : start + EMBED_BATCH]
            part = _Part([_chunk(row[:6]) for row in of_one_call], [row[6] for row in of_one_call])
            yield part, _texts(job, part.chunks)
        after = last if size == job.batch else None


def _texts(job: ReembedJob, chunks: Sequence[Chunk]) -> list[str]:
    texts = [job.text_of(chunk) for chunk in chunks]
    for chunk, text in zip(chunks, texts, strict=True):
        if not isinstance(text, str):
            raise InvalidInput(f"text_of returned {type(text).__name__} for chunk {chunk.id!r:.80}; expected a string")
    return texts


def _chunk(row: Sequence[Any]) -> Chunk:
    chunk_id, text, metadata, doc_id, index, payload = row
    return Chunk(chunk_id, text, None, doc_id, index, metadata, payload)


def _packed(job: ReembedJob, part: _Part, vectors: Any) -> dict[str, Any]:
    stored = guards.to_stored(list(vectors), job.to, [f"chunk {c.id!r:.80}" for c in part.chunks])
    return job.at(
        ids=wire.text_array([c.id for c in part.chunks]),
        versions=wire.text_array(part.versions),
        norms=wire.float4_array(stored.norms),
        embeddings=wire.halfvec_array(stored.vectors, job.halfvec_oid),
    )


def _write(gate: Gate, job: ReembedJob, part: _Part, vectors: Any) -> int:
    """Write the vectors of chunks that have not changed since they were read; returns how many."""
    packed = _packed(job, part, vectors)

    def body() -> int:
        with gate.transaction(job.place.scope, "reembed write") as tx:
            _check_still_running(job, tx.rows(sql.STILL, job.place.at()))
            return len(tx.last(sql.FILL, packed))

    return gate.retrying(body)


def _check_still_running(job: ReembedJob, rows: list[tuple[Any, ...]]) -> None:
    """Check that the re-embedding has not been cancelled or finished by another call.

    Raises: _AlreadySwitched, NotFound, ConfigurationError.
    """
    if not rows:
        raise NotFound(f"{job.what} was deleted while it was being re-embedded")
    [(active, coming)] = rows
    if active == job.number:
        raise _AlreadySwitched
    if coming != job.number:
        raise ConfigurationError(f"another call cancelled the re-embedding of {job.what}, so this call stopped")


def _check(gate: Gate, job: ReembedJob, old: _OldSpace) -> SampleCheck:
    """Check that the model still produces the stored vectors, and that they find their own chunks.

    Raises: FingerprintMismatch, InvalidEmbedding. The new vectors stay, and searches keep using the old space.
    """
    _, rows = _counts(gate, job)
    size = max(3, min(SAMPLE, SAMPLE_READS // max(1, 2 * rows)))
    values = job.at(old=old.number, most=rows, step=max(1, rows // size), count=size)
    with gate.transaction(job.place.scope, "reembed sample") as tx:
        sample = tx.last(sql.SAMPLE, values)
    if not sample:
        return SampleCheck(0, None, None)
    chunks = [_chunk(row[2:]) for row in sample]
    [(_, again)] = embed_ahead(gate, job.embedder, [(None, _texts(job, chunks))], job.calls)
    fresh = guards.to_stored(list(again), job.to, [f"chunk {c.id!r:.80}" for c in chunks]).vectors
    found, shared = 0, 0.0
    for (stored, before, *_), chunk, vector in zip(sample, chunks, fresh, strict=True):
        cosine = guards.same_model(vector, wire.halfvec_values(stored))
        if not cosine >= guards.FINGERPRINT_COSINE:
            raise FingerprintMismatch(
                f"the stored vector of chunk {chunk.id!r:.80} in {job.to} differs from what the embedding function "
                f"returns now (cosine {cosine:.4f}, expected at least {guards.FINGERPRINT_COSINE}): the model or "
                f"text_of has changed. {_start_over(job)}"
            )
        new = _nearest(gate, job.place, job.to, job.number, vector, rows)
        was = _nearest(gate, job.place, old.space, old.number, wire.halfvec_values(before), rows)
        found += any(chunk.id == chunk_id or text == chunk.text for chunk_id, text in new)
        shared += len({i for i, _ in new} & {i for i, _ in was}) / max(1, len(was))
    # By inner product, a longer vector may be nearer than an identical one, so this says nothing about the model.
    if found < LEAST_FOUND * len(sample) and job.to.distance != "ip":
        raise InvalidEmbedding(
            f"of {len(sample)} sampled chunks, only {found} are among the {K} nearest to their own vector in {job.to}; "
            f"expected at least {LEAST_FOUND:.0%}. The embedding function does not distinguish texts well enough. "
            f"{_start_over(job)}"
        )
    return SampleCheck(len(sample), found / len(sample), shared / len(sample))


def _start_over(job: ReembedJob) -> str:
    return (
        f"Searches still use the old space. To start over, first call tenant.cancel_reembed({job.place.collection!r})"
    )


def _nearest(
    gate: Gate, place: Place, space: EmbedSpace, number: int, vector: Vector, rows: int
) -> list[tuple[str | None, str]]:
    """Ids and texts of the nearest chunks, by an exact search of the space, which need not be the active one."""
    query = Query(place, space, number, K, Where.of(None), {}, Route(0, rows, built=False), vector)
    return [(row.chunk_id, row.text) for row in exact(gate, query).rows if row.chunk_id is not None]


def _switch(gate: Gate, job: ReembedJob, passes: int) -> bool:
    """Switch unless chunks still lack a vector; returns whether it did. Raises _AlreadySwitched.

    After `PATIENT_PASSES`, the last few chunks are embedded here, while writers wait.
    """
    with gate.transaction(job.place.scope, "reembed switch") as tx:
        _check_still_running(job, [row[1:3] for row in tx.rows(sql.HELD, job.place.at())])
        [(chunks, there)] = tx.rows(sql.COUNTS, job.at())
        if chunks - there > max(0, passes - PATIENT_PASSES) * job.batch:
            return False
        if chunks > there:  # all writers wait for this
            missing = _missing_vectors(job, lambda after: tx.rows(sql.MISSING, job.at(after=after, batch=job.batch)))
            for part, vectors in embed_ahead(gate, job.embedder, missing, job.calls):
                tx.rows(sql.FILL, _packed(job, part, vectors))
        tx.many([(sql.SWITCH, job.at())], commit=True)
    job.embedded += chunks - there
    return True


def cancel(gate: Gate, place: Place) -> int:
    """Cancel a re-embedding and drop the vectors of the new space; returns how many. Raises NotFound."""

    def body() -> None:
        with gate.transaction(place.scope, "reembed cancel") as tx:
            if not tx.rows(sql.HELD, place.at()):
                raise NotFound(f"collection {place.collection!r} does not exist")
            tx.count(sql.CANCEL, place.at())

    gate.retrying(body)
    return drop_unused(gate, place)


def drop_unused(gate: Gate, place: Place) -> int:
    """Drop all vectors except those of the active and the new space, in batches; returns how many."""
    with gate.transaction(place.scope, "reembed spaces") as tx:
        spaces = [row[0] for row in tx.last(sql.SPACES, place.at())]
    return sum(_drop(gate, place, space) for space in spaces)


def _drop(gate: Gate, place: Place, space: int) -> int:
    gone = 0
    while True:
        with gate.transaction(place.scope, "reembed drop") as tx:
            kept = tx.rows(sql.STILL, place.at())
            if not kept or space in kept[0]:
                return gone
            some = tx.count(sql.DROP, place.at(space=space, batch=DROP_BATCH))
            [(left,)] = tx.rows(sql.LEFT, place.at(space=space))
        gone += some
        if not left:
            return gone
        if not some:
            gate.sleep(PAUSE)
