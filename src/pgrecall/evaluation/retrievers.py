"""The protocol `Retriever`, and its implementation for core stores; `adapters` has those for other retrievers."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from pgrecall.errors import InvalidInput
from pgrecall.evaluation.sets import EvalQuery
from pgrecall.filters import Filter
from pgrecall.operations import evaluation as ops
from pgrecall.operations.models.embedding import Embed
from pgrecall.operations.registry import Place
from pgrecall.postgres.transactions import Gate
from pgrecall.stores.backend import at_place
from pgrecall.stores.vectors import PostgresVectorStore

#: What the ids of the judgements name: chunks or documents.
By: TypeAlias = Literal["chunk", "document"]


@dataclass(frozen=True, slots=True)
class Retrieved:
    """One row of an answer. `id` is what judgements name; `tenant` is its owner, if known; `text` is not stored."""

    id: str
    score: float | None = None
    chunk_id: str | None = None
    tenant: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows that a retriever returned, best first, and the milliseconds that each step took."""

    rows: tuple[Retrieved, ...]
    latency: Mapping[str, float] = field(default_factory=dict)


class Retriever(Protocol):
    """Answers a query with up to `k` rows."""

    @property
    def config(self) -> dict[str, Any]:
        """What its answers depend on, as JSON: adapter, mode, space, settings."""
        ...

    def __call__(self, query: EvalQuery, k: int) -> Answer:
        """Answer a query."""
        ...

    async def acall(self, query: EvalQuery, k: int) -> Answer:
        """Answer a query without blocking the event loop, if the retriever has an asynchronous method."""
        ...


class Clock:
    """Measures the milliseconds of each step, and of all."""

    def __init__(self) -> None:
        self._began = self._last = time.perf_counter()
        self.steps: dict[str, float] = {}

    def step(self, name: str) -> None:
        """Name the step that took the time since the last one."""
        now = time.perf_counter()
        self.steps[name] = round((now - self._last) * 1e3, 3)
        self._last = now

    def done(self) -> dict[str, float]:
        """The time of each step, and the total."""
        return {**self.steps, "total": round((time.perf_counter() - self._began) * 1e3, 3)}


#: A core store, or one for each tenant that queries name: a mapping by tenant id, or a function of it.
Stores: TypeAlias = (
    PostgresVectorStore | Mapping[str, PostgresVectorStore] | Callable[[str | None], PostgresVectorStore]
)


