"""Exports and imports a collection as JSON lines, with vectors and provenance; nothing is rounded.

A file has a header, then documents, then chunks, then one line with their counts, by which a truncated file is
detected:

    {"pgrecall": 1, "tenant": …, "collection": …, "space": {…}, "text_config": …, "fingerprint": …}
    {"document": {"id": …, "source": …, "uri": …, "content_hash": …, "metadata": {…}}}
    {"chunk": {"id": …, "text": …, "embedding": […], "doc_id": …, "index": …, "metadata": {…}, …}}
    {"end": {"documents": …, "chunks": …}}

Both are synchronous and work line by line: memory grows with the number of documents, not of chunks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pgrecall.errors import InvalidInput, NotFound
from pgrecall.operations.chunks import reads as chunk_reads
from pgrecall.operations.chunks.upsert import Progress
from pgrecall.operations.registry import Place, find_collection
from pgrecall.postgres.transactions import Gate
from pgrecall.stores.backend import at_place
from pgrecall.types import Document, EmbedSpace, StoredChunk, UpsertResult

if TYPE_CHECKING:
    from pgrecall.stores.tenant import Tenant
    from pgrecall.stores.vectors import PostgresVectorStore

#: The format of the lines; a reader refuses any other.
FORMAT = 1

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_TEXT: tuple[type, ...] = (str, type(None))
_DOCUMENT: dict[str, tuple[type, ...]] = {
    "id": (str,), "source": _TEXT, "uri": _TEXT, "content_hash": _TEXT, "metadata": (dict,),
}  # fmt: skip
_CHUNK: dict[str, tuple[type, ...]] = {
    "id": (str,), "text": (str,), "embedding": (list,), "doc_id": _TEXT, "index": (int, type(None)),
    "metadata": (dict,), "payload": (dict, type(None)), "norm": (int, float),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of an export: its origin, and the space of its vectors."""

    tenant: str
    collection: str
    space: EmbedSpace
    text_config: str | None
    fingerprint: npt.NDArray[np.float32] | None


class _Record(NamedTuple):
    line: int
    kind: str
    value: Any


def export_lines(store: PostgresVectorStore) -> Iterator[str]:
    """The store's whole collection as JSON lines, newlines included: ``file.writelines(export_lines(store))``.

    The collection is read page by page, so rows that are written during the export may or may not be included.

    Raises:
        NotFound: The collection does not exist; raised by the call, not by the first line.
        Unavailable: The database cannot be reached.
    """
    header = described(store)
    first = {
        "pgrecall": FORMAT,
        "tenant": header.tenant,
        "collection": header.collection,
        "space": asdict(header.space),
        "text_config": header.text_config,
        "fingerprint": None if header.fingerprint is None else header.fingerprint.tolist(),
    }
    body = at_place(store, _body)
    return (_encode(record) + "\n" for record in chain([first], body))


def described(store: PostgresVectorStore) -> Header:
    """The header of an export of the store's collection. Raises NotFound."""

    held = at_place(store, find_collection)
    if held is None:
        raise NotFound(f"tenant {store.tenant_id!r} has no collection {store.collection!r}")
    kept = None if held.fingerprint is None else np.asarray(held.fingerprint, dtype=np.float32)
    return Header(store.tenant_id, store.collection, held.space, held.text_config, kept)


def _body(gate: Gate, place: Place) -> Iterator[dict[str, Any]]:
    counts = {"documents": 0, "chunks": 0}
    for document in chunk_reads.scan_documents(gate, place):
        counts["documents"] += 1
        yield {"document": asdict(document)}
    for chunk in chunk_reads.scan(gate, place):
        if chunk.embedding is None:
            continue  # the collection is being re-embedded, and the chunk has no vector in this space
        counts["chunks"] += 1
        value = {name: getattr(chunk, name) for name in _CHUNK}
        yield {"chunk": value | {"embedding": _exact(chunk.embedding)}}
    yield {"end": counts}


def _exact(values: Any) -> list[float]:
    """Values in single precision, as floats that equal them exactly."""
    return np.asarray(values, dtype=np.float32).tolist()  # type: ignore[no-any-return]


def import_lines(
    tenant: Tenant,
    lines: Iterable[str | bytes],
    collection: str | None = None,
    *,
    commit_every: int | None = None,
    progress: Progress | None = None,
) -> UpsertResult:
    """Import the lines of an export into a collection of a tenant.

    Vectors, norms, texts, metadata and provenance are restored bit for bit. A new collection also gets the exported
    space, text_config and fingerprint; an existing one keeps its settings and takes the chunks as an upsert does.

    Args:
        tenant: The tenant to import into.
        lines: The lines of the export.
        collection: The name of the collection. By default the exported one's name.
        commit_every: Commit every N chunks. By default the import commits once, all or nothing.
        progress: Called after each batch with the number of chunks done, and None.

    Raises:
        InvalidInput: A line can't be read; the message names it.
        EmbedSpaceMismatch: The collection exists with another space.
        FingerprintMismatch: The collection exists with another model of the same name.
        TenantErased: The tenant was deleted.
        Unavailable: The database cannot be reached.
    """
    records = _records(lines)
    header = _header(next(records, None))
    documents, first = [], None
    for record in records:
        if record.kind != "document":
            first = record
            break
        documents.append(Document(**_fields(record, _DOCUMENT)))
    rest = records if first is None else chain([first], records)
    name = collection if collection is not None else header.collection
    known = tenant.collection_info(name)
    text_config = header.text_config if known is None else None
    store = tenant.vectors(name, header.space, text_config=text_config)
    store.model.fingerprint = header.fingerprint
    chunks = _chunks(rest, header.space.dim, len(documents))
    return store.upsert(chunks, documents=documents, commit_every=commit_every, progress=progress)


