"""A collection embedded anew: another space is filled beside the one that answers, checked, and switched to at once.

Each step may be the last of a process that dies. What is filled stays, and the next call looks for what lacks; the
switch is one UPDATE of the row that every writer holds; what the old space leaves is dropped by whoever comes next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from pgrecall import guards
from pgrecall.errors import ConfigurationError, FingerprintMismatch, InvalidEmbedding, InvalidInput, NotFound
from pgrecall.operations import registry
from pgrecall.operations.chunks.upsert import Progress
from pgrecall.operations.models.calls import EMBED_BATCH, PLAIN, Calls, embed_ahead, patiently
from pgrecall.operations.models.embedding import Embedder
from pgrecall.operations.registry import Place
from pgrecall.operations.search.routes import Route
from pgrecall.operations.search.shapes import Query, exact
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Gate, Rows
from pgrecall.statements import reembedding as sql
from pgrecall.statements.reads import Where
from pgrecall.types import Chunk, EmbedModel, EmbedSpace, ReembedResult, Vector

#: Chunks of a page, and of a transaction that writes their vectors: what a killed process embeds again at most.
BATCH = 500
#: Old vectors of a transaction that drops them.
DROP_BATCH = 5_000
#: Passes after which the last few chunks are embedded while writers wait: they may write faster than a pass takes.
PATIENT_PASSES = 2
#: Vectors of the new space that are looked at before the switch, and rows that the searches for it may read in all.
SAMPLE, SAMPLE_READS = 20, 4_000_000
#: The share of them that must find their own chunk among the ten nearest.
LEAST_FOUND, K = 0.9, 10
#: Seconds between looks at old vectors that another transaction holds.
PAUSE = 0.05


def own_text(chunk: Chunk) -> str:
    """What is embedded of a chunk, unless the caller says otherwise."""
    return chunk.text


@dataclass(slots=True)
class Job:
    """One call: where, by what model, and how."""

    place: Place
    to: EmbedSpace
    embedder: Embedder
    halfvec_oid: int
    text_of: Callable[[Chunk], str] = own_text
    batch: int = BATCH
    calls: Calls = PLAIN
    progress: Progress | None = None
    #: The space's number, once it is known.
    number: int = -1
    embedded: int = field(default=0, init=False)

    @property
    def what(self) -> str:
        """As errors name it."""
        return f"collection {self.place.collection!r}"

    def at(self, **values: Any) -> dict[str, Any]:
        """Parameters of a statement about the space that is filled."""
        return self.place.at(space=self.number, **values)


class Checked(NamedTuple):
    """What the sample showed: how many vectors, the share that finds its own chunk, and shares with the old space."""

    sampled: int
    found: float | None
    overlap: float | None


class _Old(NamedTuple):
    """The space that answers until the switch."""

    number: int
    space: EmbedSpace


class _Part(NamedTuple):
    """Chunks that lack a vector, each in its version."""

    chunks: list[Chunk]
    versions: list[str]


#: Rows of MISSING, for the page after an id.
_Read: TypeAlias = Callable[[str], Rows]


class _Done(Exception):
    """Another call switched to the space meanwhile."""


def space_of(gate: Gate, to: EmbedSpace | EmbedModel, embedder: Embedder, calls: Calls) -> EmbedSpace:
    """The space that is meant; a model's dimensions are its first vector's. The fingerprint's text is embedded here."""
    canary = patiently(gate, calls, lambda: embedder.canary(gate))
    return to if isinstance(to, EmbedSpace) else to.space(len(canary))


def reembed(gate: Gate, job: Job, *, switch: bool) -> ReembedResult:
    """Fill the space, check it, switch to it, drop what the old one leaves; whatever of it is still to be done.

    Raises: NotFound, EmbedSpaceMismatch, FingerprintMismatch, InvalidEmbedding, ConfigurationError, Conflict.
    """
    old = gate.retrying(lambda: _begin(gate, job))
    checked = Checked(0, None, None)
    switched = old is None
    if old is not None:
        try:
            checked = _fill(gate, job, old, switch=switch)
            switched = switch
        except _Done:
            switched = True
    dropped = drop_rest(gate, job.place) if switched else 0
    return ReembedResult(job.to, switched, _counts(gate, job)[0], job.embedded, dropped, *checked)


def _counts(gate: Gate, job: Job) -> tuple[int, int]:
    """How many chunks there are, and how many of them have a vector of the space."""
    with gate.transaction(job.place.scope, "reembed counts") as tx:
        [(chunks, vectors)] = tx.last(sql.COUNTS, job.at())
    return chunks, vectors


