"""A vector store at work for one run: what its searches give is recorded as the run's evidence."""

from __future__ import annotations

from typing import Any

from pgrecall.arguments import MAX_ID_BYTES, check_text
from pgrecall.hits import Hits
from pgrecall.operations.runs import evidence
from pgrecall.postgres.transactions import Gate
from pgrecall.stores.runs import PostgresRuns
from pgrecall.stores.twins import Work
from pgrecall.stores.vectors import PostgresVectorStore


class RecordingVectorStore(PostgresVectorStore):
    """A `PostgresVectorStore` that records every search for a run; made by `store.for_run(run_id)`.

    What could not be recorded is not given: the search raises, and can be called again.
    """

    def __init__(self, store: PostgresVectorStore, run_id: str) -> None:
        self.__dict__.update(store.__dict__)
        self._run_id = check_text(run_id, "run_id", MAX_ID_BYTES)
        self._runs = PostgresRuns(store._database, store.tenant_id)

    @property
    def run_id(self) -> str:
        """The run that searches are recorded for."""
        return self._run_id

    def _searching(self, asked: dict[str, Any], *how: Any) -> Work[Hits]:
        search = super()._searching(asked, *how)
        query = asked["vector"] if asked["mode"] == "dense" else asked["text"]

        def work(gate: Gate) -> Hits:
            hits = search(gate)
            sought = evidence.asked(query)
            place = self._runs._place(gate)
            space = self._known_space(gate, self._place(gate))
            evidence.record(gate, place, self._run_id, sought, hits, collection=self.collection, space=space)
            return hits

        return work
