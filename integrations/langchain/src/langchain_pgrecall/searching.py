"""How a store is searched: by text, by vector, nearest or diverse, with distances or relevance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever

from langchain_pgrecall import peers
from langchain_pgrecall.documents import from_hit
from langchain_pgrecall.filters import FilterLike, to_filter
from pgrecall import Distance, EmbedModel, EmbedSpace, Fusion, Hit, InvalidInput, PostgresVectorStore, SearchMode
from pgrecall.steps import Steps, call, faces


class Searches(VectorStore):
    """The searches of `PGRecallVectorStore`, which sets what is declared here."""

    _embedding: Embeddings
    _space: EmbedSpace | EmbedModel
    _store: PostgresVectorStore
    _mode: SearchMode
    _fusion: Fusion | None

    @property
    def tenant(self) -> str:
        """The tenant that the store is bound to."""
        return self._store.tenant_id

    def _found(
        self,
        query: str | None,
        embedding: Sequence[float] | None,
        k: int | None,
        filter: FilterLike,
        options: dict[str, Any],
    ) -> Steps[list[tuple[Document, Hit, SearchMode]]]:
        """What a search by text, by vector or by both gives, and how; takes what it knows out of `options`."""
        text = query if query is not None else options.pop("text", None)
        # By a vector alone there are no words to look for, whatever the store's own mode is.
        mode: SearchMode = options.pop("mode", None) or (self._mode if text is not None else "dense")
        fusion = options.pop("fusion", None) or self._fusion
        peers.refuse(options, self.tenant)
        if embedding is None and mode != "sparse":
            embedding = yield call(self._embedding, "embed_query", query)
        words = None if mode == "dense" else text
        asked = {"text": words, "mode": mode, "fusion": fusion}
        hits: list[Hit] = yield call(self._store, "query", embedding, 4 if k is None else k, to_filter(filter), **asked)
        return [(from_hit(hit), hit, mode) for hit in hits]

    def _similarity_search_with_score_by_vector(
        self, /, embedding: list[float], k: int | None = 4, filter: FilterLike = None, **kwargs: Any
    ) -> Steps[list[tuple[Document, float]]]:
        """The `k` nearest documents with their distances, nearest first, of those that match `filter`.

        With `text` and a `mode` as `similarity_search_with_score`.
        """
        found = yield from self._found(None, embedding, k, filter, kwargs)
        return [(document, _score(hit, mode)) for document, hit, mode in found]

    similarity_search_with_score_by_vector, asimilarity_search_with_score_by_vector = faces(
        _similarity_search_with_score_by_vector
    )

    def _similarity_search_by_vector(
        self, /, embedding: list[float], k: int | None = 4, filter: FilterLike = None, **kwargs: Any
    ) -> Steps[list[Document]]:
        """The `k` documents nearest to a vector, nearest first, of those that match `filter`."""
        found = yield from self._found(None, embedding, k, filter, kwargs)
        return [document for document, _, _ in found]

    similarity_search_by_vector, asimilarity_search_by_vector = faces(_similarity_search_by_vector)

    def _similarity_search_with_score(
        self, /, query: str, k: int | None = 4, filter: FilterLike = None, **kwargs: Any
    ) -> Steps[list[tuple[Document, float]]]:
        """The `k` best documents for a text with their distances, best first, of those that match `filter`.

        `mode` is the store's unless it is said: "dense", the nearest; "sparse", those with the text's words; "hybrid",
        by both, fused by `fusion`. For the latter two the number is the score they were ranked by, higher is better.
        """
        found = yield from self._found(query, None, k, filter, kwargs)
        return [(document, _score(hit, mode)) for document, hit, mode in found]

    similarity_search_with_score, asimilarity_search_with_score = faces(_similarity_search_with_score)

    def _similarity_search(
        self, /, query: str, k: int | None = 4, filter: FilterLike = None, **kwargs: Any
    ) -> Steps[list[Document]]:
        """The `k` best documents for a text, best first; `mode` and `fusion` as `similarity_search_with_score`."""
        found = yield from self._found(query, None, k, filter, kwargs)
        return [document for document, _, _ in found]

    similarity_search, asimilarity_search = faces(_similarity_search)

    def _relevant(
        self, /, query: str, k: int | None = 4, filter: FilterLike = None, **kwargs: Any
    ) -> Steps[list[tuple[Document, float]]]:
        """Documents with their relevance, 0 to 1: by the distance; of words, s / (1 + s) of the score s; fused, s."""
        found = yield from self._found(query, None, k, filter, kwargs)
        return [(document, self._relevance(hit, mode)) for document, hit, mode in found]

    _similarity_search_with_relevance_scores, _asimilarity_search_with_relevance_scores = faces(_relevant)

    def _relevance(self, hit: Hit, mode: SearchMode) -> float:
        if mode == "dense":
            assert hit.distance is not None
            return self._select_relevance_score_fn()(hit.distance)
        return hit.score / (1.0 + hit.score) if mode == "sparse" else min(1.0, max(0.0, hit.score))

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

        `lambda_mult` is from 0, as unlike as can be, to 1, the nearest. With `mode="hybrid"` and a `text` they are of
        the `fetch_k` best by both, and the number is the score of that search, higher is better.
        """
        text, said = kwargs.pop("text", None), kwargs.pop("mode", None)
        if said not in (None, "dense", "hybrid"):
            raise InvalidInput(f"mode is {said!r:.40}; unlike documents are sought near a vector: 'dense' or 'hybrid'")
        mode: SearchMode = said or ("hybrid" if text is not None and self._mode != "dense" else "dense")
        options: dict[str, Any] = {"fetch_k": fetch_k, "lambda_mult": 0.5 if lambda_mult is None else lambda_mult}
        if mode != "dense":
            options |= {"text": text, "fusion": kwargs.pop("fusion", None) or self._fusion}
        peers.refuse(kwargs, self.tenant)
        top_k = 4 if k is None else k
        hits: list[Hit] = yield call(self._store, "query_mmr", embedding, top_k, to_filter(filter), **options)
        return [(from_hit(hit), _score(hit, mode)) for hit in hits]

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
        vector: list[float] = yield call(self._embedding, "embed_query", query)
        given = {"text": query, **kwargs}
        return (
            yield from self._max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, filter, **given)
        )

    max_marginal_relevance_search, amax_marginal_relevance_search = faces(_max_marginal_relevance_search)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return _RELEVANCE[self._space.distance]

    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:
        """A retriever on this store: `search_type` "similarity", "mmr" or "similarity_score_threshold".

        What holds for each search (k, filter, fetch_k, score_threshold, mode, …) is said in `search_kwargs`.
        """
        peers.refuse_tenant(kwargs.get("search_kwargs") or {}, self.tenant)
        # LangChain's class leaves out what it does not know: as_retriever(k=10) would go on with 4.
        unknown = {name: value for name, value in kwargs.items() if name not in VectorStoreRetriever.model_fields}
        peers.refuse(unknown, self.tenant, "pass what is the search's own in search_kwargs={…}")
        return super().as_retriever(**kwargs)


_RELEVANCE: dict[Distance, Callable[[float], float]] = {
    "cosine": lambda distance: max(0.0, 1.0 - distance),
    "l2": lambda distance: max(0.0, 1.0 - distance / 2**0.5),
    "ip": lambda distance: min(1.0, max(0.0, -distance)),
}


def _score(hit: Hit, mode: SearchMode) -> float:
    """A distance, lower is better, as the peers give it; for words and both, what the hit was ranked by."""
    if mode != "dense":
        return hit.score
    assert hit.distance is not None
    return hit.distance
