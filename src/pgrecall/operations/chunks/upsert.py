"""Upserts of documents and chunks: validated and packed without I/O, then sent in a few large statements."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

from pgrecall.arguments import OnNul, storable_text
from pgrecall.errors import Conflict, InvalidEmbedding, InvalidInput
from pgrecall.operations.chunks import keys
from pgrecall.operations.chunks.packing import ChunkRows, distinct_documents, last_wins, pack, pack_documents, text_hash
from pgrecall.operations.chunks.promotion import Caretaker
from pgrecall.operations.models.calls import EMBED_BATCH, PLAIN, Calls, embed_ahead
from pgrecall.operations.models.embedding import Embed
from pgrecall.operations.registry import Guarded, Place, guard, space_params
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Gate, Transaction
from pgrecall.statements import reads
from pgrecall.statements import writes as sql
from pgrecall.statements.reads import Where
from pgrecall.statements.reembedding import FORGET
from pgrecall.types import Chunk, Document, EmbedSpace, IndexedKey, UpsertResult

Progress: TypeAlias = Callable[[int, int | None], None]
Chunks: TypeAlias = Iterable[Chunk] | AsyncIterable[Chunk]

#: Chunks per statement. Larger batches are no faster and use more memory.
BATCH = 1_000
#: A batch with more bytes is halved: the server accepts messages up to 1 GB, and closes the connection on larger ones.
MESSAGE_BYTES = 64_000_000


@dataclass(frozen=True, slots=True)
class Target:
    """The collection that an upsert writes to, and the options that apply to every write."""

    place: Place
    space: EmbedSpace
    halfvec_oid: int
    create_tenants: bool
    text_config: str | None = None
    indexed_keys: tuple[IndexedKey, ...] = ()
    fingerprint: Any = None
    on_nul: OnNul = "error"
    caretaker: Caretaker | None = None


@dataclass(slots=True)
class Tally:
    """What the writes of one call have done so far."""

    ids: list[str] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    removed: int = 0
    held: Guarded | None = None

    def add(self, other: Tally) -> None:
        """Add the tally of a later group."""
        self.ids += other.ids
        self.changed |= other.changed
        self.removed += other.removed
        self.held = other.held


def _write_documents(tx: Transaction, target: Target, documents: Sequence[Document]) -> None:
    ordered = distinct_documents(documents)
    for start in range(0, len(ordered), BATCH):
        part = pack_documents(ordered[start : start + BATCH], target.on_nul)
        tx.count(sql.DOCUMENTS, target.place.at(**part))


def _packed(target: Target, chunks: Sequence[Chunk]) -> list[ChunkRows]:
    """A batch as column arrays: one message, or several if one would be too large."""
    chunks = last_wins(chunks)
    rows = pack(chunks, target.space, target.halfvec_oid, target.on_nul)
    if len(chunks) > 1 and sum(map(len, rows.values.values())) > MESSAGE_BYTES:
        middle = len(chunks) // 2
        return [*_packed(target, chunks[:middle]), *_packed(target, chunks[middle:])]
    return [rows]


def _packed_ahead(
    gate: Gate, target: Target, batches: Iterable[Sequence[Chunk]]
) -> Generator[tuple[Sequence[Chunk], list[ChunkRows]], None, None]:
    """Each batch with its column arrays. A thread packs the next batch while the server writes this one.

    The iterable is consumed here, not in the thread, because it may be bound to the caller's thread or event loop.
    """
    drawn = iter(batches)
    batch = next(drawn, None)
    if batch is None:
        return
    rows = _packed(target, batch)
    with ExitStack() as stack:
        pool: ThreadPoolExecutor | None = None
        while (following := next(drawn, None)) is not None:
            pool = pool or stack.enter_context(ThreadPoolExecutor(1, "pgrecall-pack"))
            ahead = pool.submit(_packed, target, following)
            yield batch, rows
            rows = gate.wait(asyncio.wrap_future(ahead)) if gate.is_async else ahead.result()
            batch = following
        yield batch, rows


def _write_chunks(
    tx: Transaction, target: Target, rows: ChunkRows, held: Guarded, known: set[str], pending: keys.Statements
) -> set[str]:
    """Write distinct chunks in one round trip, or two if a stored vector is kept. Returns the ids that changed.

    Their updates of indexed keys are added to `pending`, which is sent with the next batch or with COMMIT.
    """
    work: keys.Statements = []
    if named := sorted({d for d in rows.doc_ids if d is not None} - known):
        work.append((sql.NAMED_DOCUMENTS, target.place.at(ids=wire.text_array(named))))
        known.update(named)
    if len(rows.with_vector) < len(rows.ids):
        _check_kept(tx, target, rows)
    work.append((sql.CHUNKS, target.place.at(text_config=held.text_config, **rows.values)))
    if rows.vectors:
        work.append((sql.VECTORS, target.place.at(space=held.space_id, **rows.vectors)))
    work, pending[:] = [*pending, *work], []
    changed = {row[0] for result in tx.many(work) for row in result}
    if changed and (held.keys or held.next_space_id is not None):
        named_changed = wire.text_array(sorted(changed))
        if held.keys:
            pending += keys.entries(target.place, named_changed, held.keys)
        if held.next_space_id is not None:  # re-embedding must read it again: see operations.chunks.reembed
            pending.append((FORGET, target.place.at(ids=named_changed, space=held.next_space_id)))
    return changed


def _check_kept(tx: Transaction, target: Target, rows: ChunkRows) -> None:
    given = set(rows.with_vector)
    bare = [(i, h) for i, h in zip(rows.ids, rows.hashes, strict=True) if i not in given]
    kept = {row[0] for row in tx.rows(sql.KEPT, _kept_params(target, bare))}
    for chunk_id, _ in bare:
        if chunk_id not in kept:
            raise InvalidEmbedding(
                f"chunk {chunk_id!r:.80} has no embedding, and no vector of {target.space} is stored for the same "
                "text; pass an embedding, or create the store with an embedding function (embed=)"
            )


def _kept_params(target: Target, bare: Sequence[tuple[str, bytes]]) -> dict[str, Any]:
    ids, hashes = wire.text_array([b[0] for b in bare]), wire.bytea_array([b[1] for b in bare])
    return target.place.at(ids=ids, hashes=hashes, **space_params(target.space))


def embedded(
    gate: Gate, target: Target, pieces: Iterable[Sequence[Chunk]], plan: Plan
) -> Generator[tuple[Sequence[Chunk], set[str]], None, None]:
    """Embed the chunks that have no vector and whose text is new or changed.

    Yields each piece of distinct chunks and the ids that were embedded. The model is called between transactions, so
    that no lock is held while it is slow.
    """
    assert plan.embed is not None

    def parts() -> Iterator[tuple[tuple[Sequence[Chunk], list[str]], list[str]]]:
        for piece in pieces:
            texts = _new_texts(gate, target, piece)
            yield (piece, list(texts)), list(texts.values())

    with closing(embed_ahead(gate, plan.embed, parts(), plan.calls)) as ready:
        for (piece, ids), vectors in ready:
            given = dict(zip(ids, vectors, strict=True))
            yield [replace(c, embedding=given[c.id]) if c.id in given else c for c in piece], set(ids)


def _new_texts(gate: Gate, target: Target, chunks: Sequence[Chunk]) -> dict[str, str]:
    """The texts to embed, by id: those of chunks without a vector for whose text no vector is stored."""
    bare = [c for c in chunks if c.embedding is None]
    if not bare:
        return {}
    texts = {c.id: storable_text(c.text, f"the text of chunk {c.id!r:.80}", target.on_nul) for c in bare}
    with gate.transaction(target.place.scope, "changed") as tx:
        kept = tx.last(sql.KEPT, _kept_params(target, [(i, text_hash(t)) for i, t in texts.items()]))
    for (chunk_id,) in kept:
        del texts[chunk_id]
    return texts


def batches(gate: Gate, chunks: Chunks, size: int) -> Iterator[list[Chunk]]:
    """Split an iterable into lists. Asynchronous iterables need an asynchronous caller. Raises InvalidInput."""
    if isinstance(chunks, AsyncIterable):
        if not gate.is_async:
            raise InvalidInput("the chunks are an asynchronous iterable; expected a synchronous one; call aupsert")
        chunks = _awaited(gate, chunks)
    iterator = iter(chunks)
    while batch := list(islice(iterator, size)):
        yield batch


def _awaited(gate: Gate, chunks: AsyncIterable[Chunk]) -> Iterator[Chunk]:
    iterator = aiter(chunks)
    while True:
        try:
            yield gate.wait(anext(iterator))
        except StopAsyncIteration:
            return


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of one upsert. If `commit_every` is None, all is written in one transaction."""

    documents: Sequence[Document] = ()
    embed: Embed | None = None
    commit_every: int | None = None
    progress: Progress | None = None
    replaces: str | None = None
    calls: Calls = PLAIN


