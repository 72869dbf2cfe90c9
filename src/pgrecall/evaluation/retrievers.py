"""What can be evaluated: a core store, a LangChain or LlamaIndex retriever, or any function, all as one `Retriever`.

No framework is imported: their retrievers are known by their methods.
"""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from pgrecall.errors import InvalidInput
from pgrecall.evaluation.sets import EvalQuery
from pgrecall.filters import Filter
from pgrecall.operations import evaluation as ops
from pgrecall.operations.embedding import Embed
from pgrecall.stores.vectors import PostgresVectorStore

#: What the judgements name: documents, or chunks.
By: TypeAlias = Literal["chunk", "document"]


@dataclass(frozen=True, slots=True)
class Retrieved:
    """One row of an answer. `id` is what judgements name, `tenant` whose it is, where known; `text` is not kept."""

    id: str
    score: float | None = None
    chunk_id: str | None = None
    tenant: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a retriever gave, best first, and the milliseconds that each step took."""

    rows: tuple[Retrieved, ...]
    latency: Mapping[str, float] = field(default_factory=dict)


class Retriever(Protocol):
    """Answers a query with up to `k` rows."""

    @property
    def config(self) -> dict[str, Any]:
        """What decides its answers, as JSON: adapter, mode, space, settings."""
        ...

    def __call__(self, query: EvalQuery, k: int) -> Answer:
        """The answer."""
        ...

    async def acall(self, query: EvalQuery, k: int) -> Answer:
        """As the call, without blocking the event loop where the retriever has an asynchronous side."""
        ...


class _Clock:
    """Milliseconds by step, and in all."""

    def __init__(self) -> None:
        self._began = self._last = time.perf_counter()
        self.steps: dict[str, float] = {}

    def step(self, name: str) -> None:
        now = time.perf_counter()
        self.steps[name] = round((now - self._last) * 1e3, 3)
        self._last = now

    def done(self) -> dict[str, float]:
        return {**self.steps, "total": round((time.perf_counter() - self._began) * 1e3, 3)}


#: A core store, or a function from a query's tenant to one.
Stores: TypeAlias = PostgresVectorStore | Callable[[str | None], PostgresVectorStore]


@dataclass(frozen=True, slots=True)
class CoreRetriever:
    """Core stores: the text is embedded by `embed`, then searched for in `mode` with the query's filters.

    `store` is one store, or a function from a query's tenant to that tenant's. `options` go to each `query` call.
    """

    store: Stores
    embed: Embed | None = None
    mode: str = "dense"
    by: By = "chunk"
    filters: Filter | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    mmr: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.embed is None and self.mode != "sparse":
            raise InvalidInput(f"mode {self.mode!r} needs embed=, the function that embeds a question")

    def _store(self, query: EvalQuery) -> PostgresVectorStore:
        return self.store if isinstance(self.store, PostgresVectorStore) else self.store(query.tenant)

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
        # A single store holds what it holds, whatever tenants its questions were written for.
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
        """The answer."""
        clock, store, vector = _Clock(), self._store(query), None
        if self.embed is not None and self.mode != "sparse":
            vector = np.asarray(self.embed([query.text]))[0]
            clock.step("embed")
        name, arguments = self._call(query, k, vector)
        hits = getattr(store, name)(**arguments)
        clock.step("search")
        return Answer(self._rows(hits, store), clock.done())

    async def acall(self, query: EvalQuery, k: int) -> Answer:
        """The answer."""
        clock, store, vector = _Clock(), self._store(query), None
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
        """Adapter, mode, filter, options; of a single store also its collection, space, fingerprint, row counts."""
        made: dict[str, Any] = {
            "adapter": "pgrecall",
            "mode": "mmr" if self.mmr is not None else self.mode,
            "by": self.by,
            "filter": None if self.filters is None else repr(self.filters),
            "options": {name: _plain(value) for name, value in {**self.options, **(self.mmr or {})}.items()},
        }
        return made | (described(self.store) if isinstance(self.store, PostgresVectorStore) else {})


def described(store: PostgresVectorStore) -> dict[str, Any]:
    """A store's tenant and collection, its space, the hash of its fingerprint, and how many rows it has."""
    from pgrecall.operations import registry

    def work(gate: Any) -> dict[str, Any]:
        place = store._place(gate)
        held = registry.find_collection(gate, place)
        made: dict[str, Any] = {"tenant": store.tenant_id, "collection": store.collection}
        if held is not None:
            printed = None if held.fingerprint is None else np.asarray(held.fingerprint, dtype=np.float32).tobytes()
            made |= {
                "space": asdict(held.space),
                "fingerprint": None if printed is None else hashlib.sha256(printed).hexdigest(),
                "text_config": held.text_config,
                "rows": ops.row_counts(gate, place.scope, store.collection),
            }
        return made

    return store._run(work)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