def _begin(gate: Gate, job: Job) -> _Old | None:
    """Say which space comes next, which every writer hears; the old one, or None where the new one answers already."""
    canary = job.embedder.canary(gate)
    guards.to_stored([canary], job.to, ["the embedding function's canary"])
    with gate.transaction(job.place.scope, "reembed") as tx:
        rows = tx.rows(sql.HELD, job.place.at())
        if not rows:
            raise NotFound(f"{job.what} does not exist: there is nothing to embed anew")
        erased_at, old, held_next, next_print, own_print, *identities = rows[0]
        if erased_at is not None:
            assert job.place.scope.tenant is not None
            registry.refuse_erased(job.place.scope.tenant, erased_at)
        holds, coming = EmbedSpace(*identities[:4]), None if held_next is None else EmbedSpace(*identities[4:])
        if coming is not None and coming != job.to:
            raise ConfigurationError(
                f"{job.what} is being embedded anew as {coming}; finish that, or give it up: "
                f"tenant.cancel_reembed({job.place.collection!r}), "
                f"pgrecall collections reembed {job.place.collection} -t {job.place.scope.tenant} --cancel"
            )
        if holds == job.to:
            if own_print is not None:
                registry.check_fingerprint(job.what, job.to, own_print, canary)
            job.number = old
            return None
        if coming is not None:
            job.number = held_next
            if next_print is not None:
                registry.check_fingerprint(job.what, job.to, next_print, canary)
        else:
            job.number = registry.add_space(tx, job.to)
            tx.count(sql.BEGIN, job.at(fingerprint=wire.float4_array(np.asarray(canary))))
        return _Old(old, holds)


def _fill(gate: Gate, job: Job, old: _Old, *, switch: bool) -> Checked:
    """Pass after pass until nothing lacks, and the switch. Raises _Done."""

    def read(after: str) -> Rows:
        with gate.transaction(job.place.scope, "reembed read") as tx:
            return tx.last(sql.MISSING, job.at(after=after, batch=job.batch))

    for passes in count(1):
        total, there = _counts(gate, job)
        _tell(job, there, total)
        for part, vectors in embed_ahead(gate, job.embedder, _lacking(job, read), job.calls):
            written = _write(gate, job, part, vectors)
            job.embedded, there = job.embedded + written, there + written
            _tell(job, there, max(total, there))
        if passes == 1:
            checked = _check(gate, job, old)
        if not switch or gate.retrying(lambda so_far=passes: _switch(gate, job, so_far)):  # type: ignore[misc]
            return checked
    raise AssertionError("unreachable")


def _tell(job: Job, done: int, total: int) -> None:
    if job.progress is not None:
        job.progress(done, total)


def _lacking(job: Job, read: _Read) -> Iterator[tuple[_Part, list[str]]]:
    """The chunks that lack a vector, by id, with their texts, in parts of one call of the model."""
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


def _texts(job: Job, chunks: Sequence[Chunk]) -> list[str]:
    texts = [job.text_of(chunk) for chunk in chunks]
    for chunk, text in zip(chunks, texts, strict=True):
        if not isinstance(text, str):
            raise InvalidInput(f"text_of gave {type(text).__name__} for chunk {chunk.id!r:.80}; expected a string")
    return texts


def _chunk(row: Sequence[Any]) -> Chunk:
    chunk_id, text, metadata, doc_id, index, payload = row
    return Chunk(chunk_id, text, None, doc_id, index, metadata, payload)


def _packed(job: Job, part: _Part, vectors: Any) -> dict[str, Any]:
    stored = guards.to_stored(list(vectors), job.to, [f"chunk {c.id!r:.80}" for c in part.chunks])
    return job.at(
        ids=wire.text_array([c.id for c in part.chunks]),
        versions=wire.text_array(part.versions),
        norms=wire.float4_array(stored.norms),
        embeddings=wire.halfvec_array(stored.vectors, job.halfvec_oid),
    )


def _write(gate: Gate, job: Job, part: _Part, vectors: Any) -> int:
    """Write the vectors of chunks that are still what was read; how many."""
    packed = _packed(job, part, vectors)

    def body() -> int:
        with gate.transaction(job.place.scope, "reembed write") as tx:
            _still(job, tx.rows(sql.STILL, job.place.at()))
            return len(tx.last(sql.FILL, packed))

    return gate.retrying(body)


def _still(job: Job, rows: list[tuple[Any, ...]]) -> None:
    """That the space is still the one to come. Raises: _Done where it answers by now, ConfigurationError."""
    if not rows:
        raise NotFound(f"{job.what} was deleted while it was embedded anew")
    [(active, coming)] = rows
    if active == job.number:
        raise _Done
    if coming != job.number:
        raise ConfigurationError(f"another call gave up embedding {job.what} anew, and this one stopped")


