"""Makes a `Retriever` of a core store, a LangChain or LlamaIndex retriever, or a function.

No framework is imported: their retrievers are recognised by their methods.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pgrecall.errors import InvalidInput
from pgrecall.evaluation.retrievers import Answer, By, Clock, CoreRetriever, Retrieved, Retriever
from pgrecall.evaluation.sets import EvalQuery
from pgrecall.filters import Filter
from pgrecall.operations.models.embedding import Embed
from pgrecall.stores.vectors import PostgresVectorStore


@dataclass(frozen=True, slots=True)
class FunctionRetriever:
    """Retrieves with a function of a query and k (sync or async), which may wrap a framework's retriever.

    The function returns ids, pairs of id and score, mappings with ``id`` and ``score``, or a framework's documents or
    nodes.
    """

    call: Callable[[EvalQuery, int], Any]
    acalled: Callable[[EvalQuery, int], Any] | None
    adapter: str
    by: By = "chunk"

    @property
    def config(self) -> dict[str, Any]:
        """The name of the adapter, and what judgements name."""
        return {"adapter": self.adapter, "by": self.by}

    def __call__(self, query: EvalQuery, k: int) -> Answer:
        """Answer a query. Raises InvalidInput if the function is asynchronous."""
        clock = Clock()
        found = self.call(query, k)
        if inspect.isawaitable(found):
            if inspect.iscoroutine(found):
                found.close()
            raise InvalidInput("the retriever is asynchronous, but evaluate is not; call aevaluate")
        return Answer(tuple(_row(item, self.by) for item in _listed(found, k)), clock.done())

    async def acall(self, query: EvalQuery, k: int) -> Answer:
        """Answer a query."""
        clock = Clock()
        found = (self.acalled or self.call)(query, k)
        if inspect.isawaitable(found):
            found = await found
        return Answer(tuple(_row(item, self.by) for item in _listed(found, k)), clock.done())


def _listed(found: Any, k: int) -> list[Any]:
    """The first k rows. Sets are refused: their order, and so every measure, would differ between processes."""
    if isinstance(found, str | bytes | Mapping | set | frozenset) or not isinstance(found, Iterable):
        raise InvalidInput(
            f"the retriever returned {type(found).__name__} {found!r:.50}; expected a list of ids or rows"
        )
    return list(islice(found, k))


def _row(item: Any, by: By) -> Retrieved:
    """Convert one row of any retriever."""
    score = None
    if isinstance(item, tuple) and len(item) == 2:
        item, score = item
    if isinstance(item, str):
        return Retrieved(item, _number(score))
    if isinstance(item, Mapping):
        if "id" not in item:
            raise InvalidInput(f"a row of the retriever has the keys {', '.join(map(str, item))}; expected 'id'")
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
            raise InvalidInput("a document of the retriever has no id; expected one, because judgements name ids")
        return Retrieved(str(wanted), _number(metadata.get("score", score)), item.id, None, item.page_content)
    raise InvalidInput(
        f"a row of the retriever is {type(item).__name__}; expected an id, (id, score) or a row with an id"
    )


def _number(score: Any) -> float | None:
    return None if score is None else float(score)


def _framework(made: Any, query: EvalQuery, k: int, *, is_async: bool) -> Any:
    """Ask a framework's retriever; returns its rows, or an awaitable of them."""
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

    Args:
        retriever: What to evaluate. A function takes the text, or the text and k, or any parameters named ``text``,
            ``k``, ``query`` (the EvalQuery) and ``tenant``. See `per_query` for frameworks' retrievers that depend on
            the query.
        embed: For a core store: a function from a list of texts to their vectors, sync or async. Required unless
            `mode` is "sparse".
        mode: For a core store: "dense", "sparse" or "hybrid"; by default "dense".
        by: What the judgements name: "chunk" or "document"; by default "chunk".
        filters: For a core store: a filter for every query, ANDed with the query's own.
        mmr: For a core store: arguments of `query_mmr`, which is then called instead of `query`.
        **options: For a core store: further arguments of each `query` call, such as `ef_search`.

    Raises:
        InvalidInput: The retriever is none of these, or an argument does not suit it.
    """
    if by not in ("chunk", "document"):
        raise InvalidInput(f"by is {by!r:.40}; expected 'chunk' or 'document'")
    if isinstance(retriever, PostgresVectorStore):
        return CoreRetriever(retriever, embed, mode, by, filters, options, mmr)
    if all(hasattr(retriever, name) for name in ("acall", "config")) and callable(retriever):
        return retriever  # type: ignore[no-any-return]
    if options or embed is not None or filters is not None or mmr is not None or mode != "dense":
        raise InvalidInput(
            "embed, mode, filters, mmr and options are only for core stores; set them when you make this retriever"
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
    """Make a LangChain or LlamaIndex retriever for each query, by `make(query, k)`.

    Use it for tenants, filters and depths, which a framework's retriever takes when it is made:
    ``per_query(lambda query, k: stores[query.tenant].as_retriever(search_kwargs={"k": k}))``.
    """
    return FunctionRetriever(
        lambda query, k: _framework(make(query, k), query, k, is_async=False),
        lambda query, k: _framework(make(query, k), query, k, is_async=True),
        adapter,
        by,
    )
