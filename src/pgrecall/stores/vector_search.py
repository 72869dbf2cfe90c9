"""How a vector store is searched: by a vector, by words, by both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pgrecall.errors import EmbedSpaceMismatch, InvalidEmbedding, InvalidInput
from pgrecall.filters import Filter
from pgrecall.hits import Fusion, Hits, Mode, ReciprocalRank, SearchStep, Weighted
from pgrecall.operations import registry
from pgrecall.operations.chunks import reads as chunk_ops
from pgrecall.operations.chunks.keys import narrowed
from pgrecall.operations.models.embedding import ModelInUse
from pgrecall.operations.registry import Place
from pgrecall.operations.search import tune as breadth
from pgrecall.operations.search.explain import Watched
from pgrecall.operations.search.routes import UNKNOWN, Large
from pgrecall.operations.search.shapes import DEPTH, Query, diverse, explained, search
from pgrecall.postgres.transactions import Gate
from pgrecall.stores.twins import Work, twins
from pgrecall.types import EmbedSpace, Vector

if TYPE_CHECKING:
    from pgrecall.stores.database import Database

#: Whether, and how far, a search says how it was answered.
Explain: TypeAlias = bool | Literal["plan"]


class Searching:
    """The searches of a `PostgresVectorStore`."""

    if TYPE_CHECKING:  # what the store gives
        _database: Database

        def _run(self, work: Work[Any]) -> Any: ...
        async def _arun(self, work: Work[Any]) -> Any: ...
        def _place(self, gate: Gate) -> Place: ...

        _model: ModelInUse

        def _known_space(self, gate: Gate, place: Place, *, afresh: bool = False) -> EmbedSpace | None: ...

    def _query(
        self,
        vector: Vector | None = None,
        top_k: int = 10,
        filters: Filter | None = None,
        *,
        text: str | None = None,
        mode: Mode | None = None,
        fusion: Fusion | None = None,
        fetch_k: int | None = None,
        sparse_k: int | None = None,
        ids: Sequence[str] | None = None,
        doc_ids: Sequence[str] | None = None,
        exact: bool = False,
        ef_search: int | None = None,
        explain: Explain = False,
    ) -> Work[Hits]:
        """The `top_k` best chunks, best first, of those that match `filters`, `ids` and `doc_ids`; ties by id.

        `mode` says what is looked for: "dense", the nearest to `vector` (of the space's length), which is the default
        for a vector alone; "sparse", the words of `text`, the default for a text alone; "hybrid", both, fused by
        `fusion` (`Weighted()`, or `ReciprocalRank()`), the default where both are given. What a mode does not need
        is not looked at. Each leg of a hybrid search gives `fetch_k` chunks to be fused (the larger of 50 and twice
        `top_k` where left out), the words' leg `sparse_k` where that is given.

        In a text, words are alternatives, and "a phrase" is one; -word and -"a phrase" exclude; all else is
        punctuation. Its first 4,000 characters and 64 words count. Stop words alone, or exclusions alone, find nothing.
        Words need full text: see `Tenant.set_text_config`.

        A large collection is searched by its graph, which may miss a few of the nearest. `exact` scans it instead,
        about 1 µs a chunk: what recall is measured against. `ef_search`, from 1 to 1,000, is how many candidates a
        search of the graph keeps (100 where left out, twice `top_k` if that is more): more find more, and take longer.
        Small collections are always scanned.

        A collection that does not exist yet has no chunks. With `explain` the result's `explanation` tells how it was
        answered; "plan" runs the statement again under EXPLAIN ANALYZE.

        Raises: InvalidInput, InvalidEmbedding, FilterError, EmbedSpaceMismatch, Unavailable; ConfigurationError where
        words are looked for and the collection keeps no full text, or not yet of all chunks.
        """
        where, values = chunk_ops.condition(filters, ids, doc_ids)
        top_k = chunk_ops.whole_number(top_k, "top_k", 1)
        _check_explain(explain)
        if mode is None:
            mode = "dense" if text is None else "sparse" if vector is None else "hybrid"
        asked = _asked(vector, text, mode, fusion)
        depth = _depth(fetch_k, "fetch_k", max(DEPTH, 2 * top_k))
        asked |= {"dense_k": depth, "sparse_k": _depth(sparse_k, "sparse_k", depth)} | _shape(exact, ef_search)
        return self._searching({"top_k": top_k, "where": where, "values": values, **asked}, search, explain)

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
        """`top_k` chunks near the vector and unlike each other, in the order of maximal marginal relevance.

        They are chosen from the `fetch_k` nearest (the larger of 20 and four times `top_k` where left out); with a
        `text` from the `fetch_k` best of a hybrid search, as `query` makes it. `lambda_mult` is from 0, as unlike as
        can be, to 1, the nearest to the vector. `exact` and `ef_search` are `query`'s. Raises as `query` does.
        """
        where, values = chunk_ops.condition(filters, ids, doc_ids)
        top_k = chunk_ops.whole_number(top_k, "top_k", 1)
        _check_explain(explain)
        if isinstance(lambda_mult, bool) or not isinstance(lambda_mult, Real) or not 0 <= lambda_mult <= 1:
            raise InvalidInput(f"lambda_mult is {lambda_mult!r:.40}; expected a number from 0 to 1")
        fetch_k = max(top_k, _depth(fetch_k, "fetch_k", max(20, 4 * top_k)))
        asked = _asked(vector, text, "dense" if text is None else "hybrid", fusion)
        asked |= _shape(exact, ef_search)
        asked |= {"top_k": fetch_k, "where": where, "values": values, "dense_k": fetch_k, "sparse_k": fetch_k}
        pick = (top_k, float(lambda_mult))
        return self._searching(asked, partial(diverse, k=pick[0], lambda_mult=pick[1]), explain, pick)

    query_mmr, aquery_mmr = twins(_query_mmr)

    def _searching(
        self,
        asked: dict[str, Any],
        find: Callable[[Gate, Query], Hits],
        explain: Explain,
        pick: tuple[int, float] | None = None,
    ) -> Work[Hits]:
        steps: list[SearchStep] = []

        def work(gate: Gate) -> Hits:
            if explain:
                steps.clear()
                gate = Watched(gate, steps.append)
            place = self._place(gate)
            space = self._known_space(gate, place)
            try:
                return within(gate, place, space)
            except (EmbedSpaceMismatch, InvalidEmbedding):
                # A store that follows its collection may remember the space from before it was embedded anew.
                now = self._known_space(gate, place, afresh=True) if self._model.follows else space
                if now == space:
                    raise
                return within(gate, place, now)

        def within(gate: Gate, place: Place, space: EmbedSpace | None) -> Hits:
            if space is None:
                return Hits()
            # By a vector alone, without asking how large the collection is: most are small, and the search itself says.
            routes, afresh = self._database._routes, False
            guess = asked["mode"] == "dense" and not explain and not asked["exact"]
            while True:
                space_id = self._database._known_space_id(gate, place.scope, space, afresh=afresh)
                if guess:
                    route = routes.recall(place, space_id)
                else:
                    route = routes.find(gate, place, space, space_id, afresh=afresh)
                narrow, bound = narrowed(asked["where"], asked["values"], route.keys)
                query = Query(place, space, space_id, route=route, **asked | {"where": narrow, "values": bound})
                try:
                    if explain:
                        return explained(gate, query, steps, plan=explain == "plan", pick=pick)
                    hits = find(gate, query)
                    if route is UNKNOWN:
                        routes.was_small(place, space_id)
                    return hits
                except Large:
                    guess = False
                except registry.StaleSpace:
                    if afresh:
                        raise
                    guess, afresh = False, True

        return work


def _check_explain(explain: object) -> None:
    if explain not in (True, False, "plan"):
        raise InvalidInput(f"explain is {explain!r:.40}; expected True, False or 'plan'")


def _asked(vector: Vector | None, text: str | None, mode: Mode, fusion: Fusion | None) -> dict[str, Any]:
    if mode not in ("dense", "sparse", "hybrid"):
        raise InvalidInput(f"mode is {mode!r:.40}; expected 'dense', 'sparse' or 'hybrid'")
    if vector is None and mode != "sparse":
        raise InvalidInput(f"no vector was given, which mode {mode!r} needs; give one, or a text with mode 'sparse'")
    if text is None and mode != "dense":
        raise InvalidInput(f"no text was given, which mode {mode!r} needs; give text=…, or search with mode 'dense'")
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
            raise InvalidInput("exact and ef_search were both given, and an exact search enters no graph; give one")
        ef_search = breadth.checked(ef_search)
    return {"exact": exact, "ef_search": ef_search}


def _depth(value: int | None, what: str, otherwise: int) -> int:
    return otherwise if value is None else chunk_ops.whole_number(value, what, 1)
