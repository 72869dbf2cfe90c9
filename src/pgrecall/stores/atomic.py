"""Several operations of one tenant in one transaction, which `tenant.atomic()` opens and operations in the block join.

A context variable holds the open transaction. So the code in the block sees it, and tasks and `contextvars` copies that
this code creates, and nothing else. One operation at a time runs in it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self

from sqlalchemy.util import greenlet_spawn

from pgrecall.errors import ConfigurationError, RolledBack
from pgrecall.postgres.driver import driver_errors
from pgrecall.postgres.engines import Engines
from pgrecall.postgres.transactions import Gate, Params, R, Rows, Scope, Transaction, WrappedGate

_BLOCKS: ContextVar[tuple[_Block, ...]] = ContextVar("pgrecall_atomic", default=())


class _JoinedTransaction:
    """An operation's view of the block's transaction. Only the block commits it."""

    __slots__ = ("_before", "_inner")

    def __init__(self, inner: Transaction) -> None:
        self._inner = inner
        self._before = inner.round_trips

    @property
    def round_trips(self) -> int:
        """How many round trips this operation has taken so far."""
        return self._inner.round_trips - self._before

    def begin(self, query: str = "") -> Any:
        """Do nothing: the block has begun."""

    def script(self, statements: Sequence[str]) -> None:
        """Run statements without parameters in one round trip."""
        self._inner.script(statements)

    def rows(self, statement: str, params: Params) -> Rows:
        """Run one statement and return its rows."""
        return self._inner.rows(statement, params)

    def count(self, statement: str, params: Params) -> int:
        """Run one statement and return how many rows it affected."""
        return self._inner.count(statement, params)

    def many(self, work: Sequence[tuple[str, Params]], *, commit: bool = False) -> list[Rows]:
        """Run statements in one round trip, without a COMMIT."""
        return self._inner.many(work)

    def last(self, statement: str, params: Params, *, prepare: bool = False) -> Rows:
        """Run the operation's last statement, unprepared and without a COMMIT."""
        return self._inner.rows(statement, params)

    def commit(self) -> None:
        """Do nothing: the block commits."""

    def after_commit(self, query: str, use: Callable[[Any], None]) -> None:
        """Run `query` after the block's COMMIT."""
        self._inner.after_commit(query, use)


class _JoinedGate(WrappedGate):
    """A gate whose transactions are all the block's. It wraps the gate that the block was opened through."""

    def __init__(self, block: _Block) -> None:
        super().__init__(block.gate)
        self.block = block

    @property
    def outside(self) -> Gate:
        """The gate that the block was opened through: its transactions are independent."""
        return self.block.gate

    @contextmanager
    def transaction(self, scope: Scope, what: str = "") -> Iterator[Transaction]:
        """Join the block's transaction. An error rolls the whole block back."""
        block = self.block
        with block.turn():
            block.check(scope)
            tx = _JoinedTransaction(block.transaction)
            try:
                with driver_errors():
                    tx.script(scope.local)
                    yield tx
                    tx.script(scope.undo)
            except BaseException as exc:
                block.failure = block.failure or exc
                raise

    def read(self, scope: Scope, what: str, body: Callable[[Transaction], R]) -> R:
        """Read in the block's transaction, which sees what the block wrote."""
        with self.transaction(scope, what) as tx:
            return body(tx)

    def retrying(self, body: Callable[[], R]) -> R:
        """Run `body` once: after a conflict nothing of the block is left to retry."""
        return body()


