"""How a vector store is searched: by a vector, by words, by both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from pgrecall.arguments import fraction, one_of, whole_number
from pgrecall.errors import InvalidInput
from pgrecall.filters import Filter
from pgrecall.hits import Fusion, Hits, ReciprocalRank, SearchMode, Weighted
from pgrecall.operations.chunks import reads as chunk_reads
from pgrecall.operations.models.embedding import ModelInUse
from pgrecall.operations.registry import Place
from pgrecall.operations.runs import evidence
from pgrecall.operations.runs.verbs import RunPlace
from pgrecall.operations.search import tune
from pgrecall.operations.search.answer import Explain, Search, answer
from pgrecall.operations.search.shapes import DEPTH, diverse, search
from pgrecall.postgres.transactions import Gate
from pgrecall.stores.backend import Backend
from pgrecall.stores.twins import Work, twins
from pgrecall.types import Vector


class VectorSearch:
    """The searches of a `PostgresVectorStore`."""

    if TYPE_CHECKING:  # of the store
        _backend: Backend
        _model: ModelInUse
        _run_id: str | None
        _create_tenants: bool

        def _run(self, work: Work[Any]) -> Any: ...
        async def _arun(self, work: Work[Any]) -> Any: ...
        def _place(self, gate: Gate) -> Place: ...

    def _query(
        self,
        vector: Vector | None = None,
        top_k: int = 10,
        filters: Filter | None = None,
        *,
        text: str | None = None,
        mode: SearchMode | None = None,
        fusion: Fusion | None = None,
        fetch_k: int | None = None,
        sparse_k: int | None = None,
        ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
        exact: bool = False,
        ef_search: int | None = None,
        explain: Explain = False,
    ) -> Work[Hits]:
        """Search the collection; returns the `top_k` best chunks, best first. Ties are ordered by id.

        A collection that does not exist yet has no chunks. A large collection is searched by its graph, which may miss
        a few of the nearest chunks; a small one is always scanned.

        Args:
            vector: The query's vector, of the space's length. Mode "sparse" ignores it.
            top_k: The number of chunks to return.
            filters: Search only chunks whose metadata matches.
            text: The words to search for. Words and "quoted phrases" are OR-ed; `-word` and -"a phrase" exclude. Any
                input is accepted; the first 4,000 characters and 64 words count. A text of stop words or exclusions
                only finds nothing. Words need full text, see `Tenant.set_text_config`. Mode "dense" ignores it.
            mode: "dense" ranks by the distance to `vector`, "sparse" by the words of `text`, "hybrid" by both. The
                default follows from what is given: a vector alone, a text alone, or both.
            fusion: How a hybrid search combines the two rankings: `Weighted()`, the default, or `ReciprocalRank()`.
            fetch_k: The number of chunks that each leg of a hybrid search contributes; by default `2 * top_k`, at
                least 50.
            sparse_k: The same for the words' leg alone; by default `fetch_k`.
            ids: Search only these chunks.
            doc_ids: Search only chunks of these documents.
            exact: Scan the collection instead of using its graph, at about 1 µs per chunk. Recall is measured against
                this.
            ef_search: The number of candidates that a search of the graph keeps, from 1 to 1,000. More candidates
                find more and take longer. The default is the value that `Tenant.tune` or `Tenant.set_ef_search`
                stored for the collection, otherwise 1% of its rows as maintenance last counted them, at least 100 and
                at most 600. A filter doubles the default, up to 1,000. It is never below twice the number of
                chunks that are fetched (`top_k`; in a hybrid or MMR search `fetch_k`).
            explain: Attach an `explanation` of how the search was answered; "plan" also runs the statement again under
                EXPLAIN ANALYZE.

        Returns:
            A list of `Hit`, with the attribute `explanation`.

        Raises:
            InvalidInput: An argument is missing or malformed.
            InvalidEmbedding: The vector has the wrong length, or is not finite.
            FilterError: `filters` is malformed.
            EmbedSpaceMismatch: The collection belongs to another model.
            ConfigurationError: The mode needs full text, which the collection does not keep for all of its chunks.
            Unavailable: The database cannot be reached.
        """
        where, values = chunk_reads.condition(filters, ids, doc_ids)
        top_k = whole_number(top_k, "top_k", 1)
        _check_explain(explain)
        if mode is None:
            mode = "dense" if text is None else "sparse" if vector is None else "hybrid"
        asked = _asked(vector, text, mode, fusion)
        depth = _depth(fetch_k, "fetch_k", max(DEPTH, 2 * top_k))
        asked |= {"dense_k": depth, "sparse_k": _depth(sparse_k, "sparse_k", depth)} | _shape(exact, ef_search)
        return self._answered(Search({"top_k": top_k, "where": where, "values": values, **asked}, search, explain))

    query, aquery = twins(_query)

    def _query_mmr(
        self,
        vector: Vector,
        top_k: int = 10,
        filters: Filter | None = None,
        *,
        fetch_k: int | None = None,
        lambda_mult: float = 0.5,
        text: str | None = None,
        fusion: Fusion | None = None,
        ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
        exact: bool = False,
        ef_search: int | None = None,
        explain: Explain = False,
    ) -> Work[Hits]:
        """Search for chunks that are near the vector and unlike each other, by maximal marginal relevance.

        Args:
            vector: The query's vector, of the space's length.
            top_k: The number of chunks to return.
            filters: Search only chunks whose metadata matches.
            fetch_k: The number of candidates to choose from; by default `4 * top_k`, at least 20.
            lambda_mult: From 0, as diverse as possible, to 1, the nearest to the vector.
            text: With a text, the candidates are those of a hybrid search, see `query`.
            fusion: How the hybrid search combines its two rankings; by default `Weighted()`.
            ids: Search only these chunks.
            doc_ids: Search only chunks of these documents.
            exact: As for `query`.
            ef_search: As for `query`.
            explain: As for `query`.

        Returns:
            A list of `Hit` in the order in which they were chosen, with the attribute `explanation`.

        Raises:
            InvalidInput: An argument is missing or malformed.
            InvalidEmbedding: The vector has the wrong length, or is not finite.
            FilterError: `filters` is malformed.
            EmbedSpaceMismatch: The collection belongs to another model.
            ConfigurationError: `text` needs full text, which the collection does not keep for all of its chunks.
            Unavailable: The database cannot be reached.
        """
        where, values = chunk_reads.condition(filters, ids, doc_ids)
        top_k = whole_number(top_k, "top_k", 1)
        _check_explain(explain)
        lambda_mult = fraction(lambda_mult, "lambda_mult")
        fetch_k = max(top_k, _depth(fetch_k, "fetch_k", max(20, 4 * top_k)))
        asked = _asked(vector, text, "dense" if text is None else "hybrid", fusion)
        asked |= _shape(exact, ef_search)
        asked |= {"top_k": fetch_k, "where": where, "values": values, "dense_k": fetch_k, "sparse_k": fetch_k}
        pick = (top_k, lambda_mult)
        return self._answered(Search(asked, partial(diverse, k=pick[0], lambda_mult=pick[1]), explain, pick))

    query_mmr, aquery_mmr = twins(_query_mmr)

    def _answered(self, search: Search) -> Work[Hits]:
        run_id, asked = self._run_id, search.asked

        def work(gate: Gate) -> Hits:
            backend, place, model = self._backend, self._place(gate), self._model
            hits = answer(gate, place, search, model=model, space_ids=backend.space_ids, routes=backend.routes)
            if run_id is not None:
                query = evidence.asked(asked["vector"] if asked["mode"] == "dense" else asked["text"])
                run, space = RunPlace(place.scope, self._create_tenants), model.collection_space(gate, place)
                evidence.record(gate, run, run_id, query, hits, collection=place.collection, space=space)
            return hits

        return work


def _check_explain(explain: object) -> None:
    if explain not in (True, False, "plan"):
        raise InvalidInput(f"explain is {explain!r:.40}; expected True, False or 'plan'")


def _asked(vector: Vector | None, text: str | None, mode: SearchMode, fusion: Fusion | None) -> dict[str, Any]:
    one_of(mode, get_args(SearchMode), "mode")
    if vector is None and mode != "sparse":
        raise InvalidInput(
            f"mode {mode!r} needs a vector, but none was given; pass vector=, or a text with mode 'sparse'"
        )
    if text is None and mode != "dense":
        raise InvalidInput(f"mode {mode!r} needs a text, but none was given; pass text=, or search with mode 'dense'")
    if text is not None and not isinstance(text, str):
        raise InvalidInput(f"the text to search for is {type(text).__name__}; expected a string")
    if fusion is not None and not isinstance(fusion, Weighted | ReciprocalRank):
        raise InvalidInput(f"fusion is {fusion!r:.40}; expected pgrecall.Weighted() or pgrecall.ReciprocalRank()")
    return {"vector": vector, "text": text or "", "mode": mode, "fusion": fusion or Weighted()}


def _shape(exact: bool, ef_search: int | None) -> dict[str, Any]:
    if not isinstance(exact, bool):
        raise InvalidInput(f"exact is {exact!r:.40}; expected True or False")
    if ef_search is not None:
        if exact:
            raise InvalidInput("exact and ef_search were both given, but exact searches use no graph; pass one of them")
        ef_search = tune.checked(ef_search)
    return {"exact": exact, "ef_search": ef_search}


def _depth(value: int | None, what: str, otherwise: int) -> int:
    return otherwise if value is None else whole_number(value, what, 1)
