"""A gate that reports what each transaction took, for searches that explain themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pgrecall.hits import SearchStep
from pgrecall.postgres.transactions import Gate, R, Scope, Transaction, WrappedGate


class Watched(WrappedGate):
    """A gate that calls `watch` after each transaction of the inner gate; bare transactions are not reported."""

    def __init__(self, inner: Gate, watch: Callable[[SearchStep], None]) -> None:
        super().__init__(inner)
        self._watch = watch

    @contextmanager
    def transaction(self, scope: Scope, what: str = "") -> Iterator[Transaction]:
        """Open a transaction of the inner gate, and report it."""
        started = time.perf_counter()
        with self.inner.transaction(scope, what) as tx:
            begun = time.perf_counter()
            yield tx
        took = time.perf_counter() - started
        self._watch(SearchStep(what, (begun - started) * 1e3, took * 1e3, tx.round_trips))

    def read(self, scope: Scope, what: str, body: Callable[[Transaction], R]) -> R:
        """Read through the inner gate, and report the transaction that answered."""
        begun: list[tuple[float, Transaction]] = []

        def timed(tx: Transaction) -> R:
            begun.append((time.perf_counter(), tx))
            return body(tx)

        started = time.perf_counter()
        found = self.inner.read(scope, what, timed)
        took, (opened, tx) = time.perf_counter() - started, begun[-1]
        self._watch(SearchStep(what, (opened - started) * 1e3, took * 1e3, tx.round_trips))
        return found
