"""The values that calls take and return: immutable, independent of any framework, and safe to share among threads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from pgrecall.arguments import MAX_NAME_BYTES, check_text
from pgrecall.errors import InvalidInput

Distance: TypeAlias = Literal["cosine", "l2", "ip"]
Vector: TypeAlias = Sequence[float] | npt.NDArray[np.floating[Any]]
Metadata: TypeAlias = Mapping[str, Any]
#: What a database is used for: only one that is marked as development can be reset.
Environment: TypeAlias = Literal["development", "production"]
MaintenanceAction: TypeAlias = Literal["none", "entered", "built", "dropped", "exact"]

MAX_DIM = 16_000


@dataclass(frozen=True, slots=True)
class EmbedSpace:
    """The embedding model that produced a vector. Vectors of different spaces are never compared.

    `dim` is the number of dimensions, 1 to 16,000 (pgvector's limit for half precision). `distance` is how vectors of
    the space are compared: ``cosine``, ``l2`` (Euclidean) or ``ip`` (inner product).
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
    """An `EmbedSpace` without `dim`, for a model whose number of dimensions is unknown until its first vector."""

    provider: str
    model: str
    distance: Distance = "cosine"

    def __post_init__(self) -> None:
        self.space(1)

    def __str__(self) -> str:
        return f"{self.provider}/{self.model} ({self.distance})"

    def space(self, dim: int) -> EmbedSpace:
        """The model's space, given the number of dimensions."""
        return EmbedSpace(self.provider, self.model, dim, self.distance)


@dataclass(frozen=True, slots=True)
class Document:
    """A source document and its provenance. The caller computes `content_hash`, for example from the file's bytes."""

    id: str
    source: str | None = None
    uri: str | None = None
    content_hash: str | None = None
    metadata: Metadata = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """A piece of text and its vector.

    `embedding` may be None if the store has an embedding function, or if the chunk is already stored with the same
    text, in which case the stored vector is kept. `payload` is a framework's own form of the chunk, stored unchanged.
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
    """A chunk as stored: `embedding` is the stored vector, `norm` the L2 norm of the vector before it was stored."""

    norm: float | None = None


@dataclass(frozen=True, slots=True)
class DocstoreEntry:
    """What an ingestion pipeline remembers about a document or a part of it. Fields that are None are not set.

    The caller computes `hash` from the content. `ref_doc_id` is the document that the entry came from. `payload` is a
    framework's own form, stored unchanged.
    """

    id: str
    hash: str | None = None
    ref_doc_id: str | None = None
    metadata: Metadata | None = None
    payload: Metadata | None = None


@dataclass(frozen=True, slots=True)
class DocumentReference:
    """What was derived from a document.

    `ids` are the ids of its entries and chunks. `metadata` is the merged metadata of its entries, or the document's own
    metadata if it has no entries.
    """

    ids: list[str]
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class UpsertResult:
    """Result of an upsert: `ids` has one id per input, in order; the counts are of distinct chunks."""

    ids: list[str]
    written: int
    unchanged: int
    embedded: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class BulkLoadResult:
    """Result of a bulk load: how many `chunks` were read, and how many were `written`, `unchanged` and `embedded`.

    A chunk id that occurs twice in the input is counted twice.
    """

    chunks: int
    written: int
    unchanged: int
    embedded: int


@dataclass(frozen=True, slots=True)
class DocumentChanges:
    """How documents differ from those that a collection holds: made by `store.compare_documents`.

    `new` ones are not stored yet, `changed` ones have another content hash (or none), `missing` are the ids of stored
    documents that were not among those compared.
    """

    new: tuple[Document, ...] = ()
    changed: tuple[Document, ...] = ()
    unchanged: tuple[Document, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What `store.update_documents` did: numbers of documents, and of the `chunks` that new and changed ones have."""

    new: int
    changed: int
    unchanged: int
    deleted: int
    chunks: int


@dataclass(frozen=True, slots=True)
class DeleteReport(Mapping[str, int]):
    """Rows deleted per table. It is also a mapping from table to rows deleted."""

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
    """An embedding space as registered in the database, and its id."""

    id: int
    space: EmbedSpace
    created_at: datetime


@dataclass(frozen=True, slots=True)
class SpaceUse:
    """How many collections, and how many tenants' memories, use a space."""

    collections: int = 0
    memories: int = 0


#: The type of the values that an indexed key holds. Values of other types are found without the index.
KeyType: TypeAlias = Literal["text", "number", "bool"]


@dataclass(frozen=True, slots=True)
class IndexedKey:
    """An indexed metadata key. `path` is the path to it in the metadata; `ready` is False while it is being filled."""

    path: tuple[str, ...]
    type: KeyType
    ready: bool


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection's properties and row counts.

    `text_config` is its text search configuration, None if it has no full-text search. Searches by words are refused
    until `text_complete` is True (see `Tenant.set_text_config`). `next_space` is the space that the collection is
    being re-embedded to, None if it is not (see `Tenant.reembed`). `ef_search` is the one chosen for the collection,
    None if none was (see `Tenant.tune`).
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
    """One `ef_search` that was tried: the sample's mean recall, from 0 to 1, and its median latency."""

    ef_search: int
    recall: float
    p50_ms: float


@dataclass(frozen=True, slots=True)
class TuneResult:
    """Result of tuning a collection: the `ef_search` that its searches now use, and the recall measured with it.

    Both are None if the collection is searched exactly, because there is nothing to tune. `tried` lists the attempts by
    increasing `ef_search`, up to the first that reached `target`. If none reached it, the one with the highest recall
    was chosen.
    """

    ef_search: int | None
    recall: float | None
    target: float
    tried: tuple[TunePoint, ...]

    @property
    def met(self) -> bool:
        """Whether the target was reached. Exact searches reach every target."""
        return self.recall is None or self.recall >= self.target


@dataclass(frozen=True, slots=True)
class MaintenanceResult:
    """Result of maintenance for one space.

    `action` is what was done: "built" if a new graph of `rows` rows was built, "entered" if `rows` rows were added to
    the graph, "none" if the graph of `rows` rows needed nothing, "dropped" if the graph was dropped because the space
    has no large collection left, and "exact" if the space has no large collection, or its vectors are too long to be
    indexed. `generation` is the number of the space's graph, 0 if it has none.
    """

    space_id: int
    space: EmbedSpace
    action: MaintenanceAction
    rows: int = 0
    generation: int = 0


#: pgvector's default m, and twice its default ef_construction. On 21,000 clustered rows the latter raised the recall@10
#: of a tenth of them from .96 to 1.0, and took a quarter more time to build.
M, EF_CONSTRUCTION = 16, 128


@dataclass(frozen=True, slots=True)
class GraphBuild:
    """Options for building HNSW graphs.

    Attributes:
        memory: maintenance_work_mem in Postgres' notation, such as "2GB". Default: derived from the server's settings.
        workers: The number of parallel workers, 0 to 1,024. Default: derived from the server's settings.
        m: pgvector's m, 2 to 100. Default: that of the space's current graph, or 16.
        ef_construction: pgvector's ef_construction, from twice `m` to 1,000. Default: that of the space's current
            graph, or 128, but at least twice `m`.

    Higher values of `m` and `ef_construction` raise recall, and make building, writing and searching slower.

    Raises: InvalidInput.
    """

    memory: str | None = None
    workers: int | None = None
    m: int | None = None
    ef_construction: int | None = None

    def __post_init__(self) -> None:
        if self.memory is not None and not re.fullmatch(r"[1-9]\d{0,6}(kB|MB|GB|TB)", str(self.memory)):
            raise InvalidInput(f"memory is {self.memory!r:.40}; expected a size in Postgres' notation, such as '2GB'")
        for name, least, most in (("workers", 0, 1_024), ("m", 2, 100), ("ef_construction", 4, 1_000)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not least <= value <= most):
                raise InvalidInput(f"{name} is {value!r:.40}; expected a whole number from {least} to {most:,}")
        if self.ef_construction is not None and self.ef_construction < 2 * (self.m or M):
            raise InvalidInput(
                f"ef_construction is {self.ef_construction}; expected at least {2 * (self.m or M)} (twice m)"
            )


@dataclass(frozen=True, slots=True)
class OptimizeResult:
    """Result of `optimize`: the action as in `MaintenanceResult`, and the collection's row counts afterwards.

    `in_graph` rows are in the graph; `waiting` rows are not yet.
    """

    action: MaintenanceAction
    in_graph: int
    waiting: int


@dataclass(frozen=True, slots=True)
class ReembedResult:
    """Result of re-embedding a collection.

    Attributes:
        space: The new space.
        switched: Whether searches use the new space now.
        chunks: The number of chunks in the collection.
        embedded: The number of vectors that this call made.
        dropped: The number of vectors of the old space that this call deleted.
        sampled: The number of new vectors that were computed again and compared before the switch.
        found: The share of sampled vectors whose own chunk is among their ten nearest. None if nothing was sampled.
        overlap: The mean share of the ten nearest that are the same in the old and the new space. None if nothing was
            sampled. It is informational, since two models are expected to differ.
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
    """A tenant as registered in the database. `erased_at` is set if only its tombstone is left."""

    tenant_id: str
    created_at: datetime
    erased_at: datetime | None
