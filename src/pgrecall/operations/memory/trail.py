"""The audit trail: every change writes an event in its own transaction. Events never contain the fact's value."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pgrecall.facts import Action
from pgrecall.jsonable import dumps
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Transaction
from pgrecall.statements import facts as sql

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def new_ids(at: datetime, count: int) -> list[str]:
    """Ids that sort by time, and within one call by position: microseconds, position, 64 random bits."""
    since = at - _EPOCH
    micros = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return [f"{micros:014x}-{n:06x}-{secrets.token_hex(8)}" for n in range(count)]


@dataclass(slots=True)
class Trail:
    """The events of one transaction."""

    actor: str
    reason: str | None = None
    _entries: list[tuple[str, str | None, str | None, str | None]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._entries)

    def add(
        self, action: Action, target: str | None, subject: str | None, detail: dict[str, Any] | None = None
    ) -> None:
        """Add an event for one change."""
        self._entries.append((action, target, subject, None if detail is None else dumps(detail, "detail")))

    def write(self, tenant: str | None, at: datetime) -> tuple[str, dict[str, Any]]:
        """The statement that writes the events, and its parameters."""
        actions, targets, subjects, details = zip(*self._entries, strict=True)
        return sql.EVENTS, {
            "tenant": tenant,
            "at": at,
            "actor": self.actor,
            "reason": self.reason,
            "event_ids": wire.text_array(new_ids(at, len(self._entries))),
            "actions": wire.text_array(actions),
            "targets": wire.text_array(targets),
            "event_subjects": wire.text_array(subjects),
            "details": wire.jsonb_array(details),
        }


def now(tx: Transaction) -> datetime:
    """The server's current time."""
    [(at,)] = tx.rows(sql.NOW, {})
    return at  # type: ignore[no-any-return]


def batches(rows: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    """Split `rows` into parts of at most `size`."""
    return (rows[start : start + size] for start in range(0, len(rows), size))
