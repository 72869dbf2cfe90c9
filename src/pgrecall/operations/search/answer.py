"""Answers a search with cached information about the collection, and repeats it if that turns out to be outdated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pgrecall.errors import EmbedSpaceMismatch, InvalidEmbedding
from pgrecall.hits import Hits, SearchStep
from pgrecall.operations.chunks.keys import narrowed
from pgrecall.operations.models.embedding import ModelInUse
from pgrecall.operations.registry import Place, SpaceIds, StaleSpace
from pgrecall.operations.search.explain import Watched
from pgrecall.operations.search.routes import UNKNOWN, Large, Routes
from pgrecall.operations.search.shapes import Query, explained
from pgrecall.postgres.transactions import Gate
from pgrecall.types import EmbedSpace

#: Whether a search returns an explanation; "plan" includes the plan of its statement.
Explain: TypeAlias = bool | Literal["plan"]


@dataclass(frozen=True, slots=True)
class Search:
    """A search as requested by the caller, with its arguments checked.

    `asked` has the fields of `Query` that do not depend on the collection. `find` runs a query and returns its hits.
    `pick` has the `k` and `lambda_mult` of an MMR search, which `explain` needs.
    """

    asked: Mapping[str, Any]
    find: Callable[[Gate, Query], Hits]
    explain: Explain = False
    pick: tuple[int, float] | None = None


def answer(gate: Gate, place: Place, search: Search, *, model: ModelInUse, space_ids: SpaceIds, routes: Routes) -> Hits:
    """The hits of a search; none if the collection does not exist."""
    steps: list[SearchStep] = []
    if search.explain:
        gate = Watched(gate, steps.append)
    space = model.collection_space(gate, place)
    try:
        return _in_space(gate, place, space, search, steps, space_ids, routes)
    except (EmbedSpaceMismatch, InvalidEmbedding):
        # A store that follows its collection may have cached the space from before a re-embedding.
        now = model.collection_space(gate, place, reload=True) if model.follows else space
        if now == space:
            raise
        return _in_space(gate, place, now, search, steps, space_ids, routes)


def _in_space(
    gate: Gate,
    place: Place,
    space: EmbedSpace | None,
    search: Search,
    steps: list[SearchStep],
    space_ids: SpaceIds,
    routes: Routes,
) -> Hits:
    if space is None:
        return Hits()
    asked, reload = search.asked, False
    # Most collections are small, so a search by vector alone assumes that this one is; its statement detects if it is
    # not (`Large`). Reading the size first would cost another transaction.
    guess = asked["mode"] == "dense" and not search.explain and not asked["exact"]
    while True:
        space_id = space_ids.find(gate, place.scope, space, reload=reload)
        known = routes.cached(place, space_id) if guess else None
        route = known or routes.find(gate, place, space, space_id, reload=reload)
        where, values = narrowed(asked["where"], asked["values"], route.keys)
        query = Query(place, space, space_id, route=route, **{**asked, "where": where, "values": values})
        try:
            if search.explain:
                return explained(gate, query, steps, plan=search.explain == "plan", pick=search.pick)
            hits = search.find(gate, query)
            if route is UNKNOWN:
                routes.was_small(place, space_id)
            return hits
        except Large:
            guess = False
        except StaleSpace:
            if reload:
                raise
            guess, reload = False, True
