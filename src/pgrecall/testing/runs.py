"""A run store in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pgrecall.arguments import MAX_ID_BYTES, MAX_NAME_BYTES, check_text, instance, moment, whole_number
from pgrecall.errors import InvalidInput, RunConflict
from pgrecall.runs import RunState
from pgrecall.testing import checks
from pgrecall.testing.checks import twin

if TYPE_CHECKING:
    from pgrecall.protocols import RunStore


class InMemoryRunStore:
    """A `RunStore` that keeps one tenant's runs in memory, for tests of applications.

    `shared` holds runs by tenant and id; stores that are given the same dictionary share them.
    """

    def __init__(self, *, tenant: str = "test", shared: dict[tuple[str, str], RunState] | None = None) -> None:
        self.tenant_id = check_text(tenant, "tenant", MAX_NAME_BYTES)
        self._shared = {} if shared is None else shared

    def put(self, run_state: RunState) -> RunState:
        """Store a run's state if it is based on the stored version; returns it as stored.

        Raises: InvalidInput, RunConflict.
        """
        run = _checked(run_state)
        held = self.get(run.run_id)
        found = None if held is None else held.state_version
        if run.state_version is not None and run.state_version != (found or 0):
            raise RunConflict(
                f"run {run.run_id!r} is at version {found}, but this put is based on version {run.state_version}; "
                "read the run again",
                expected=run.state_version,
                found=found,
            )
        if held is not None and None not in (held.subject, run.subject) and held.subject != run.subject:
            raise InvalidInput(f"run {run.run_id!r} belongs to another subject than {run.subject!r}")
        now = datetime.now(UTC)
        stored = replace(
            run,
            state=checks.json_object(run.state, "the state"),
            metadata=checks.json_object(run.metadata, "the metadata"),
            state_version=(found or 0) + 1,
            subject=run.subject if held is None else held.subject or run.subject,
            created_at=now if held is None else held.created_at,
            updated_at=now,
        )
        self._shared[self.tenant_id, run.run_id] = stored
        return stored

    def get(self, run_id: str) -> RunState | None:
        """The state of a run, or None if there is none or it expired."""
        found = self._shared.get((self.tenant_id, run_id))
        return None if found is None or (found.expires_at and found.expires_at <= datetime.now(UTC)) else found

    aput, aget = twin(put), twin(get)


def _checked(run: RunState) -> RunState:
    instance(run, RunState, "the run's state")
    check_text(run.run_id, "run_id", MAX_ID_BYTES)
    check_text(run.status, "status", MAX_NAME_BYTES)
    if run.subject is not None:
        check_text(run.subject, "subject", MAX_ID_BYTES)
    if run.state_version is not None:
        whole_number(run.state_version, "state_version", 0)
    if run.expires_at is not None:
        moment(run.expires_at, "expires_at")
    return run


if TYPE_CHECKING:
    _: type[RunStore[RunState]] = InMemoryRunStore
