"""A gate that tells what each transaction took, for searches that explain themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pgrecall.hits import SearchStep
from pgrecall.postgres.transactions import Gate, R, Scope, Transaction


class Watched(Gate):
    """Another gate, watched: `watch` is called after each of its transactions."""

    def __init__(self, gate: Gate, watch: Callable[[SearchStep], None]) -> None:
        super().__init__(gate._engine, is_async=gate.is_async)
        self._gate, self._watch = gate, watch

    @property
    def outside(self) -> Gate:
        """As the other gate's."""
        return self._gate.outside

    @contextmanager
    def transaction(self, scope: Scope, what: str = "") -> Iterator[Transaction]:
        """The other gate's."""
        started = time.perf_counter()
        with self._gate.transaction(scope, what) as tx:
            begun = time.perf_counter()
            yield tx
        took = time.perf_counter() - started
        self._watch(SearchStep(what, (begun - started) * 1e3, took * 1e3, tx.round_trips))

    def read(self, scope: Scope, what: str, body: Callable[[Transaction], R]) -> R:
        """The other gate's."""
        begun: list[tuple[float, Transaction]] = []

        def timed(tx: Transaction) -> R:
            begun.append((time.perf_counter(), tx))
            return body(tx)

        started = time.perf_counter()
        found = self._gate.read(scope, what, timed)
        took, (opened, tx) = time.perf_counter() - started, begun[-1]
        self._watch(SearchStep(what, (opened - started) * 1e3, took * 1e3, tx.round_trips))
        return found

    @contextmanager
    def bare(self) -> Iterator[Transaction]:
        """The other gate's, unwatched: it looks at catalogs once, before the first search."""
        with self._gate.bare() as tx:
            yield tx

    def retrying(self, body: Callable[[], R]) -> R:
        """As the other gate does."""
        return self._gate.retrying(body)
