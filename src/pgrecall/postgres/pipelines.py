"""A transaction on the driver's connection, with as few round trips as its statements allow.

BEGIN, the role, the settings and the first statements go out in one pipeline. A read has its COMMIT there too, so it
takes a single round trip. A transaction that writes sends its COMMIT in a later message than its BEGIN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from pgrecall.postgres import prepared
from pgrecall.postgres.checkout import Checkout, Connection
from pgrecall.postgres.scopes import Scope
from pgrecall.postgres.transactions import Params, Rows

Statement = tuple[str, Params | None]


class PipelinedTransaction:
    """A `Transaction` on a connection of the pool. Only `EngineGate` creates it."""

    __slots__ = (
        "_after",
        "_checkout",
        "_connection",
        "_is_async",
        "_opening",
        "_prepare",
        "_prepared",
        "_reads",
        "_round_trips",
        "_separate",
        "_wait",
        "open",
        "rows_seen",
    )

    def __init__(
        self,
        checkout: Checkout,
        connection: Connection,
        scope: Scope,
        opening: Sequence[str],
        *,
        reads: bool,
        is_async: bool,
        wait: Callable[[Any], Any],
    ) -> None:
        self._checkout = checkout
        self._connection = connection
        self._opening = opening
        self._reads = reads
        self._is_async = is_async
        self._wait = wait
        self._separate = scope.separate_messages
        self._after: tuple[str, Callable[[Any], None]] | None = None
        self._prepare: str | None = None
        self._prepared = False
        self._round_trips = 0
        self.open = True
        self.rows_seen = 0

    @property
    def round_trips(self) -> int:
        """How many round trips this transaction has taken so far."""
        return self._round_trips

    def begin(self, query: str = "") -> Any:
        """Begin on the server now, in a round trip of its own, unless the transaction has begun already.

        `query` runs in the same round trip. Returns its value, or None if the transaction had begun.
        """
        if not self._opening:
            return None
        cursors = self._send([(query, None)] if query else [])
        return self._value(cursors[-1]) if query else None

    def script(self, statements: Sequence[str]) -> None:
        """Run statements without parameters in one round trip; does nothing for an empty sequence."""
        if statements:
            self.begin()
            self._round_trips += 1
            self._run(statements)

    def rows(self, statement: str, params: Params) -> Rows:
        """Run one statement and return its rows."""
        return self.many([(statement, params)])[0]

    def count(self, statement: str, params: Params) -> int:
        """Run one statement and return how many rows it affected."""
        [cursor] = self._send([(statement, params)])
        self.rows_seen += max(cursor.rowcount, 0)
        return int(cursor.rowcount)

    def many(self, work: Sequence[tuple[str, Params]], *, commit: bool = False) -> list[Rows]:
        """Run statements in one round trip and return the rows of each; `commit` adds the COMMIT to the same trip."""
        sent: list[Statement] = [*work]
        if commit:
            if not self._reads:
                # If a connection breaks, nobody can tell whether a COMMIT in flight was carried out, so the message
                # must not be sent again. It therefore goes out only after the BEGIN has been answered.
                self.begin()
            sent += [("COMMIT", None), *([(self._after[0], None)] if self._after else [])]
        cursors = self._send(sent)
        if commit:
            self.open = False
            if self._after:
                self._after[1](self._value(cursors[-1]))
        found: list[Rows] = []
        for cursor in cursors[: len(work)]:
            # Results are already in the client: fetching them does not touch the network, in either mode.
            # `rownumber` says whether there are any; `description` would build a Column of each, for 0.04 ms.
            fetched = cursor.rownumber is not None
            rows = self._wait(cursor.fetchall()) if fetched else []
            self.rows_seen += len(rows) if fetched else max(cursor.rowcount, 0)
            found.append(rows)
        return found

    def last(self, statement: str, params: Params, *, prepare: bool = False) -> Rows:
        """Run the transaction's last statement and COMMIT in the same round trip; returns the statement's rows.

        `prepare`: the connection may prepare the statement (see `prepared`), if this is a read of its own.
        """
        if prepare and self._reads and not self._separate:
            self._prepare = statement
        return self.many([(statement, params)], commit=True)[0]

    def commit(self) -> None:
        """Commit the transaction."""
        if self._opening:  # nothing was sent
            self.open = False
        else:
            self.many([], commit=True)

    def after_commit(self, query: str, use: Callable[[Any], None]) -> None:
        """Run `query` after the COMMIT, in the same round trip, and pass its value to `use`."""
        self._after = query, use

    def _value(self, cursor: Any) -> Any:
        [value] = self._wait(cursor.fetchone())
        return value

    def _send(self, work: Sequence[Statement]) -> list[Any]:
        """Run `work` in one round trip, preceded by the opening if it is the first; returns the cursors of `work`."""
        opening, self._opening = self._opening, ()
        while True:
            self._round_trips += 1
            try:
                if opening and not work:
                    self._run(opening)
                    return []
                sent = [*((statement, None) for statement in opening), *work]
                return self._exchange(sent)[len(opening) :]
            except psycopg.Error as exc:
                if self._prepared and exc.sqlstate in prepared.UNUSABLE:
                    prepared.stop(self._connection.raw, exc)
                    raise prepared.StatementLost from exc
                # A connection that died in the pool, unnoticed, is replaced. `pool_pre_ping` would cost a round trip
                # each time: here the first message is the ping, and nothing of it was committed.
                if (
                    not opening
                    or not isinstance(exc, psycopg.OperationalError)
                    or not self._connection.died_in_the_pool()
                ):
                    raise
                self._checkout.replace(self._connection, exc)

    def _run(self, statements: Sequence[str]) -> None:
        """Run statements without parameters in one round trip.

        One message costs the least. On Citus each statement is a message of its own, in a pipeline: Citus sends its
        workers the whole message in which a SET LOCAL came, once for each SET LOCAL in it.
        """
        if self._separate:
            self._exchange([(statement, None) for statement in statements])
        else:
            self._wait(self._connection.raw.execute("; ".join(statements), prepare=False))

    def _exchange(self, work: Sequence[Statement]) -> list[Any]:
        raw = self._connection.raw
        prepare = self._prepare if prepared.prepares(raw) else None
        self._prepared = prepare is not None
        if len(work) == 1:
            return [self._wait(raw.execute(*work[0], prepare=False))]
        if self._is_async:
            cursors: list[Any] = self._wait(_apipelined(raw, work, prepare))
            return cursors
        with raw.pipeline():
            return [raw.execute(statement, params, prepare=statement is prepare) for statement, params in work]


async def _apipelined(raw: Any, work: Sequence[Statement], prepare: str | None) -> list[Any]:
    async with raw.pipeline():
        return [await raw.execute(statement, params, prepare=statement is prepare) for statement, params in work]
