"""Taking a space out of the registry, which its owner may do while nothing uses it."""

from __future__ import annotations

import threading
from contextlib import closing

import sqlalchemy as sa

from pgrecall.errors import NotFound, Refused
from pgrecall.maintenance.maintainer import Maintainer
from pgrecall.operations.registry import probe, space_use
from pgrecall.postgres.engines import Engines
from pgrecall.postgres.transactions import Gate, Scope
from pgrecall.statements.registry import DROP_SPACE, SPACE_BY_ID
from pgrecall.types import EmbedSpace

_AS_OWNER = Scope(None, ("BEGIN",))


def check_unused(owner: sa.URL, space_id: int) -> EmbedSpace:
    """The space, if it may be dropped. Raises: NotFound; Refused if collections or memories use it; Unavailable."""
    with closing(Engines(owner)) as engines:
        return _unused(engines.sync_gate(), space_id)


def drop(owner: sa.URL, space_id: int, stopped: threading.Event | None = None) -> EmbedSpace:
    """Drop a space with its graphs; returns what it was.

    Raises: as `check_unused`; Conflict if another process maintains graphs, or the space came into use meanwhile.
    """
    with closing(Engines(owner)) as engines:
        gate = engines.sync_gate()
        space = _unused(gate, space_id)
        Maintainer(gate, probe(gate, maintenance=True).ground, owner, stopped).forget(space_id)
        with gate.transaction(_AS_OWNER, "space drop") as tx:
            tx.count(DROP_SPACE, {"space": space_id})  # foreign keys refuse what came into use meanwhile
    return space


def _unused(gate: Gate, space_id: int) -> EmbedSpace:
    with gate.transaction(_AS_OWNER, "space") as tx:
        rows = tx.last(SPACE_BY_ID, {"space": space_id})
    if not rows:
        raise NotFound(f"there is no space {space_id}; list them with db.list_spaces(), or pgrecall spaces list")
    space = EmbedSpace(*rows[0])
    across = Scope.of_maintenance(probe(gate, maintenance=True).ground)
    if use := space_use(gate, across).get(space_id):
        kinds = (use.collections, "collection", "collections"), (use.memories, "tenant's memory", "tenants' memories")
        used = " and ".join(f"{count:,} {one if count == 1 else many}" for count, one, many in kinds if count)
        raise Refused(f"space {space_id}, {space}, is used by {used}; drop or re-embed them first")
    return space
