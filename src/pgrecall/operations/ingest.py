"""Writing documents and chunks: checked and packed without I/O, then sent in few, large statements."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal, TypeAlias

from pgrecall import guards, wire
from pgrecall.errors import Conflict, InvalidEmbedding, InvalidInput
from pgrecall.jsonable import dumps
from pgrecall.operations.registry import Place, guard
from pgrecall.statements import reads
from pgrecall.statements import writes as sql
from pgrecall.statements.reads import Where
from pgrecall.tenancy import Gate, Transaction
from pgrecall.types import MAX_ID_BYTES, Chunk, Document, EmbedSpace, StoredChunk, UpsertResult, check_text

OnNul: TypeAlias = Literal["error", "strip"]
Progress: TypeAlias = Callable[[int, int | None], None]
Embed: TypeAlias = Callable[[list[str]], Any]
Chunks: TypeAlias = Iterable[Chunk] | AsyncIterable[Chunk]

#: Chunks per statement. Larger ones gain nothing and hold more memory.
BATCH = 1_000
#: int4's range, for chunk_index.
MAX_INDEX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Target:
    """Where an upsert goes, and under which rules."""

    place: Place
    space: EmbedSpace
    space_id: int
    halfvec_oid: int
    create_tenants: bool
    text_config: str | None = None
    canary: Any = None
    on_nul: OnNul = "error"


@dataclass(slots=True)
class Tally:
    """What the writes of one call did so far."""

    ids: list[str] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    removed: int = 0


def text_hash(text: str) -> bytes:
    """SHA-256 of a chunk's text: `content_hash` in the schema, the same as ``sha256(convert_to(text, 'UTF8'))``."""
    return hashlib.sha256(text.encode()).digest()


def _clean(text: object, what: str, on_nul: OnNul) -> str:
    if not isinstance(text, str):
        raise InvalidInput(f"{what} is {type(text).__name__}; expected a string")
    if "\0" in text:
        if on_nul == "error":
            raise InvalidInput(f"{what} has a NUL character, which Postgres can't store; remove it, or pass on_nul='strip'")
        text = text.replace("\0", "")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise InvalidInput(f"{what} is not valid Unicode ({exc.reason}); repair the text first") from exc
    return text


def _optional(text: object, what: str, on_nul: OnNul) -> str | None:
    return None if text is None else _clean(text, what, on_nul)


@dataclass(slots=True)
class ChunkRows:
    """A batch of distinct chunks, sorted by id, as columns ready to send."""

    ids: list[str]
    doc_ids: list[str | None]
    values: dict[str, Any]
    hashes: list[bytes]
    with_vector: list[str]
    vectors: dict[str, Any]


def pack(chunks: Sequence[Chunk], target: Target) -> ChunkRows:
    """Check chunks (distinct, sorted by id) and turn them into columns.

    Raises: InvalidInput, InvalidEmbedding, each naming the chunk.
    """
    on_nul = target.on_nul
    ids = [c.id for c in chunks]
    names = [f"chunk {i!r:.80}" for i in ids]
    texts, metadata, payloads, doc_ids, hashes = [], [], [], [], []
    for chunk, name in zip(chunks, names, strict=True):
        text = _clean(chunk.text, f"the text of {name}", on_nul)
        texts.append(text)
        hashes.append(text_hash(text))
        metadata.append(json_object(chunk.metadata, f"the metadata of {name}", on_nul))
        payloads.append(None if chunk.payload is None else json_object(chunk.payload, f"the payload of {name}", on_nul))
        doc_ids.append(None if chunk.doc_id is None else check_text(chunk.doc_id, f"the doc_id of {name}", MAX_ID_BYTES))
        index = chunk.index
        if index is not None and (isinstance(index, bool) or not isinstance(index, int) or abs(index) > MAX_INDEX):
            raise InvalidInput(f"the index of {name} is {index!r:.40}; expected a whole number up to {MAX_INDEX:,}")
    given = [(c.embedding, c.id, n) for c, n in zip(chunks, names, strict=True) if c.embedding is not None]
    vectors: dict[str, Any] = {}
    if given:
        stored = guards.to_stored([g[0] for g in given], target.space, [g[2] for g in given])
        for at, chunk in enumerate(c for c in chunks if c.embedding is not None):
            if isinstance(chunk, StoredChunk) and chunk.norm is not None:
                stored.norms[at] = chunk.norm
        vectors = {
            "ids": wire.text_array([g[1] for g in given]),
            "norms": wire.float4_array(stored.norms),
            "embeddings": wire.halfvec_array(stored.vectors, target.halfvec_oid),
            "space": target.space_id,
        }
    values = {
        "ids": wire.text_array(ids),
        "doc_ids": wire.text_array(doc_ids),
        "indexes": wire.int4_array([c.index for c in chunks]),
        "texts": wire.text_array(texts),
        "hashes": wire.bytea_array(hashes),
        "metadata": wire.jsonb_array(metadata),
        "payloads": wire.jsonb_array(payloads),
    }
    return ChunkRows(ids, doc_ids, values, hashes, [g[1] for g in given], vectors)


