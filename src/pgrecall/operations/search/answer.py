"""Answering a search: by what this process remembers of the collection, and again if that turns out to be stale."""

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

#: Whether a search explains how it was answered; "plan" includes the plan of its statement.
Explain: TypeAlias = bool | Literal["plan"]


@dataclass(frozen=True, slots=True)
class Search:
    """A search as its caller asked for it, with its arguments checked.

    `asked` has the fields of `Query` that don't depend on the collection. `find` turns a query into hits. `pick` is
    the number of chunks and the lambda of an MMR search, which `explain` needs.
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
        # A store that follows its collection may remember the space from before it was embedded again.
        now = model.collection_space(gate, place, afresh=True) if model.follows else space
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
    asked, afresh = search.asked, False
    # Most collections are small, so a search by a vector alone guesses that this one is: its statement also tells if
    # it is not (`Large`). Asking for the size first would be another transaction.
    guess = asked["mode"] == "dense" and not search.explain and not asked["exact"]
    while True:
        space_id = space_ids.find(gate, place.scope, space, afresh=afresh)
        known = routes.cached(place, space_id) if guess else None
        route = known or routes.find(gate, place, space, space_id, afresh=afresh)
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
            if afresh:
                raise
            guess, afresh = False, True
