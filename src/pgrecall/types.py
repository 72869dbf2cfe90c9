"""The values that go in and come out: frozen, free of any framework, safe to share between threads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pgrecall.errors import InvalidInput

Distance: TypeAlias = Literal["cosine", "l2", "ip"]
Vector: TypeAlias = Sequence[float] | npt.NDArray[np.floating[Any]]
Metadata: TypeAlias = Mapping[str, Any]
Action: TypeAlias = Literal["none", "entered", "built", "dropped", "exact"]

#: Byte caps. A btree entry ends at 2,704 bytes, so longer ids could not be indexed; the schema checks the same.
MAX_NAME_BYTES = 200
MAX_ID_BYTES = 1_000
MAX_DIM = 16_000


@dataclass(frozen=True, slots=True)
class EmbedSpace:
    """What produced a vector. Vectors of two spaces never mix.

    `distance` is how two vectors of the space are compared: ``cosine``, ``l2`` (Euclidean) or ``ip`` (inner
    product). `dim` is the vectors' length, 1 to 16,000 (pgvector's limit for half precision).
    """

    provider: str
    model: str
    dim: int
    distance: Distance = "cosine"

    def __post_init__(self) -> None:
        check_text(self.provider, "provider", MAX_NAME_BYTES)
        check_text(self.model, "model", MAX_NAME_BYTES)
        if isinstance(self.dim, bool) or not isinstance(self.dim, int) or not 1 <= self.dim <= MAX_DIM:
            raise InvalidInput(f"dim is {self.dim!r}; expected a whole number from 1 to {MAX_DIM:,}")
        if self.distance not in ("cosine", "l2", "ip"):
            raise InvalidInput(f"distance is {self.distance!r}; expected 'cosine', 'l2' or 'ip'")

    def __str__(self) -> str:
        return f"{self.provider}/{self.model} ({self.dim} dims, {self.distance})"


@dataclass(frozen=True, slots=True)
class EmbedModel:
    """A model whose vectors' length is not known before its first vector: a space but for `dim`."""

    provider: str
    model: str
    distance: Distance = "cosine"

    def __post_init__(self) -> None:
        self.space(1)

    def __str__(self) -> str:
        return f"{self.provider}/{self.model} ({self.distance})"

    def space(self, dim: int) -> EmbedSpace:
        """The space of its vectors of this length."""
        return EmbedSpace(self.provider, self.model, dim, self.distance)


@dataclass(frozen=True, slots=True)
class Document:
    """A source and its provenance. `content_hash` is the caller's, for example of the file's bytes."""

    id: str
    source: str | None = None
    uri: str | None = None
    content_hash: str | None = None
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """A piece of text and its vector.

    `embedding` may be left out where the store was given an embedding function, or where the stored text is
    the same and its vector is to be kept. `payload` is a framework's own form of the chunk, kept as it is.
    """

    id: str
    text: str
    embedding: Vector | None = None
    doc_id: str | None = None
    index: int | None = None
    metadata: Metadata = field(default_factory=dict)
    payload: Metadata | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Chunk):
            return NotImplemented
        compared = fields(self if type(other) is type(self) else Chunk)
        ours, theirs = self.embedding, other.embedding
        if (ours is None) != (theirs is None):
            return False
        same = all(getattr(self, f.name) == getattr(other, f.name) for f in compared if f.name != "embedding")
        return same and (ours is None or theirs is None or np.array_equal(np.asarray(ours), np.asarray(theirs)))

    def __hash__(self) -> int:
        return hash((self.id, self.text))


@dataclass(frozen=True, slots=True, eq=False)
class StoredChunk(Chunk):
    """A chunk as the tables hold it: `embedding` is what is stored, `norm` the length that the vector had as given."""

    norm: float | None = None


@dataclass(frozen=True, slots=True)
class DocstoreEntry:
    """What an ingestion remembers of a document or a part of it; None is what an entry does not say.

    `hash` is the caller's, of the content; `ref_doc_id` the document that it came from; `payload` a framework's form.
    """

    id: str
    hash: str | None = None
    ref_doc_id: str | None = None
    metadata: Metadata | None = None
    payload: Metadata | None = None


@dataclass(frozen=True, slots=True)
class DocumentReference:
    """What came from a document: ids of entries and chunks, and the entries' metadata, merged, else the document's."""

    ids: list[str]
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class UpsertResult:
    """What an upsert did: `ids` one per input, in order; counts of distinct chunks."""

    ids: list[str]
    written: int
    unchanged: int
    embedded: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class BulkLoadResult:
    """What a bulk load did: `chunks` that were read, and of these those `written`, `unchanged`, and `embedded`.

    An id that comes again counts again.
    """

    chunks: int
    written: int
    unchanged: int
    embedded: int


@dataclass(frozen=True, slots=True)
class DeleteReport(Mapping[str, int]):
    """Rows deleted per table; reads as a mapping too."""

    vectors: int = 0
    chunks: int = 0
    documents: int = 0
    collections: int = 0
    records: int = 0
    docstore: int = 0

    def __getitem__(self, key: str) -> int:
        if key not in self.__dataclass_fields__:
            raise KeyError(key)
        return int(getattr(self, key))

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class SpaceInfo:
    """A space in the registry, and its number there."""

    id: int
    space: EmbedSpace
    created_at: datetime


#: What values a declared key indexes; those of other types are found without it.
KeyType: TypeAlias = Literal["text", "number", "bool"]


