"""The vector store's searches: by text or vector, nearest or diverse, with distances or relevance."""

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
    """The searches of `PGRecallVectorStore`, which sets the attributes declared here."""

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
        """Search by text, by vector or by both; removes the options it knows from `options`. Returns the mode, too."""
        text = query if query is not None else options.pop("text", None)
        # A vector alone has no words to search for, whatever the store's mode is.
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
        """Return the `k` nearest documents that match `filter`, nearest first, with their distances.

        With the keywords `text` and `mode`, a hybrid search as in `similarity_search_with_score`.
        """
        found = yield from self._found(None, embedding, k, filter, kwargs)
        return [(document, _score(hit, mode)) for document, hit, mode in found]

    similarity_search_with_score_by_vector, asimilarity_search_with_score_by_vector = faces(
        _similarity_search_with_score_by_vector
    )

    def _similarity_search_by_vector(
        self, /, embedding: list[float], k: int | None = 4, filter: FilterLike = None, **kwargs: Any
    ) -> Steps[list[Document]]:
        """Return the `k` documents nearest to a vector that match `filter`, nearest first."""
        found = yield from self._found(None, embedding, k, filter, kwargs)
        return [document for document, _, _ in found]

    similarity_search_by_vector, asimilarity_search_by_vector = faces(_similarity_search_by_vector)

    def _similarity_search_with_score(
        self, /, query: str, k: int | None = 4, filter: FilterLike = None, **kwargs: Any
    ) -> Steps[list[tuple[Document, float]]]:
        """Return the `k` best documents for a text that match `filter`, best first, with scores.

        The keywords `mode` and `fusion` replace the store's own. With mode "dense" the score is the distance, lower is
        better. With "sparse" (the words of the text) and "hybrid" (both rankings, combined by `fusion`) it is the score
        that ranked the documents, higher is better.
        """
        found = yield from self._found(query, None, k, filter, kwargs)
        return [(document, _score(hit, mode)) for document, hit, mode in found]

    similarity_search_with_score, asimilarity_search_with_score = faces(_similarity_search_with_score)

    def _similarity_search(
        self, /, query: str, k: int | None = 4, filter: FilterLike = None, **kwargs: Any
    ) -> Steps[list[Document]]:
        """Return the `k` best documents for a text; `mode` and `fusion` as in `similarity_search_with_score`."""
        found = yield from self._found(query, None, k, filter, kwargs)
        return [document for document, _, _ in found]

    similarity_search, asimilarity_search = faces(_similarity_search)

    def _relevant(
        self, /, query: str, k: int | None = 4, filter: FilterLike = None, **kwargs: Any
    ) -> Steps[list[tuple[Document, float]]]:
        """Return documents with a relevance from 0 to 1, higher is better.

        Mode "dense" derives it from the distance. A sparse score s becomes s / (1 + s); a fused score is used as it is.
        """
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
        """Return documents that are near a vector and unlike each other, with scores.

        Args:
            embedding: The query's vector.
            k: The number of documents to return; by default 4.
            fetch_k: The number of nearest documents to choose from, at least `k`; by default 20.
            lambda_mult: From 0, as diverse as possible, to 1, the nearest; by default 0.5.
            filter: Search only documents that match.
            **kwargs: With `mode="hybrid"` and `text`, the candidates are the best of a hybrid search, by `fusion`.

        Returns:
            Documents with distances, lower is better; for mode "hybrid" with that search's scores, higher is better.

        Raises:
            InvalidInput: An argument is invalid, or a keyword unknown.
        """
        text, said = kwargs.pop("text", None), kwargs.pop("mode", None)
        if said not in (None, "dense", "hybrid"):
            raise InvalidInput(f"mode is {said!r:.40}; expected 'dense' or 'hybrid', because MMR compares vectors")
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
        """Return documents that are near a vector and unlike each other.

        Args:
            embedding: The query's vector.
            k: The number of documents to return; by default 4.
            fetch_k: The number of nearest documents to choose from, at least `k`; by default 20.
            lambda_mult: From 0, as diverse as possible, to 1, the nearest; by default 0.5.
            filter: Search only documents that match.
            **kwargs: As for `max_marginal_relevance_search_with_score_by_vector`.
        """
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
        """Return documents that are relevant to a text and unlike each other.

        Args:
            query: The text.
            k: The number of documents to return; by default 4.
            fetch_k: The number of best documents to choose from, at least `k`; by default 20.
            lambda_mult: From 0, as diverse as possible, to 1, the nearest; by default 0.5.
            filter: Search only documents that match.
            **kwargs: `mode`, "dense" or "hybrid", and `fusion`, if not the store's own.
        """
        vector: list[float] = yield call(self._embedding, "embed_query", query)
        given = {"text": query, **kwargs}
        return (
            yield from self._max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, filter, **given)
        )

    max_marginal_relevance_search, amax_marginal_relevance_search = faces(_max_marginal_relevance_search)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return _RELEVANCE[self._space.distance]

    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:
        """Return LangChain's retriever for this store.

        `search_type` is "similarity", "mmr" or "similarity_score_threshold". `search_kwargs` are the keywords of each
        search: `k`, `filter`, `fetch_k`, `score_threshold`, `mode` and so on.
        """
        peers.refuse_tenant(kwargs.get("search_kwargs") or {}, self.tenant)
        # LangChain's class ignores unknown keywords: as_retriever(k=10) would return 4 documents.
        unknown = {name: value for name, value in kwargs.items() if name not in VectorStoreRetriever.model_fields}
        peers.refuse(unknown, self.tenant, "pass keywords of the search as search_kwargs={…}")
        return super().as_retriever(**kwargs)


_RELEVANCE: dict[Distance, Callable[[float], float]] = {
    "cosine": lambda distance: max(0.0, 1.0 - distance),
    "l2": lambda distance: max(0.0, 1.0 - distance / 2**0.5),
    "ip": lambda distance: min(1.0, max(0.0, -distance)),
}


def _score(hit: Hit, mode: SearchMode) -> float:
    """Return the distance, as the peers do; for modes "sparse" and "hybrid" the score."""
    if mode != "dense":
        return hit.score
    assert hit.distance is not None
    return hit.distance