def json_object(value: object, what: str, on_nul: OnNul) -> str:
    """A mapping of string keys as JSON text. Raises InvalidInput."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{what} is {type(value).__name__}; expected a mapping of string keys")
    return dumps(value if isinstance(value, dict) else dict(value), what, on_nul=on_nul)


def several(values: object, what: str, *, or_async: bool = False) -> None:
    """Refuse what is not an iterable of `what`, before any of it is read. Raises InvalidInput."""
    kinds = (Iterable, AsyncIterable) if or_async else Iterable
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, kinds):
        raise InvalidInput(f"{type(values).__name__} was given; expected an iterable of pgrecall.{what}, such as a list")


def last_wins(chunks: Sequence[Chunk]) -> list[Chunk]:
    """Distinct chunks in the order in which every writer takes its locks; of two with one id the later."""
    for chunk in chunks:
        if not isinstance(chunk, Chunk):
            raise InvalidInput(f"a chunk is {type(chunk).__name__}; expected pgrecall.Chunk")
        check_text(chunk.id, "a chunk's id", MAX_ID_BYTES)
    distinct = {c.id: c for c in chunks}
    return [distinct[i] for i in sorted(distinct)]


def _write_documents(tx: Transaction, target: Target, documents: Sequence[Document]) -> None:
    on_nul = target.on_nul
    distinct: dict[str, Document] = {}
    for document in documents:
        if not isinstance(document, Document):
            raise InvalidInput(f"a document is {type(document).__name__}; expected pgrecall.Document")
        distinct[check_text(document.id, "a document's id", MAX_ID_BYTES)] = document
    ordered = [distinct[i] for i in sorted(distinct)]
    for start in range(0, len(ordered), BATCH):
        part = ordered[start : start + BATCH]
        what = [f"of document {d.id!r:.80}" for d in part]
        both = list(zip(part, what, strict=True))
        values = {
            "ids": wire.text_array([d.id for d in part]),
            "sources": wire.text_array([_optional(d.source, f"the source {w}", on_nul) for d, w in both]),
            "uris": wire.text_array([_optional(d.uri, f"the uri {w}", on_nul) for d, w in both]),
            "hashes": wire.text_array([_optional(d.content_hash, f"the content_hash {w}", on_nul) for d, w in both]),
            "metadata": wire.jsonb_array([json_object(d.metadata, f"the metadata {w}", on_nul) for d, w in both]),
        }
        tx.count(sql.DOCUMENTS, target.place.at(**values))


def _write_chunks(
    tx: Transaction, target: Target, chunks: Sequence[Chunk], text_config: str | None, known: set[str]
) -> set[str]:
    """Write one batch of distinct chunks in one round trip (two where a stored vector is kept); returns the ids that changed."""
    rows = pack(chunks, target)
    work: list[tuple[str, dict[str, Any]]] = []
    if named := sorted({d for d in rows.doc_ids if d is not None} - known):
        work.append((sql.NAMED_DOCUMENTS, target.place.at(ids=wire.text_array(named))))
        known.update(named)
    if len(rows.with_vector) < len(rows.ids):
        _check_kept(tx, target, rows)
    work.append((sql.CHUNKS, target.place.at(text_config=text_config, **rows.values)))
    if rows.vectors:
        work.append((sql.VECTORS, target.place.at(**rows.vectors)))
    return {row[0] for result in tx.many(work) for row in result}


def _check_kept(tx: Transaction, target: Target, rows: ChunkRows) -> None:
    given = set(rows.with_vector)
    bare = [(i, h) for i, h in zip(rows.ids, rows.hashes, strict=True) if i not in given]
    kept = {row[0] for row in tx.rows(sql.KEPT, _kept_params(target, bare))}
    for chunk_id, _ in bare:
        if chunk_id not in kept:
            raise InvalidEmbedding(
                f"chunk {chunk_id!r:.80} has no embedding, and no vector of {target.space} is stored for the same text; "
                "give it one, or give the store an embedding function (embed=)"
            )


def _kept_params(target: Target, bare: Sequence[tuple[str, bytes]]) -> dict[str, Any]:
    ids, hashes = wire.text_array([b[0] for b in bare]), wire.bytea_array([b[1] for b in bare])
    return target.place.at(ids=ids, hashes=hashes, space=target.space_id)


def embedded(gate: Gate, target: Target, chunks: Sequence[Chunk], embed: Embed, tally: list[int]) -> list[Chunk]:
    """Give a vector to each chunk that has none and whose text is new or changed; adds their number to `tally`.

    Runs between transactions, so that a slow model holds no lock.
    """
    bare = [c for c in last_wins(chunks) if c.embedding is None]
    if not bare:
        return list(chunks)
    texts = [_clean(c.text, f"the text of chunk {c.id!r:.80}", target.on_nul) for c in bare]
    with gate.transaction(target.place.scope, "changed") as tx:
        values = _kept_params(target, [(c.id, text_hash(t)) for c, t in zip(bare, texts, strict=True)])
        kept = {row[0] for row in tx.last(sql.KEPT, values)}
    new = [(c, t) for c, t in zip(bare, texts, strict=True) if c.id not in kept]
    if not new:
        return list(chunks)
    vectors = call_embed(gate, embed, [t for _, t in new])
    tally[0] += len(new)
    made = {c.id: replace(c, embedding=v) for (c, _), v in zip(new, vectors, strict=True)}
    return [made.get(c.id, c) if c.embedding is None else c for c in chunks]


def call_embed(gate: Gate, embed: Embed, texts: list[str]) -> Any:
    """Call a sync or async embedding function in the caller's mode; one vector a text, or InvalidEmbedding."""
    if not callable(embed):
        raise InvalidInput(f"embed is {type(embed).__name__}; expected a function from a list of texts to their vectors")
    vectors = embed(texts)
    if inspect.isawaitable(vectors):
        if not gate.is_async:
            if inspect.iscoroutine(vectors):
                vectors.close()
            raise InvalidInput("the embedding function is asynchronous; call the store's a… methods, or give a synchronous one")
        vectors = gate.wait(vectors)
    if not isinstance(vectors, Sized):
        raise InvalidEmbedding(
            f"the embedding function returned {type(vectors).__name__}; expected one vector for each of {len(texts)} texts"
        )
    if len(vectors) != len(texts):
        raise InvalidEmbedding(f"the embedding function returned {len(vectors)} vectors for {len(texts)} texts; nothing was written")
    return vectors