@dataclass(frozen=True, slots=True)
class FunctionRetriever:
    """Any function of a question's text and k (sync or async), or a framework's retriever behind one.

    It gives ids, pairs of id and score, mappings with ``id`` and ``score``, or a framework's documents or nodes.
    """

    call: Callable[[EvalQuery, int], Any]
    acalled: Callable[[EvalQuery, int], Any] | None
    adapter: str
    by: By = "chunk"

    @property
    def config(self) -> dict[str, Any]:
        """Which adapter it is."""
        return {"adapter": self.adapter, "by": self.by}

    def __call__(self, query: EvalQuery, k: int) -> Answer:
        """The answer."""
        clock = _Clock()
        found = self.call(query, k)
        if inspect.isawaitable(found):
            if inspect.iscoroutine(found):
                found.close()
            raise InvalidInput("the retriever is asynchronous; call aevaluate")
        return Answer(tuple(_row(item, self.by) for item in _listed(found)[:k]), clock.done())

    async def acall(self, query: EvalQuery, k: int) -> Answer:
        """The answer."""
        clock = _Clock()
        found = (self.acalled or self.call)(query, k)
        if inspect.isawaitable(found):
            found = await found
        return Answer(tuple(_row(item, self.by) for item in _listed(found)[:k]), clock.done())


def _listed(found: Any) -> list[Any]:
    if found is None or isinstance(found, str | bytes | Mapping) or not isinstance(found, Iterable):
        raise InvalidInput(f"the retriever gave {type(found).__name__} {found!r:.60}; expected a list of ids or rows")
    return list(found)


def _row(item: Any, by: By) -> Retrieved:
    """One row of whatever a retriever gives."""
    score = None
    if isinstance(item, tuple) and len(item) == 2:
        item, score = item
    if isinstance(item, str):
        return Retrieved(item, _number(score))
    if isinstance(item, Mapping):
        if "id" not in item:
            raise InvalidInput(f"a row of the retriever has {', '.join(map(str, item))}; expected 'id'")
        return Retrieved(str(item["id"]), _number(item.get("score", score)), None, item.get("tenant"), item.get("text"))
    if hasattr(item, "chunk_id"):  # a core Hit
        document = item.doc_id if by == "document" else None
        return Retrieved(document or item.chunk_id, _number(item.score), item.chunk_id, None, item.text)
    node = getattr(item, "node", item)
    if hasattr(node, "node_id"):  # LlamaIndex: a NodeWithScore, or a node
        document = getattr(node, "ref_doc_id", None) if by == "document" else None
        text = getattr(node, "text", None)
        return Retrieved(document or node.node_id, _number(getattr(item, "score", score)), node.node_id, None, text)
    if hasattr(item, "page_content"):  # LangChain
        metadata = item.metadata or {}
        wanted = metadata.get("doc_id") if by == "document" else None
        wanted = wanted or item.id or metadata.get("id")
        if wanted is None:
            raise InvalidInput(
                "a document of the retriever has no id; judgements name ids, so texts alone can't be scored"
            )
        return Retrieved(str(wanted), _number(metadata.get("score", score)), item.id, None, item.page_content)
    raise InvalidInput(
        f"a row of the retriever is {type(item).__name__}; expected an id, (id, score) or a row with an id"
    )