@dataclass(frozen=True, slots=True)
class IndexedKey:
    """A metadata key that filters look up; `path` leads to it. Not `ready` while it is being filled."""

    path: tuple[str, ...]
    type: KeyType
    ready: bool


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection and what it holds. `text_config` is the language of its full text, None where it keeps none;
    until `text_complete`, searches by words are refused (see `Tenant.set_text_config`). `next_space` is the one that is
    being filled, where it is embedded anew (see `Tenant.reembed`). `ef_search` is how many candidates a search of its
    graph keeps, where that was chosen (see `Tenant.tune`).
    """

    name: str
    space: EmbedSpace
    text_config: str | None
    created_at: datetime
    documents: int
    chunks: int
    indexed_keys: tuple[IndexedKey, ...] = ()
    text_complete: bool = True
    next_space: EmbedSpace | None = None
    ef_search: int | None = None


@dataclass(frozen=True, slots=True)
class TunePoint:
    """One `ef_search` that was tried: the mean recall of the sample, from 0 to 1, and the median of its searches."""

    ef_search: int
    recall: float
    p50_ms: float


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What tuning a collection chose: `ef_search`, which its searches use from now on, and the recall it had.

    Both are None where the collection is searched exactly, so that there is nothing to choose. `tried`, from fast to
    thorough, ends with the first that reached `target`; where none did, the one that found most was chosen.
    """

    ef_search: int | None
    recall: float | None
    target: float
    tried: tuple[TunePoint, ...]

    @property
    def met(self) -> bool:
        """Whether the target is reached; exact searches reach any."""
        return self.recall is None or self.recall >= self.target


@dataclass(frozen=True, slots=True)
class MaintenanceResult:
    """What maintenance did for one space: `action` is what, `rows` how many it concerned.

    `built`: a new graph, of so many rows. `entered`: so many rows entered the graph. `none`: nothing was to do for the
    graph of so many rows. `dropped`: no large collection was left. `exact`: there is none, or vectors are too long.
    `generation` counts the space's graphs; 0 where it has none.
    """

    space_id: int
    space: EmbedSpace
    action: Action
    rows: int = 0
    generation: int = 0


#: pgvector's own m, and twice its ef_construction: of 21,000 clustered rows a tenth's recall@10 rose from .96 to 1.0 by
#: it, for a quarter more of the time to build.
M, EF_CONSTRUCTION = 16, 128


@dataclass(frozen=True, slots=True)
class GraphBuild:
    """How graphs are built; what is left out is sized by the server's own settings, or as the graph that serves.

    `memory` is maintenance_work_mem as Postgres writes it ("2GB"), `workers` how many processes help the first one.
    `m` (16 where nothing was said) and `ef_construction` (128) are pgvector's: more of them finds more, and takes
    longer to build, to write and to search. Raises InvalidInput.
    """

    memory: str | None = None
    workers: int | None = None
    m: int | None = None
    ef_construction: int | None = None

    def __post_init__(self) -> None:
        if self.memory is not None and not re.fullmatch(r"[1-9]\d{0,6}(kB|MB|GB|TB)", str(self.memory)):
            raise InvalidInput(f"memory is {self.memory!r:.40}; expected a size as Postgres writes it, such as '2GB'")
        for name, least, most in (("workers", 0, 1_024), ("m", 2, 100), ("ef_construction", 4, 1_000)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not least <= value <= most):
                raise InvalidInput(f"{name} is {value!r:.40}; expected a whole number from {least} to {most:,}")
        if self.ef_construction is not None and self.ef_construction < 2 * (self.m or M):
            raise InvalidInput(
                f"ef_construction is {self.ef_construction}; expected {2 * (self.m or M)} (twice m) or more"
            )


@dataclass(frozen=True, slots=True)
class OptimizeResult:
    """What `optimize` did, as in `MaintenanceResult`, and the collection's rows since: in the graph, and waiting."""

    action: Action
    in_graph: int
    waiting: int


@dataclass(frozen=True, slots=True)
class ReembedResult:
    """What embedding anew did: the space, whether it answers now, and how many chunks the collection has.

    `embedded` vectors were made by this call, `dropped` old ones deleted. Before the switch `sampled` of the new ones
    were made again and compared; `found` is the share that finds its own chunk among the ten nearest, `overlap` what
    the ten nearest have in common with the old space's, on average (two models differ: it is told, not judged). Both
    are None where nothing was sampled.
    """

    space: EmbedSpace
    switched: bool
    chunks: int
    embedded: int
    dropped: int
    sampled: int
    found: float | None
    overlap: float | None


@dataclass(frozen=True, slots=True)
class TenantInfo:
    """A tenant in the registry; `erased_at` is set where only the tombstone is left."""

    tenant_id: str
    created_at: datetime
    erased_at: datetime | None


def check_text(value: object, what: str, max_bytes: int) -> str:
    """Return `value` if it is a storable, non-empty string of at most `max_bytes` UTF-8 bytes. Raises InvalidInput."""
    if not isinstance(value, str):
        raise InvalidInput(f"{what} is {type(value).__name__} {value!r:.60}; expected a string")
    if not value:
        raise InvalidInput(f"{what} is empty; expected a non-empty string")
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError as exc:
        raise InvalidInput(
            f"{what} {value!r:.60} is not valid Unicode (lone surrogate); repair the text first"
        ) from exc
    if size > max_bytes:
        raise InvalidInput(
            f"{what} {value!r:.60}… has {size:,} bytes; at most {max_bytes:,} are stored. Hash or shorten it"
        )
    if "\0" in value:
        raise InvalidInput(f"{what} {value!r:.60} has a NUL character, which Postgres can't store; remove it")
    return value