def batches(gate: Gate, chunks: Chunks, size: int) -> Iterator[list[Chunk]]:
    """Cut any iterable, an asynchronous one too where the caller is, into lists."""
    if isinstance(chunks, AsyncIterable):
        if not gate.is_async:
            raise InvalidInput("the chunks are an asynchronous iterable; call aupsert")
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
    """How one upsert goes: `commit_every` None means all or nothing."""

    documents: Sequence[Document] = ()
    embed: Embed | None = None
    commit_every: int | None = None
    progress: Progress | None = None
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """What is committed together: batches to write, in the order in which every writer takes its locks.

    `ids` are those of the input, in order; None where they are only known as the batches are drawn from a generator,
    which can't be read again after a collision.
    """

    batches: Iterable[Sequence[Chunk]]
    ids: list[str] | None


def upsert(gate: Gate, target: Target, chunks: Chunks, plan: Plan) -> UpsertResult:
    """Write documents and chunks; returns one id per input, in order, and what changed."""
    total = len(chunks) if isinstance(chunks, Sequence) else None
    embedded_count, tally = [0], Tally()
    documents = plan.documents
    for group in _groups(gate, target, chunks, plan, embedded_count):

        def body(group: Group = group, documents: Sequence[Document] = documents) -> Tally:
            return _write_group(gate, target, group, documents, plan, tally, total)

        if group.ids is not None:
            tally = gate.retrying(body)
        else:
            try:
                tally = body()
            except Conflict as exc:
                raise Conflict(f"{exc} (a generator can't be read twice; pass a list to have this retried)") from exc
        documents = ()
    distinct = len(set(tally.ids))
    return UpsertResult(tally.ids, len(tally.changed), distinct - len(tally.changed), embedded_count[0], tally.removed)