def read_header(line: str | bytes) -> Header:
    """The first line of an export. Raises InvalidInput."""
    return _header(next(_records([line]), None))


def _records(lines: Iterable[str | bytes]) -> Iterator[_Record]:
    for number, line in enumerate(lines, 1):
        if not isinstance(line, str | bytes):
            raise InvalidInput(f"line {number} is {type(line).__name__}; expected a line of an export, str or bytes")
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as exc:
            at = f" at character {exc.colno}" if isinstance(exc, json.JSONDecodeError) else ""
            why = exc.msg if isinstance(exc, json.JSONDecodeError) else str(exc)
            raise InvalidInput(f"line {number} is not JSON: {why}{at}") from exc
        if isinstance(record, dict) and "pgrecall" in record:
            yield _Record(number, "header", record)
        elif isinstance(record, dict) and len(record) == 1:
            yield _Record(number, *next(iter(record.items())))
        else:
            raise InvalidInput(f"line {number} is {line[:60]!r}; expected one document or one chunk")


def _header(record: _Record | None) -> Header:
    if record is None or record.kind != "header":
        raise InvalidInput('the first line is not the header of an export; expected {"pgrecall": 1, …}')
    value = record.value
    if value["pgrecall"] != FORMAT:
        found = f"format {value['pgrecall']!r:.20}; this version reads format {FORMAT}"
        raise InvalidInput(f"line {record.line}: the export has {found}. Upgrade pgrecall")
    try:
        space = EmbedSpace(**value["space"])
        fingerprint = value["fingerprint"]
        with np.errstate(over="ignore"):
            kept = None if fingerprint is None else np.asarray(fingerprint, dtype=np.float32)
        if kept is not None and (kept.shape != (space.dim,) or not np.isfinite(kept).all() or not kept.any()):
            raise ValueError("the fingerprint is not a vector of the space")
        return Header(value["tenant"], value["collection"], space, value["text_config"], kept)
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        why = f"{type(exc).__name__}: {exc}"
        raise InvalidInput(f"line {record.line}: the header can't be read ({why})") from exc


def _fields(record: _Record, expected: dict[str, tuple[type, ...]]) -> dict[str, Any]:
    where = f"line {record.line}: the {record.kind}"
    if not isinstance(record.value, dict) or record.value.keys() != expected.keys():
        found = sorted(record.value) if isinstance(record.value, dict) else type(record.value).__name__
        raise InvalidInput(f"{where} has {found}; expected the fields {', '.join(expected)}")
    for name, kinds in expected.items():
        value = record.value[name]
        if not isinstance(value, kinds) or isinstance(value, bool):
            wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise InvalidInput(f"{where}'s {name} is {value!r:.40}; expected {wanted}")
    return record.value


def _chunks(records: Iterable[_Record], dim: int, documents: int) -> Iterator[StoredChunk]:
    counts, ended = {"documents": documents, "chunks": 0}, False
    for record in records:
        where = f"line {record.line}"
        if ended:
            raise InvalidInput(f"{where} follows the last line of the export; expected no more lines")
        if record.kind == "chunk":
            counts["chunks"] += 1
            yield _chunk(record, dim)
        elif record.kind == "end":
            ended = True
            if record.value != counts:
                raise InvalidInput(f"{where}: the file has {counts}, but {record.value} were exported")
        else:
            raise InvalidInput(f"{where} is a {record.kind!r:.40}; expected documents first, then chunks")
    if not ended:
        raise InvalidInput(f"the file is truncated: after {counts} its last line is missing")


def _chunk(record: _Record, dim: int) -> StoredChunk:
    fields = _fields(record, _CHUNK)
    where = f"line {record.line}: the chunk's"
    if not all(type(value) is float or type(value) is int for value in fields["embedding"]):
        raise InvalidInput(f"{where} embedding has an element that is not a number; expected numbers only")
    if (length := len(fields["embedding"])) != dim:
        raise InvalidInput(f"{where} embedding has {length:,} numbers; expected {dim:,}, the dimensions of its space")
    norm, single = fields["norm"], np.finfo(np.float32)
    if not float(single.smallest_subnormal) <= norm <= float(single.max):
        raise InvalidInput(f"{where} norm is {norm!r:.40}; expected the length of a vector")
    try:
        embedding = np.asarray(fields["embedding"], dtype=np.float64)
    except OverflowError as exc:
        raise InvalidInput(f"{where} embedding has an integer that is too large for a float") from exc
    return StoredChunk(**fields | {"embedding": embedding})