def _number(score: Any) -> float | None:
    return None if score is None else float(score)


def parsed(filters: Mapping[str, Any] | None) -> Filter | None:
    """A query's filter, from its JSON form."""
    if filters is None:
        return None
    from pgrecall.filters.parse import parse

    return parse(filters)


def _framework(made: Any, query: EvalQuery, k: int, *, is_async: bool) -> Any:
    """Ask a framework's retriever; what comes back is its own rows, or an awaitable of them."""
    if hasattr(made, "invoke"):
        return (made.ainvoke if is_async else made.invoke)(query.text)
    return (made.aretrieve if is_async else made.retrieve)(query.text)


def adapt(
    retriever: Any,
    *,
    embed: Embed | None = None,
    mode: str = "dense",
    by: By = "chunk",
    filters: Filter | None = None,
    mmr: Mapping[str, Any] | None = None,
    **options: Any,
) -> Retriever:
    """Make a `Retriever` of a core store, a LangChain or LlamaIndex retriever, or a function.

    A function takes the question's text, the text and k, or, by the names of its parameters, any of ``text``, ``k``,
    ``query`` (the EvalQuery) and ``tenant``. `per_query` binds frameworks' retrievers to a query's tenant and filters.
    `embed`, `mode`, `filters`, `mmr` and `options` are for core stores. Raises InvalidInput.
    """
    if by not in ("chunk", "document"):
        raise InvalidInput(f"by is {by!r:.40}; expected 'chunk' or 'document'")
    if isinstance(retriever, PostgresVectorStore):
        return CoreRetriever(retriever, embed, mode, by, filters, options, mmr)
    if all(hasattr(retriever, name) for name in ("acall", "config")) and callable(retriever):
        return retriever  # type: ignore[no-any-return]
    if options or embed is not None or filters is not None or mmr is not None or mode != "dense":
        raise InvalidInput(
            "embed, mode, filters, mmr and options are for core stores; bind them to this retriever when it is made"
        )
    for name, adapter in (("invoke", "langchain"), ("retrieve", "llama_index")):
        if hasattr(retriever, name):
            return per_query(lambda _query, _k: retriever, adapter=adapter, by=by)
    if not callable(retriever):
        raise InvalidInput(
            f"the retriever is {type(retriever).__name__}; expected a store, a LangChain or LlamaIndex retriever, "
            "or a function"
        )
    call = _by_names(retriever)
    return FunctionRetriever(call, call, "function", by)


def _by_names(function: Callable[..., Any]) -> Callable[[EvalQuery, int], Any]:
    try:
        names = [n for n, p in inspect.signature(function).parameters.items() if p.kind is not p.VAR_KEYWORD]
    except (TypeError, ValueError):
        names = []
    known = {"text", "k", "query", "tenant"}
    if names and set(names) <= known:
        return lambda q, k: function(
            **{n: v for n, v in {"text": q.text, "k": k, "query": q, "tenant": q.tenant}.items() if n in names}
        )
    return (lambda q, k: function(q.text, k)) if len(names) > 1 else (lambda q, _k: function(q.text))


def per_query(make: Callable[[EvalQuery, int], Any], *, adapter: str = "framework", by: By = "chunk") -> Retriever:
    """A retriever made for each query: `make(query, k)` gives a LangChain or LlamaIndex retriever.

    For tenants, filters and depths that a framework's retriever takes when it is made:
    ``per_query(lambda query, k: stores[query.tenant].as_retriever(search_kwargs={"k": k}))``.
    """
    return FunctionRetriever(
        lambda query, k: _framework(make(query, k), query, k, is_async=False),
        lambda query, k: _framework(make(query, k), query, k, is_async=True),
        adapter,
        by,
    )