def _check(gate: Gate, job: Job, old: _Old) -> Checked:
    """Whether what is stored is what the model makes now, and finds its own chunks.

    Raises: FingerprintMismatch, InvalidEmbedding; what was filled stays, and nothing is switched.
    """
    _, rows = _counts(gate, job)
    size = max(3, min(SAMPLE, SAMPLE_READS // max(1, 2 * rows)))
    values = job.at(old=old.number, most=rows, step=max(1, rows // size), count=size)
    with gate.transaction(job.place.scope, "reembed sample") as tx:
        sample = tx.last(sql.SAMPLE, values)
    if not sample:
        return Checked(0, None, None)
    chunks = [_chunk(row[2:]) for row in sample]
    [(_, again)] = embed_ahead(gate, job.embedder, [(None, _texts(job, chunks))], job.calls)
    fresh = guards.to_stored(list(again), job.to, [f"chunk {c.id!r:.80}" for c in chunks]).vectors
    found, shared = 0, 0.0
    for (stored, before, *_), chunk, vector in zip(sample, chunks, fresh, strict=True):
        cosine = guards.same_model(vector, wire.halfvec_values(stored))
        if not cosine >= guards.FINGERPRINT_COSINE:
            raise FingerprintMismatch(
                f"the vector that {job.to} has for chunk {chunk.id!r:.80} is not what the embedding function makes of "
                f"it now (cosine {cosine:.4f}, expected at least {guards.FINGERPRINT_COSINE}): the model, or what is "
                f"embedded of a chunk, changed meanwhile. {_begin_again(job)}"
            )
        new = _nearest(gate, job.place, job.to, job.number, vector, rows)
        was = _nearest(gate, job.place, old.space, old.number, wire.halfvec_values(before), rows)
        found += any(chunk.id == chunk_id or text == chunk.text for chunk_id, text in new)
        shared += len({i for i, _ in new} & {i for i, _ in was}) / max(1, len(was))
    # By an inner product a longer vector may be nearer than the same one: that says nothing of the model.
    if found < LEAST_FOUND * len(sample) and job.to.distance != "ip":
        raise InvalidEmbedding(
            f"of {len(sample)} chunks only {found} are among the {K} nearest to their own vector in {job.to}; "
            f"expected {LEAST_FOUND:.0%} of them. The embedding function tells texts apart too little. "
            f"{_begin_again(job)}"
        )
    return Checked(len(sample), found / len(sample), shared / len(sample))


def _begin_again(job: Job) -> str:
    return (
        f"Nothing was switched, the old space answers. To begin again: tenant.cancel_reembed({job.place.collection!r})"
    )


def _nearest(
    gate: Gate, place: Place, space: EmbedSpace, number: int, vector: Vector, rows: int
) -> list[tuple[str | None, str]]:
    """Ids and texts of the nearest, by a scan of the space, be it the active one or not."""
    query = Query(place, space, number, K, Where.of(None), {}, Route(0, rows, built=False), vector)
    return [(row.chunk_id, row.text) for row in exact(gate, query).rows if row.chunk_id is not None]


def _switch(gate: Gate, job: Job, passes: int) -> bool:
    """Switch, unless chunks lack their vector still; a few are embedded here where passes did not end. Raises _Done."""
    with gate.transaction(job.place.scope, "reembed switch") as tx:
        _still(job, [row[1:3] for row in tx.rows(sql.HELD, job.place.at())])
        [(chunks, there)] = tx.rows(sql.COUNTS, job.at())
        if chunks - there > max(0, passes - PATIENT_PASSES) * job.batch:
            return False
        if chunks > there:  # every writer waits meanwhile
            lacking = _lacking(job, lambda after: tx.rows(sql.MISSING, job.at(after=after, batch=job.batch)))
            for part, vectors in embed_ahead(gate, job.embedder, lacking, job.calls):
                tx.rows(sql.FILL, _packed(job, part, vectors))
        tx.many([(sql.SWITCH, job.at())], commit=True)
    job.embedded += chunks - there
    return True


def cancel(gate: Gate, place: Place) -> int:
    """Give up a space that is being filled: what it has is dropped; how many vectors. Raises NotFound."""

    def body() -> None:
        with gate.transaction(place.scope, "reembed cancel") as tx:
            if not tx.rows(sql.HELD, place.at()):
                raise NotFound(f"collection {place.collection!r} does not exist")
            tx.count(sql.CANCEL, place.at())

    gate.retrying(body)
    return drop_rest(gate, place)


def drop_rest(gate: Gate, place: Place) -> int:
    """Drop the vectors of every space but the active one and the one to come, batch by batch; how many."""
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
