"""Bulk loads of an initial corpus: a resumable sequence of upserts in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice

from pgrecall.errors import InvalidInput
from pgrecall.operations.chunks.packing import last_wins
from pgrecall.operations.chunks.upsert import BATCH, Chunks, Plan, Target, batches, embedded, unseen, upsert
from pgrecall.operations.models.calls import EMBED_BATCH
from pgrecall.postgres.transactions import Gate
from pgrecall.types import BulkLoadResult, Chunk, Document

#: Chunks per transaction. Fewer if they are embedded, because those of a killed transaction must be embedded again.
COMMIT, COMMIT_EMBEDDED = 10_000, 1_000


def load(gate: Gate, target: Target, chunks: Chunks, documents: Iterable[Document], plan: Plan) -> BulkLoadResult:
    """Write documents, then chunks, `plan.commit_every` at a time. No row is added to a graph here.

    Raises as `upsert` does. Chunks that were committed before the error stay, and a note on the error says how many.
    """
    target = replace(target, caretaker=None)
    total = len(chunks) if isinstance(chunks, Sequence) else None
    report = plan.progress or unseen
    done = written = unchanged = made = 0
    try:
        described = iter(documents)
        while True:  # at least once, so that the collection is created or refused before anything is read or embedded
            some = tuple(islice(described, BATCH))
            upsert(gate, target, [], Plan(documents=some))
            if len(some) < BATCH:
                break
        with closing(_groups(gate, target, chunks, plan, lambda count: report(count, total))) as groups:
            for group, new in groups:

                def wrote(count: int, _: int | None, before: int = done) -> None:
                    report(before + count, total)

                did = upsert(gate, target, group, Plan(progress=None if plan.embed else wrote))
                done += len(group)
                if did.written + did.unchanged < len(group) and plan.embed is None:
                    report(done, total)  # duplicate ids count, too
                written, unchanged, made = written + did.written, unchanged + did.unchanged, made + new
    except Exception as exc:
        exc.add_note(
            f"{done:,} chunks were stored before this error; repeat the call to resume, it does not embed them again"
        )
        raise
    return BulkLoadResult(done, written, unchanged, made)


def _groups(
    gate: Gate, target: Target, chunks: Chunks, plan: Plan, ready: Callable[[int], None]
) -> Generator[tuple[list[Chunk], int], None, None]:
    """Chunks that are committed together, and how many of them were embedded."""
    if plan.embed is None:
        for group in _checked(batches(gate, chunks, plan.commit_every or COMMIT)):
            yield group, 0
        return
    size = plan.commit_every or COMMIT_EMBEDDED
    seen = made = 0
    held: list[Chunk] = []
    pieces = (last_wins(piece) for piece in _checked(batches(gate, chunks, min(size, EMBED_BATCH))))
    # Calls of the model continue while a group is written; their results are collected afterwards.
    with closing(embedded(gate, target, pieces, plan)) as done:
        for piece, new in done:
            held += piece
            seen, made = seen + len(piece), made + len(new)
            ready(seen)
            if len(held) >= size:
                yield held, made
                held, made = [], 0
    if held:
        yield held, made


def _checked(groups: Iterable[list[Chunk]]) -> Iterator[list[Chunk]]:
    """Yield the groups unchanged. Raises InvalidInput with the position of the first item that is not a chunk."""
    before = 0
    for group in groups:
        for at, chunk in enumerate(group, before + 1):
            if not isinstance(chunk, Chunk):
                raise InvalidInput(f"item {at:,} of the chunks is {type(chunk).__name__}; expected pgrecall.Chunk")
        before += len(group)
        yield group