def _groups(gate: Gate, target: Target, chunks: Chunks, plan: Plan, embedded_count: list[int]) -> Iterator[Group]:
    def ready(batch: Sequence[Chunk]) -> Sequence[Chunk]:
        return batch if plan.embed is None else embedded(gate, target, batch, plan.embed, embedded_count)

    def whole(group: Sequence[Chunk]) -> Group:
        distinct = last_wins(group)
        return Group([ready(distinct[i : i + BATCH]) for i in range(0, len(distinct), BATCH)], [c.id for c in group])

    if isinstance(chunks, Sequence) and plan.commit_every is None:
        yield whole(chunks)
    elif plan.commit_every is not None:
        yielded = False
        for group in batches(gate, chunks, plan.commit_every):
            yield whole(group)
            yielded = True
        if not yielded:
            yield Group([], [])
    else:
        yield Group((ready(b) for b in batches(gate, chunks, BATCH)), None)


def _write_group(
    gate: Gate,
    target: Target,
    group: Group,
    documents: Sequence[Document],
    plan: Plan,
    before: Tally,
    total: int | None,
) -> Tally:
    tally = Tally([*before.ids, *(group.ids or ())], set(before.changed), before.removed)
    known = {d.id for d in documents if isinstance(d, Document)}
    done = len(before.ids)
    with gate.transaction(target.place.scope, "upsert") as tx:
        held = guard(
            tx,
            target.place,
            target.space,
            target.space_id,
            create_tenants=target.create_tenants,
            text_config=target.text_config,
            canary=target.canary,
        )
        # ON CONFLICT DO UPDATE locks each row, an unchanged one too: replacements of one document take turns here.
        _write_documents(tx, target, documents)
        if plan.replaces is not None:
            named = wire.text_array(sorted(set(group.ids or ())))
            tx.rows(sql.LOCK_REPLACED, target.place.at(doc_id=plan.replaces, ids=named))
        for batch in group.batches:
            tally.changed |= _write_chunks(tx, target, last_wins(batch), held.text_config, known)
            done += len(batch)
            if group.ids is None:
                tally.ids += [c.id for c in batch]
            if plan.progress is not None:
                plan.progress(done, total)
        if plan.replaces is not None:
            stale = Where.of(None, by_ids=True, by_documents=True, but_ids=True)
            params = target.place.at(ids=named, doc_ids=wire.text_array([plan.replaces]))
            [(_, removed)] = tx.rows(reads.delete(stale), params)
            tally.removed += removed
    return tally
