"""A run store in plain Python: the contract's second implementation, and nothing more."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

from pgrecall import InvalidInput, RunConflict, RunState
from pgrecall.operations.runs.verbs import check_state, sized_json


class MemoryRuns:
    """The runs of one tenant."""

    def __init__(self) -> None:
        self._runs: dict[str, RunState] = {}

    def put(self, run_state):
        run = check_state(run_state)
        state, metadata = (
            json.loads(sized_json(value, what, 1_000_000))
            for value, what in ((run.state, "the state"), (run.metadata, "the metadata"))
        )
        held = self._runs.get(run.run_id)
        found = None if held is None else held.state_version
        if run.state_version is not None and run.state_version != (found or 0):
            raise RunConflict(
                f"run {run.run_id!r} is at version {found}, not at version {run.state_version}",
                expected=run.state_version,
                found=found,
            )
        if held is not None and None not in (held.subject, run.subject) and held.subject != run.subject:
            raise InvalidInput("the run belongs to another subject")
        now = datetime.now(UTC)
        self._runs[run.run_id] = replace(
            run,
            state=state,
            metadata=metadata,
            state_version=(found or 0) + 1,
            subject=run.subject if held is None else held.subject or run.subject,
            created_at=now if held is None else held.created_at,
            updated_at=now,
        )
        return self._runs[run.run_id]

    def get(self, run_id):
        return self._runs.get(run_id)

    async def aput(self, run_state):
        return self.put(run_state)

    async def aget(self, run_id):
        return self.get(run_id)
