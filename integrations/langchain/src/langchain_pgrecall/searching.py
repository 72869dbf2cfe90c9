"""How a store is searched: by text, by vector, nearest or diverse, with distances or relevance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever

from langchain_pgrecall import peers
from langchain_pgrecall.filters import FilterLike, to_filter
from pgrecall import EmbedModel, EmbedSpace, Hit, PostgresVectorStore
from pgrecall.steps import Steps, call, faces
from pgrecall.types import Distance


class Searches(VectorStore):
    """The searches of `PGRecallVectorStore`, which sets what is declared here."""

    _embedding: Embeddings
    _space: EmbedSpace | EmbedModel
    _store: PostgresVectorStore

    @property
    def tenant(self) -> str:
        """The tenant that the store is bound to."""
        return self._store.tenant_id

    def _embed_query(self, query: str) -> Steps[list[float]]:
        vector: list[float] = yield call(self._embedding, "embed_query", query)
        return vector

    def _hits(
        self, embedding: Sequence[float], k: int | None, filter: FilterLike, kwargs: dict[str, Any]
    ) -> Steps[list[Hit]]:
        peers.refuse(kwargs, self.tenant)
        hits: list[Hit] = yield call(self._store, "query", embedding, 4 if k is None else k, to_filter(filter))
        return hits

    def _similarity_search_with_score_by_vector(
        self, /, embedding: list[float], k: int | None = 4, filter: FilterLike = None, **kwargs: Any
    ) -> Steps[list[tuple[Document, float]]]:
        """The `k` nearest documents with their distances, nearest first, of those that match `filter`."""
        hits = yield from self._hits(embedding, k, filter, kwargs)
        return [(_document(hit), hit.distance) for hit in hits if hit.distance is not None]  # which all have

    similarity_search_with_score_by_vector, asimilarity_search_with_score_by_vector = faces(
        _similarity_search_with_score_by_vector
    )

    def _similarity_search_by_vector(
        self, /, embedding: list[float], k: int | None = 4, filter: FilterLike = None, **kwargs: Any
    ) -> Steps[list[Document]]:
        """The `k` documents nearest to a vector, nearest first, of those that match `filter`."""
        hits = yield from self._hits(embedding, k, filter, kwargs)
        return [_document(hit) for hit in hits]

    similarity_search_by_vector, asimilarity_search_by_vector = faces(_similarity_search_by_vector)

    def _similarity_search_with_score(
        self, /, query: str, k: int | None = 4, filter: FilterLike = None, **kwargs: Any
    ) -> Steps[list[tuple[Document, float]]]:
        """The `k` documents nearest to a text with their distances, nearest first, of those that match `filter`."""
        vector = yield from self._embed_query(query)
        return (yield from self._similarity_search_with_score_by_vector(vector, k, filter, **kwargs))

    similarity_search_with_score, asimilarity_search_with_score = faces(_similarity_search_with_score)

    def _similarity_search(
        self, /, query: str, k: int | None = 4, filter: FilterLike = None, **kwargs: Any
    ) -> Steps[list[Document]]:
        """The `k` documents nearest to a text, nearest first, of those that match `filter`."""
        vector = yield from self._embed_query(query)
        return (yield from self._similarity_search_by_vector(vector, k, filter, **kwargs))

    similarity_search, asimilarity_search = faces(_similarity_search)

    def _max_marginal_relevance_search_with_score_by_vector(
        self,
        /,
        embedding: list[float],
        k: int | None = 4,
        fetch_k: int | None = 20,
        lambda_mult: float | None = 0.5,
        filter: FilterLike = None,
        **kwargs: Any,
    ) -> Steps[list[tuple[Document, float]]]:
        """`k` documents near a vector and unlike each other, of the `fetch_k` nearest (at least `k`), with distances.

        `lambda_mult` is from 0, as unlike as can be, to 1, the nearest.
        """
        peers.refuse(kwargs, self.tenant)
        options = {"fetch_k": fetch_k, "lambda_mult": 0.5 if lambda_mult is None else lambda_mult}
        top_k = 4 if k is None else k
        hits = yield call(self._store, "query_mmr", embedding, top_k, to_filter(filter), **options)
        return [(_document(hit), hit.distance) for hit in hits if hit.distance is not None]  # which all have

    max_marginal_relevance_search_with_score_by_vector, amax_marginal_relevance_search_with_score_by_vector = faces(
        _max_marginal_relevance_search_with_score_by_vector
    )

    def _max_marginal_relevance_search_by_vector(
        self,
        /,
        embedding: list[float],
        k: int | None = 4,
        fetch_k: int | None = 20,
        lambda_mult: float | None = 0.5,
        filter: FilterLike = None,
        **kwargs: Any,
    ) -> Steps[list[Document]]:
        """As `max_marginal_relevance_search_with_score_by_vector`, without the distances."""
        found = yield from self._max_marginal_relevance_search_with_score_by_vector(
            embedding, k, fetch_k, lambda_mult, filter, **kwargs
        )
        return [document for document, _ in found]

    max_marginal_relevance_search_by_vector, amax_marginal_relevance_search_by_vector = faces(
        _max_marginal_relevance_search_by_vector
    )

    def _max_marginal_relevance_search(
        self,
        /,
        query: str,
        k: int | None = 4,
        fetch_k: int | None = 20,
        lambda_mult: float | None = 0.5,
        filter: FilterLike = None,
        **kwargs: Any,
    ) -> Steps[list[Document]]:
        """As `max_marginal_relevance_search_with_score_by_vector`, for a text, without the distances."""
        vector = yield from self._embed_query(query)
        return (
            yield from self._max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, filter, **kwargs)
        )

    max_marginal_relevance_search, amax_marginal_relevance_search = faces(_max_marginal_relevance_search)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return _RELEVANCE[self._space.distance]

    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:
        """A retriever on this store: `search_type` "similarity", "mmr" or "similarity_score_threshold"."""
        peers.refuse_tenant({**kwargs, **kwargs.get("search_kwargs", {})}, self.tenant)
        return super().as_retriever(**kwargs)


_RELEVANCE: dict[Distance, Callable[[float], float]] = {
    "cosine": lambda distance: max(0.0, 1.0 - distance),
    "l2": lambda distance: max(0.0, 1.0 - distance / 2**0.5),
    "ip": lambda distance: min(1.0, max(0.0, -distance)),
}


def _document(hit: Hit) -> Document:
    return Document(id=hit.chunk_id, page_content=hit.text, metadata=hit.metadata)