@dataclass(frozen=True, slots=True)
class Group:
    """Batches that are committed together, in lock order.

    `ids` are the ids of the input, in order. They are None if the batches come from a generator. It cannot be read
    again, so the group cannot be retried after a conflict.
    """

    batches: Iterable[Sequence[Chunk]]
    ids: list[str] | None


def upsert(gate: Gate, target: Target, chunks: Chunks, plan: Plan) -> UpsertResult:
    """Write documents and chunks. The result has one id per input, in order, and counts of what changed."""
    total = len(chunks) if isinstance(chunks, Sequence) else None
    report = plan.progress or unseen
    made, tally = Tally(), Tally()
    documents = plan.documents
    for group in _groups(gate, target, chunks, plan, made, lambda done: report(done, total)):

        def wrote(done: int, before: int = len(tally.ids)) -> None:
            if plan.embed is None:  # otherwise progress follows the embedding, which takes most of the time
                report(before + done, total)

        write = partial(_write_group, gate, target, group, documents, plan.replaces, wrote)
        if group.ids is not None:
            tally.add(gate.retrying(write))
        else:
            try:
                tally.add(write())
            except Conflict as exc:
                raise Conflict(
                    f"{exc} (the chunks came from a generator, so the call was not retried; pass a list to allow that)"
                ) from exc
        documents = ()
    distinct, changed = len(set(tally.ids)), len(tally.changed)
    if target.caretaker is not None and tally.held is not None and tally.held.graph_generation:
        target.caretaker.after_upsert(gate, target.place, target.space, tally.held.space_id, changed)
    return UpsertResult(tally.ids, changed, distinct - changed, len(made.changed), tally.removed)


