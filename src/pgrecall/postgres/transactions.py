"""What operations see of the database: a `Gate` opens transactions, and a `Transaction` runs statements.

Both are protocols. `EngineGate` (in `engine_gate`) opens transactions on a connection pool. `WrappedGate` is the base
of gates that change what another gate does: reads from a replica, atomic blocks, explained searches. They use only the
members that are listed here.

Sync and async share one body. Operations are ordinary synchronous code. In asynchronous mode they run in SQLAlchemy's
greenlet, where `Gate.wait` hands psycopg's awaitables to the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from pgrecall.postgres.scopes import Ground, Scope

__all__ = ["Gate", "Ground", "Params", "R", "Rows", "Scope", "Transaction", "WrappedGate"]

R = TypeVar("R")
Params = Mapping[str, Any]
Rows = list[tuple[Any, ...]]


class Transaction(Protocol):
    """An open transaction. It begins on the server with its first statements, in the same round trip."""

    @property
    def round_trips(self) -> int:
        """How many round trips this transaction has taken so far."""
        ...

    def begin(self, query: str = "") -> Any:
        """Begin on the server now, in a round trip of its own, unless the transaction has begun already.

        `query` runs in the same round trip. Returns its value, or None if the transaction had begun.
        """
        ...

    def script(self, statements: Sequence[str]) -> None:
        """Run statements without parameters in one round trip; does nothing for an empty sequence."""
        ...

    def rows(self, statement: str, params: Params) -> Rows:
        """Run one statement and return its rows."""
        ...

    def count(self, statement: str, params: Params) -> int:
        """Run one statement and return how many rows it affected."""
        ...

    def many(self, work: Sequence[tuple[str, Params]], *, commit: bool = False) -> list[Rows]:
        """Run statements in one round trip and return the rows of each; `commit` adds the COMMIT to the same trip."""
        ...

    def last(self, statement: str, params: Params, *, prepare: bool = False) -> Rows:
        """Run the transaction's last statement and COMMIT in the same round trip; returns the statement's rows.

        `prepare`: the connection may prepare the statement (see `prepared`), if this is a read of its own.
        """
        ...

    def commit(self) -> None:
        """Commit the transaction."""
        ...

    def after_commit(self, query: str, use: Callable[[Any], None]) -> None:
        """Run `query` after the COMMIT, in the same round trip, and pass its value to `use`."""
        ...


class Gate(Protocol):
    """Opens transactions, in synchronous or asynchronous mode."""

    @property
    def is_async(self) -> bool:
        """Whether this gate belongs to asynchronous code."""
        ...

    @property
    def outside(self) -> Gate:
        """A gate whose transactions are independent of any atomic block that is open here."""
        ...

    def wait(self, value: Any, /) -> Any:
        """The result of an awaitable in asynchronous mode; `value` itself in synchronous mode."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Sleep without blocking the event loop."""
        ...

    def transaction(self, scope: Scope, what: str = "") -> AbstractContextManager[Transaction]:
        """Open a transaction as `scope`. It commits at the end of the block, and rolls back if the block raises.

        `what` names the operation in the log. Raises: Unavailable, Conflict, ConfigurationError, MigrationRequired,
        DatabaseError.
        """
        ...

    def read(self, scope: Scope, what: str, body: Callable[[Transaction], R]) -> R:
        """Return what `body` returns, which must only read; one round trip if it ends with `Transaction.last`.

        A read replica may answer, and `body` may run twice. Raises the same errors as `transaction`.
        """
        ...

    def bare(self) -> AbstractContextManager[Transaction]:
        """Open a read-only transaction as the login itself, to read catalogs before the roles are known to exist."""
        ...

    def retrying(self, body: Callable[[], R]) -> R:
        """Run `body`, which opens whole transactions, and run it again if it conflicted with another writer."""
        ...


class WrappedGate:
    """A gate that passes every call on to another gate. Subclasses override what they change."""

    def __init__(self, inner: Gate) -> None:
        self.inner = inner
        self.is_async = inner.is_async
        self.wait = inner.wait
        self.sleep = inner.sleep

    @property
    def outside(self) -> Gate:
        """A gate whose transactions are independent of any atomic block that is open here."""
        return self.inner.outside

    def transaction(self, scope: Scope, what: str = "") -> AbstractContextManager[Transaction]:
        """Open a transaction of the inner gate."""
        return self.inner.transaction(scope, what)

    def read(self, scope: Scope, what: str, body: Callable[[Transaction], R]) -> R:
        """Read through the inner gate."""
        return self.inner.read(scope, what, body)

    def bare(self) -> AbstractContextManager[Transaction]:
        """Open a bare transaction of the inner gate."""
        return self.inner.bare()

    def retrying(self, body: Callable[[], R]) -> R:
        """Retry as the inner gate does."""
        return self.inner.retrying(body)
