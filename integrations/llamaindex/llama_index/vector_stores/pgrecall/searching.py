"""LlamaIndex's queries as searches of the core. Unknown modes and keywords are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from pgrecall import Filter, InvalidInput, Weighted

#: Hints to the peers' indexes. They do not change what is searched for, and the core chooses by itself.
_HINTS = ("hnsw_ef_search", "ivfflat_probes")
_MMR = ("mmr_threshold", "mmr_prefetch_factor", "mmr_prefetch_k")


@dataclass(frozen=True, slots=True)
class Asked:
    """A query as a method of the core's store, with its arguments."""

    verb: str
    arguments: dict[str, Any]

    @classmethod
    def of(
        cls,
        query: VectorStoreQuery,
        kwargs: Mapping[str, Any],
        filters: Filter | None,
        doc_ids: Sequence[str] | None,
    ) -> Self:
        """Translate a query. Raises InvalidInput for an unknown mode, or if the query lacks what the mode needs."""
        unknown = [name for name in kwargs if name not in (*_HINTS, *_MMR)]
        if unknown:
            raise TypeError(f"query() got an unexpected keyword argument {unknown[0]!r}")
        top_k, mode = query.similarity_top_k, query.mode
        arguments: dict[str, Any] = {"top_k": top_k, "filters": filters, "doc_ids": doc_ids}
        if mode in (VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.TEXT_SEARCH):
            if query.sparse_top_k is not None:
                arguments["top_k"] = query.sparse_top_k
            return cls("query", {"text": _words(query), "mode": "sparse", **arguments})
        if mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.MMR):
            raise InvalidInput(
                f"query mode {getattr(mode, 'value', mode)!r} is not supported; expected 'default', 'sparse', "
                "'text_search', 'hybrid' or 'mmr'"
            )
        if query.query_embedding is None:
            raise InvalidInput(f"the query has no embedding; mode {mode.value!r} needs one: pass query_embedding")
        arguments["vector"] = query.query_embedding
        if mode == VectorStoreQueryMode.HYBRID:
            if query.alpha is not None:
                arguments["fusion"] = Weighted(query.alpha)
            if query.hybrid_top_k is not None:  # then similarity_top_k is for the vectors' leg alone
                arguments |= {"top_k": query.hybrid_top_k, "fetch_k": top_k}
            return cls("query", {"text": _words(query), "mode": "hybrid", "sparse_k": query.sparse_top_k, **arguments})
        if mode == VectorStoreQueryMode.MMR:
            return cls("query_mmr", arguments | _diversity(query, kwargs))
        return cls("query", arguments)

    def only(self, ids: Sequence[str] | None) -> Self:
        """Return the same search, restricted to these chunks."""
        return replace(self, arguments={**self.arguments, "ids": ids})


def _words(query: VectorStoreQuery) -> str:
    if query.query_str is None:
        raise InvalidInput(f"the query has no text; mode {query.mode.value!r} needs one: pass query_str")
    return query.query_str


def _diversity(query: VectorStoreQuery, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    threshold = query.mmr_threshold if query.mmr_threshold is not None else kwargs.get("mmr_threshold")
    factor, prefetch = kwargs.get("mmr_prefetch_factor"), kwargs.get("mmr_prefetch_k")
    if factor is not None and prefetch is not None:
        raise InvalidInput("mmr_prefetch_factor and mmr_prefetch_k were both given; pass only one of them")
    arguments: dict[str, Any] = {} if threshold is None else {"lambda_mult": threshold}
    if factor is not None:
        prefetch = int(query.similarity_top_k * factor)
    if prefetch is not None:
        arguments["fetch_k"] = prefetch
    return arguments
