"""Enables, disables or changes full-text search of a collection, in batches, concurrently with reads and writes."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, NoReturn

from pgrecall.errors import ConfigurationError, NotFound
from pgrecall.operations.chunks.upsert import Progress
from pgrecall.operations.registry import Place, known_text_config
from pgrecall.postgres.transactions import Gate
from pgrecall.statements import fulltext as sql

#: Chunks per transaction, at about 0.1 ms each. Writers of these chunks wait for it.
BATCH = 1_000


def set_text_config(
    gate: Gate, place: Place, text_config: str | None, *, batch: int = BATCH, progress: Progress | None = None
) -> int:
    """Set the collection's text search configuration, or None for no full-text search; returns how many chunks changed.

    New writes use the new configuration at once. Existing chunks follow by id, in transactions of `batch`. Repeat the
    call to resume after an interruption.

    Raises: NotFound, InvalidInput, Conflict; ConfigurationError if another call changes it concurrently.
    """
    after = gate.retrying(lambda: _begin(gate, place, text_config))
    if after is None:
        return 0
    changed, done = 0, 0
    total: int | None = None
    if progress is not None:
        with gate.transaction(place.scope, "full text left") as tx:
            [(total,)] = tx.last(sql.LEFT, place.at(after=after))
    while True:
        filled = gate.retrying(partial(_fill, gate, place, text_config, after, batch))
        if filled is None:  # another call finished the work
            return changed
        changed, done = changed + filled.changed, done + filled.looked_at
        if progress is not None and filled.looked_at:
            progress(done, total)
        if filled.looked_at < batch:
            break
        after = filled.last
    gate.retrying(lambda: _end(gate, place, text_config))
    return changed


class _Filled(NamedTuple):
    """One batch: its last id, how many chunks were visited, and how many changed."""

    last: str
    looked_at: int
    changed: int


def _begin(gate: Gate, place: Place, text_config: str | None) -> str | None:
    """The id to resume after, or None if there is nothing to do."""
    with gate.transaction(place.scope, "full text") as tx:
        if text_config is not None:
            known_text_config(tx, text_config)
        rows = tx.rows(sql.HELD, place.at())
        if not rows:
            _missing(place)
        held, after = rows[0]
        if held == text_config:
            return None if after is None else str(after)
        tx.count(sql.BEGIN, place.at(text_config=text_config))
        return ""


def _missing(place: Place) -> NoReturn:
    raise NotFound(f"collection {place.collection!r} does not exist")


def _fill(gate: Gate, place: Place, text_config: str | None, after: str, batch: int) -> _Filled | None:
    """Process one batch; None if another call has finished the work. Raises: NotFound, ConfigurationError."""
    values = place.at(text_config=text_config, after=after, batch=batch)
    with gate.transaction(place.scope, "full text batch") as tx:
        rows = tx.rows(sql.STILL, values)
        if not rows:
            _missing(place)
        [(same, pending)] = rows
        if not same:
            raise ConfigurationError(
                f"another call changed the text_config of collection {place.collection!r}, so this call stopped; "
                f"tenant.collection_info({place.collection!r}) shows the current one"
            )
        if not pending:
            return None
        [filled] = tx.rows(sql.BATCH, values)
        if filled[0] is not None:
            tx.count(sql.REMEMBER, place.at(after=filled[0]))
        return _Filled(*filled)


def _end(gate: Gate, place: Place, text_config: str | None) -> None:
    with gate.transaction(place.scope, "full text done") as tx:
        tx.count(sql.DONE, place.at(text_config=text_config))