@dataclass(frozen=True, slots=True)
class CoreRetriever:
    """Retrieves from core stores: embeds the text of a query, and searches with the query's filters.

    Args:
        store: A store, a mapping from tenant ids to their stores, or a function from a query's tenant to its store.
            With a function, the run's configuration can't describe the collections.
        embed: A function from a list of texts to their vectors, sync or async. Required unless `mode` is "sparse".
        mode: "dense", "sparse" or "hybrid"; by default "dense".
        by: What the judgements name: "chunk" or "document"; by default "chunk".
        filters: A filter for every query, ANDed with the query's own.
        options: Further arguments of each `query` call.
        mmr: Arguments of `query_mmr`, which is then called instead of `query`.

    Raises:
        InvalidInput: An argument is invalid, or does not suit the mode.
    """

    store: Stores
    embed: Embed | None = None
    mode: str = "dense"
    by: By = "chunk"
    filters: Filter | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    mmr: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.by not in ("chunk", "document"):
            raise InvalidInput(f"by is {self.by!r:.40}; expected 'chunk' or 'document'")
        if self.embed is None and self.mode != "sparse":
            raise InvalidInput(f"embed is None; mode {self.mode!r} needs a function that embeds the question")
        # Options that are wrong for every query are refused here, once.
        name, arguments = self._call(EvalQuery("any", "any", {"any": 1}), 1, [1.0])
        try:
            inspect.signature(getattr(PostgresVectorStore, name)).bind(None, **arguments)
        except TypeError as exc:
            raise InvalidInput(f"the options do not suit {name} of a core store: {exc}") from exc
        for store in self._known[:1]:
            getattr(store, f"_{name}")(**arguments)  # checks the arguments, without a search

    @property
    def _known(self) -> list[PostgresVectorStore]:
        """The stores, as far as they can be listed."""
        if isinstance(self.store, PostgresVectorStore):
            return [self.store]
        return list(self.store.values()) if isinstance(self.store, Mapping) else []

    def _store(self, query: EvalQuery) -> PostgresVectorStore:
        if isinstance(self.store, PostgresVectorStore):
            return self.store
        if not isinstance(self.store, Mapping):
            return self.store(query.tenant)
        if query.tenant is None or query.tenant not in self.store:
            raise InvalidInput(f"the query names tenant {query.tenant!r:.80}, which has no store; add one")
        return self.store[query.tenant]

    def _call(self, query: EvalQuery, k: int, vector: Any) -> tuple[str, dict[str, Any]]:
        filters = parsed(query.filters)
        if self.filters is not None:
            filters = self.filters if filters is None else self.filters & filters
        arguments: dict[str, Any] = {"vector": vector, "top_k": k, "filters": filters, **self.options}
        if self.mmr is not None:
            return "query_mmr", {**arguments, **self.mmr}
        if self.mode != "dense":
            arguments |= {"text": query.text, "mode": self.mode}
        return "query", arguments

    def _rows(self, hits: Iterable[Any], store: PostgresVectorStore) -> tuple[Retrieved, ...]:
        # The rows of a single store have no known tenant, whatever tenants the questions name.
        tenant = None if store is self.store else store.tenant_id
        return tuple(
            Retrieved(
                h.chunk_id if self.by == "chunk" or h.doc_id is None else h.doc_id,
                float(h.score),
                h.chunk_id,
                tenant,
                h.text,
            )
            for h in hits
        )

    def __call__(self, query: EvalQuery, k: int) -> Answer:
        """Answer a query."""
        clock, store, vector = Clock(), self._store(query), None
        if self.embed is not None and self.mode != "sparse":
            vector = np.asarray(self.embed([query.text]))[0]
            clock.step("embed")
        name, arguments = self._call(query, k, vector)
        hits = getattr(store, name)(**arguments)
        clock.step("search")
        return Answer(self._rows(hits, store), clock.done())

    async def acall(self, query: EvalQuery, k: int) -> Answer:
        """Answer a query."""
        clock, store, vector = Clock(), self._store(query), None
        if self.embed is not None and self.mode != "sparse":
            made = self.embed([query.text])
            vector = np.asarray(await made if inspect.isawaitable(made) else made)[0]
            clock.step("embed")
        name, arguments = self._call(query, k, vector)
        hits = await getattr(store, "a" + name)(**arguments)
        clock.step("search")
        return Answer(self._rows(hits, store), clock.done())

    @property
    def config(self) -> dict[str, Any]:
        """Adapter, mode, filter and options; also collection, space, graph and rows, unless `store` is a function."""
        options = {**self.options, **(self.mmr or {})}
        made: dict[str, Any] = {
            "adapter": "pgrecall",
            "mode": "mmr" if self.mmr is not None else self.mode,
            "by": self.by,
            "filter": None if self.filters is None else repr(self.filters),
            "options": {name: _plain(value) for name, value in options.items()},
        }
        if known := self._known:
            every = [described(store) for store in known]
            no_graph = self.mode == "sparse" or options.get("exact")
            asked = {"ef_search": options["ef_search"]} if options.get("ef_search") else {}
            for one in every:
                if one.get("graph"):
                    # A search without a graph does not depend on the graph.
                    one["graph"] = None if no_graph else one["graph"] | asked
            made |= _together(every)
        return made


def verify(store: PostgresVectorStore) -> None:
    """Check, once before a run, that the store's embedding function is the model of the collection.

    Raises: InvalidEmbedding, EmbedSpaceMismatch, FingerprintMismatch, and errors of the function.
    """
    at_place(store, store.model.collection_space)


def _together(every: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Merge the descriptions of several stores: shared values, lists of different ones, and the sums of rows."""
    if len(every) == 1:
        return every[0]
    made: dict[str, Any] = {"tenants": len(every)}
    for name in dict.fromkeys(name for one in every for name in one):
        if name == "rows":
            counts = [one["rows"] for one in every if "rows" in one]
            made["rows"] = {kind: sum(count[kind] for count in counts) for kind in counts[0]}
        elif name != "tenant":
            values = [one.get(name) for one in every]
            distinct = [value for place, value in enumerate(values) if value not in values[:place]]
            made[name] = distinct[0] if len(distinct) == 1 else distinct
    return made


def described(store: PostgresVectorStore) -> dict[str, Any]:
    """A store's tenant and collection, its space, the hash of its fingerprint, its graph and its row counts."""
    from pgrecall.operations import registry

    def work(gate: Gate, place: Place) -> dict[str, Any]:
        held = registry.find_collection(gate, place)
        made: dict[str, Any] = {"tenant": store.tenant_id, "collection": store.collection}
        if held is not None:
            printed = None if held.fingerprint is None else np.asarray(held.fingerprint, dtype=np.float32).tobytes()
            made |= {
                "space": asdict(held.space),
                "fingerprint": None if printed is None else hashlib.sha256(printed).hexdigest(),
                "text_config": held.text_config,
                "graph": ops.graph_of(gate, place, held.space),
                "rows": ops.row_counts(gate, place.scope, store.collection),
            }
        return made

    return at_place(store, work)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def parsed(filters: Mapping[str, Any] | None) -> Filter | None:
    """The filter of a query, parsed from JSON."""
    if filters is None:
        return None
    from pgrecall.filters.parse import parse

    return parse(filters)