class _Block:
    """One open transaction of a tenant, and the rules for operations that run in it."""

    def __init__(self, engines: Engines, gate: Gate, scope: Scope) -> None:
        self.engines = engines
        self.gate = gate
        self.scope = scope
        self.failure: BaseException | None = None
        self.open = True
        self._pid = os.getpid()
        self._lock: Any = asyncio.Lock() if gate.is_async else threading.Lock()
        self._runs: object = None
        self._manager: AbstractContextManager[Transaction] = gate.transaction(scope, "atomic")
        self.transaction = self._manager.__enter__()
        try:
            with driver_errors():
                self.transaction.begin()
        except BaseException as exc:
            self._manager.__exit__(type(exc), exc, exc.__traceback__)
            raise

    def serves(self, engines: Engines) -> bool:
        """Whether operations on these engines join the block. Those of a forked child do not."""
        return self.open and self.engines is engines and self._pid == os.getpid()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other task or thread of the block runs an operation. An operation may contain another one."""
        me: object = asyncio.current_task() if self.gate.is_async else threading.get_ident()
        if self._runs == me:
            yield
            return
        self.gate.wait(self._lock.acquire())
        self._runs = me
        try:
            yield
        finally:
            self._runs = None
            self._lock.release()

    def check(self, scope: Scope) -> None:
        """Raise ConfigurationError or RolledBack if an operation can't be part of the block."""
        if not self.open:
            raise ConfigurationError(
                "the atomic block ended while this operation waited for its turn in it; nothing of the operation was "
                "written. Await it inside the block"
            )
        if scope.opening != self.scope.opening:
            raise ConfigurationError(
                f"an operation of another tenant, or across tenants, was called inside the atomic block of tenant "
                f"{self.scope.tenant!r}; call it before or after the block"
            )
        if self.failure is not None:
            raise RolledBack(
                f"an earlier operation of this atomic block failed ({type(self.failure).__name__}: {self.failure}); "
                "the block was rolled back. Let the error leave the block, and run the whole block again"
            ) from self.failure

    def end(self, exc: BaseException | None) -> None:
        """Commit, or roll back if the body or an operation in it failed."""
        interrupted = None
        with ExitStack() as stack:
            try:
                stack.enter_context(self.turn())
            except (asyncio.CancelledError, KeyboardInterrupt) as waiting:  # a task still has the connection
                interrupted = self.failure = waiting
            self.open = False
            # The operation's own error decides what happens to the connection, not what the caller's code made of it.
            cause = self.failure or exc
            self._manager.__exit__(type(cause) if cause is not None else None, cause, None)
        if interrupted is not None:
            raise interrupted
        if exc is None and cause is not None:
            raise RolledBack(
                f"an operation of this atomic block failed ({type(cause).__name__}: {cause}), and its error was "
                "caught inside the block; the block was rolled back. Let the error leave the block"
            ) from cause


def joined(engines: Engines, *, is_async: bool) -> _JoinedGate | None:
    """The gate of the atomic block around the caller, or None. Raises ConfigurationError if its mode differs."""
    for block in reversed(_BLOCKS.get()):
        if block.serves(engines):
            if block.gate.is_async != is_async:
                here, there = ("async with", "a…") if block.gate.is_async else ("with", "synchronous")
                raise ConfigurationError(
                    f"inside `{here} tenant.atomic()` only the {there} methods can be called: others would deadlock "
                    "with the block's own locks"
                )
            return _JoinedGate(block)
    return None


class Atomic:
    """What `tenant.atomic()` returns: a `with` or `async with` block. It joins an outer block of the same tenant."""

    def __init__(self, engines: Engines, scope_of: Callable[[Gate], Scope]) -> None:
        self._engines = engines
        self._scope_of = scope_of
        self._entered: list[tuple[_Block, Token[tuple[_Block, ...]] | None]] = []

    def _outer(self, *, is_async: bool) -> _Block | None:
        """The surrounding block of the same tenant, if any."""
        gate = joined(self._engines, is_async=is_async)
        if gate is None:
            return None
        gate.block.check(self._scope_of(gate.outside))
        return gate.block

    def _open(self, gate: Gate) -> _Block:
        return _Block(self._engines, gate, self._scope_of(gate))

    def _enter(self, block: _Block, *, outer: bool) -> Self:
        self._entered.append((block, None if outer else _BLOCKS.set((*_BLOCKS.get(), block))))
        return self

    def _leave(self, exc: BaseException | None) -> _Block | None:
        """The block, if it ends here."""
        block, token = self._entered.pop()
        if token is None:
            block.failure = block.failure or exc
            return None
        _BLOCKS.reset(token)
        return block

    def __enter__(self) -> Self:
        if outer := self._outer(is_async=False):
            return self._enter(outer, outer=True)
        return self._enter(self._open(self._engines.sync_gate()), outer=False)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if block := self._leave(exc):
            block.end(exc)

    async def __aenter__(self) -> Self:
        if outer := self._outer(is_async=True):
            return self._enter(outer, outer=True)
        return self._enter(await greenlet_spawn(self._open, self._engines.async_gate()), outer=False)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if block := self._leave(exc):
            await greenlet_spawn(block.end, exc)