def unseen(_done: int, _total: int | None) -> None:
    """The default progress callback: does nothing."""


def _groups(
    gate: Gate, target: Target, chunks: Chunks, plan: Plan, made: Tally, report: Callable[[int], None]
) -> Iterator[Group]:
    def whole(group: Sequence[Chunk]) -> Group:
        distinct = last_wins(group)
        if plan.embed is not None:
            pieces = [distinct[i : i + EMBED_BATCH] for i in range(0, len(distinct), EMBED_BATCH)]
            distinct, ready = [], len(distinct)
            for piece, new in embedded(gate, target, pieces, plan):
                made.changed |= new
                distinct += piece
                report(len(made.ids) + (len(distinct) if len(distinct) < ready else len(group)))
        made.ids += (c.id for c in group)
        return Group([distinct[i : i + BATCH] for i in range(0, len(distinct), BATCH)], [c.id for c in group])

    if plan.commit_every is None and (isinstance(chunks, Sequence) or plan.embed is not None):
        # Embedding is slow and reads what is stored, so it all happens before the transaction that writes.
        yield whole([c for batch in batches(gate, chunks, BATCH) for c in batch])
    elif plan.commit_every is not None:
        yielded = False
        for group in batches(gate, chunks, plan.commit_every):
            yield whole(group)
            yielded = True
        if not yielded:
            yield Group([], [])
    else:
        yield Group(batches(gate, chunks, BATCH), None)


def _write_group(
    gate: Gate,
    target: Target,
    group: Group,
    documents: Sequence[Document],
    replaces: str | None,
    wrote: Callable[[int], None],
) -> Tally:
    tally = Tally(list(group.ids or ()))
    pending: keys.Statements = []
    known = {d.id for d in documents if isinstance(d, Document)}
    done = 0
    with gate.transaction(target.place.scope, "upsert") as tx:
        held = tally.held = guard(
            tx,
            target.place,
            target.space,
            create_tenants=target.create_tenants,
            text_config=target.text_config,
            indexed_keys=target.indexed_keys,
            fingerprint=target.fingerprint,
        )
        # ON CONFLICT DO UPDATE locks each row, even if unchanged: concurrent replacements of a document wait here.
        _write_documents(tx, target, documents)
        if replaces is not None:
            named = wire.text_array(sorted(set(tally.ids)))
            tx.rows(sql.LOCK_REPLACED, target.place.at(doc_id=replaces, ids=named))
        with closing(_packed_ahead(gate, target, group.batches)) as ready:
            for batch, parts in ready:
                for rows in parts:
                    tally.changed |= _write_chunks(tx, target, rows, held, known, pending)
                done += len(batch)
                if group.ids is None:
                    tally.ids += (c.id for c in batch)
                wrote(done)
        if replaces is not None:
            stale = Where.of(None, by_ids=True, by_documents=True, but_ids=True)
            params = target.place.at(ids=named, doc_ids=wire.text_array([replaces]))
            [(_, tally.removed)] = tx.rows(reads.delete(stale), params)
        if pending:
            tx.many(pending, commit=True)
    return tally
