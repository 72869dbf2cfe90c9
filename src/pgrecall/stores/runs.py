"""The run store: a tenant's runs, their events and their evidence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from pgrecall.arguments import MAX_ID_BYTES, MAX_NAME_BYTES, check_text, lifetime, moment, seconds, whole_number
from pgrecall.errors import FilterError, InvalidInput, NotFound
from pgrecall.filters import Filter
from pgrecall.hits import Hit
from pgrecall.operations.runs import evidence as run_evidence
from pgrecall.operations.runs import verbs as run_verbs
from pgrecall.postgres.transactions import Gate
from pgrecall.runs import FINAL, Evidence, RunEvent, RunState
from pgrecall.statements.runs import RunFilters
from pgrecall.stores.backend import Backend, TenantBound
from pgrecall.stores.renamed import renamed
from pgrecall.stores.twins import Work, twins
from pgrecall.types import EmbedSpace, Vector

if TYPE_CHECKING:
    from pgrecall.protocols import RunStore


class HasCollection(Protocol):
    """A store of one collection."""

    @property
    def collection(self) -> str:
        """The collection's name."""
        ...


class PostgresRuns(TenantBound):
    """The runs of one tenant, bound to it for life; made by ``db.tenant(…).runs()``.

    Reads never return a run whose lifetime has ended. Every method has an asynchronous twin with an `a` before its
    name. Safe to share between threads, event loops and forked processes.
    """

    def __init__(
        self,
        backend: Backend,
        tenant: str,
        *,
        ttl: timedelta | None = None,
        max_state_bytes: int = run_verbs.MAX_STATE_BYTES,
    ) -> None:
        super().__init__(backend, tenant)
        self._ttl = lifetime(ttl, "ttl")
        self._max_bytes = whole_number(max_state_bytes, "max_state_bytes", 1)

    def __repr__(self) -> str:
        return f"<PostgresRuns tenant={self.tenant_id!r}>"

    def _place(self, gate: Gate) -> run_verbs.RunPlace:
        return run_verbs.RunPlace(self._scope(gate), self._create_tenants, self._ttl, self._max_bytes)

    def _put(self, run_state: RunState) -> Work[RunState]:
        """Store a run's state by compare-and-set; returns it as stored, at its new version.

        `state_version` is the version that was read, 0 for a new run; if another version is stored, the call is
        refused. Of two calls with the same version one is refused. With None the state is stored unconditionally. Once
        set, a run's subject can't change. If the store has a `ttl`, it counts from each write; otherwise `expires_at`
        is stored.

        Raises: RunConflict, which has both versions; InvalidInput, also if the state exceeds `max_state_bytes` as JSON,
        or the run belongs to another subject; SubjectErased, TenantErased, UnknownTenant, Unavailable.
        """
        run = run_verbs.check_state(run_state)
        if run.expires_at is not None:
            moment(run.expires_at, "expires_at")
        return lambda gate: run_verbs.put(gate, self._place(gate), run)

    put, aput = twins(_put)

    def _get(self, run_id: str) -> Work[RunState | None]:
        """A run's state, or None; version 0 if the run only has events or evidence so far."""
        check_text(run_id, "run_id", MAX_ID_BYTES)
        return lambda gate: run_verbs.get(gate, self._place(gate), run_id)

    get, aget = twins(_get)

    def _count(
        self,
        filters: Filter | None = None,
        *,
        state: Filter | None = None,
        status: str | None = None,
        subject: str | None = None,
    ) -> Work[int]:
        """The number of runs that match all conditions; they are those of `list_runs`."""
        where, values = _condition(filters, state, status, subject)
        return lambda gate: run_verbs.count(gate, self._place(gate), where, values)

    count, acount = twins(_count)

    def _append_event(self, run_id: str, kind: str, data: Mapping[str, Any] | None = None) -> Work[RunEvent]:
        """Append an event to a run; a run that does not exist yet is created, at version 0.

        Raises: InvalidInput, also if `data` exceeds `max_state_bytes`; TenantErased, UnknownTenant.
        """
        check_text(run_id, "run_id", MAX_ID_BYTES)
        check_text(kind, "kind", MAX_NAME_BYTES)
        return lambda gate: run_verbs.append_event(gate, self._place(gate), run_id, kind, {} if data is None else data)

    append_event, aappend_event = twins(_append_event)

    def _list_events(self, run_id: str, *, after: int = -1, limit: int | None = None) -> Work[list[RunEvent]]:
        """A run's events in order, those after the number `after`; an empty list if the run does not exist."""
        check_text(run_id, "run_id", MAX_ID_BYTES)
        after = whole_number(after, "after", -1)
        limit = None if limit is None else whole_number(limit, "limit", 0)
        return lambda gate: run_verbs.events(gate, self._place(gate), run_id, after=after, limit=limit)

    list_events, alist_events = twins(_list_events)
    events, aevents = renamed("events", list_events, alist_events)

    def tail(
        self, run_id: str, *, after: int = -1, poll: float = 0.5, timeout: float | None = None
    ) -> Iterator[RunEvent]:
        """Iterate over a run's events, present and future, until the run is final, is deleted, or `timeout` seconds
        have passed.

        `poll` is the number of seconds between two queries. Raises NotFound if the run does not exist.
        """
        until = _deadline(run_id, after, poll, timeout)
        seen = False
        while True:
            status, found = self._run(lambda gate, a=after: run_verbs.follow(gate, self._place(gate), run_id, a))  # type: ignore[misc]
            yield from found
            if _ends(run_id, status, until, seen=seen):
                return
            seen, after = True, found[-1].seq if found else after
            time.sleep(poll)

    async def atail(
        self, run_id: str, *, after: int = -1, poll: float = 0.5, timeout: float | None = None
    ) -> AsyncIterator[RunEvent]:
        """As `tail`."""
        until = _deadline(run_id, after, poll, timeout)
        seen = False
        while True:
            status, found = await self._arun(
                lambda gate, a=after: run_verbs.follow(gate, self._place(gate), run_id, a)  # type: ignore[misc]
            )
            for event in found:
                yield event
            if _ends(run_id, status, until, seen=seen):
                return
            seen, after = True, found[-1].seq if found else after
            await asyncio.sleep(poll)

    def _record_evidence(
        self,
        run: RunState | str,
        query: str | Vector,
        hits: Sequence[Hit],
        *,
        collection: str | HasCollection = "default",
        space: EmbedSpace | None = None,
    ) -> Work[int]:
        """Record which chunks a retrieval gave to a run, with their ranks, scores and text hashes, and the space.

        `store.for_run(run_id)` does this for every search. Of the query only a hash is stored. A run that does not
        exist yet is created, at version 0.

        Args:
            run: The run, or its id.
            query: The query's text or vector.
            hits: The hits of the search.
            collection: The collection that was searched, by its name or its store; by default "default".
            space: The space that was searched; by default the collection's own.

        Returns:
            The retrieval's number in the run's order.

        Raises:
            InvalidInput: An argument is malformed.
            TenantErased: The tenant was deleted.
            UnknownTenant: The tenant is not registered, and the database requires it.
        """
        run_id = check_text(run.run_id if isinstance(run, RunState) else run, "run_id", MAX_ID_BYTES)
        name = collection if isinstance(collection, str) else collection.collection
        check_text(name, "collection", MAX_NAME_BYTES)
        given, asked = list(hits), run_evidence.asked(query)
        for hit in given:
            if not isinstance(hit, Hit):
                raise InvalidInput(f"a hit is {type(hit).__name__}; expected pgrecall.Hit, as searches give them")
        return lambda gate: run_evidence.record(
            gate, self._place(gate), run_id, asked, given, collection=name, space=space
        )

    record_evidence, arecord_evidence = twins(_record_evidence)

    def _list_evidence(self, run_id: str) -> Work[list[Evidence]]:
        """A run's retrievals in order; each chunk is compared with what the collection holds now."""
        check_text(run_id, "run_id", MAX_ID_BYTES)
        return lambda gate: run_evidence.read(gate, self._place(gate), run_id)

    list_evidence, alist_evidence = twins(_list_evidence)
    evidence, aevidence = renamed("evidence", list_evidence, alist_evidence)

    def _delete(self, run_id: str) -> Work[dict[str, int]]:
        """Delete a run with its events and evidence; returns the number of rows by table. Raises NotFound."""
        check_text(run_id, "run_id", MAX_ID_BYTES)
        return lambda gate: run_verbs.delete(gate, self._place(gate), run_id)

    delete, adelete = twins(_delete)

    def _prune(
        self,
        older_than: timedelta | datetime | None = None,
        keep_latest: int | None = None,
        *,
        statuses: Sequence[str] | None = None,
    ) -> Work[int]:
        """Delete runs, with their events and evidence, that were not written recently; returns how many.

        `older_than` is an age (timedelta) or a time (datetime). `keep_latest` spares the most recently written runs,
        whatever their age; without `older_than` all others are deleted. `statuses` limits it to runs with one of these.
        Raises InvalidInput if neither is given.
        """
        if older_than is None and keep_latest is None:
            raise InvalidInput(
                "neither older_than nor keep_latest was given; pass one of them to select the runs to delete"
            )
        if older_than is not None and not isinstance(older_than, timedelta | datetime):
            raise InvalidInput(
                f"older_than is {older_than!r:.60}; expected a timedelta, or a datetime with a time zone"
            )
        values = {
            "age": lifetime(older_than, "older_than") if not isinstance(older_than, datetime) else None,
            "before": moment(older_than, "older_than") if isinstance(older_than, datetime) else None,
            "keep": whole_number(keep_latest or 0, "keep_latest", 0),
            "statuses": None if statuses is None else [check_text(s, "a status", MAX_NAME_BYTES) for s in statuses],
        }
        return lambda gate: run_verbs.prune(gate, self._place(gate), values)

    prune, aprune = twins(_prune)

    def _list_runs(
        self,
        filters: Filter | None = None,
        *,
        state: Filter | None = None,
        status: str | None = None,
        subject: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> Work[list[RunState]]:
        """Runs that match all conditions, the most recently written first.

        Args:
            filters: Only runs whose metadata matches.
            state: Only runs whose state matches.
            status: Only runs with this status.
            subject: Only runs of this subject.
            limit: The maximum number of runs; by default 100.
            offset: The number of runs to skip; by default 0.

        Returns:
            A list of `RunState`.

        Raises:
            FilterError: A filter is malformed.
            InvalidInput: An argument is malformed.
        """
        where, values = _condition(filters, state, status, subject)
        values |= {"limit": whole_number(limit, "limit", 0), "offset": whole_number(offset, "offset", 0)}
        return lambda gate: run_verbs.listing(gate, self._place(gate), where, values)

    list_runs, alist_runs = twins(_list_runs)
    list, alist = renamed("list", list_runs, alist_runs)


def _condition(
    filters: Filter | None, state: Filter | None, status: str | None, subject: str | None
) -> tuple[RunFilters, dict[str, Any]]:
    for given in (filters, state):
        if given is not None and not isinstance(given, Filter):
            raise FilterError(f"a filter is {type(given).__name__}; expected a filter such as F.team == 'support'")
    values = {
        "status": None if status is None else check_text(status, "status", MAX_NAME_BYTES),
        "subject": None if subject is None else check_text(subject, "subject", MAX_ID_BYTES),
    }
    return RunFilters.of(filters, state), values


def _deadline(run_id: str, after: int, poll: float, timeout: float | None) -> float | None:
    check_text(run_id, "run_id", MAX_ID_BYTES)
    whole_number(after, "after", -1)
    seconds(poll, "poll")
    return None if timeout is None else time.monotonic() + seconds(timeout, "timeout")


def _ends(run_id: str, status: str | None, until: float | None, *, seen: bool) -> bool:
    """Whether nothing more is to be waited for. Raises NotFound."""
    if status is None and not seen:
        raise NotFound(f"run {run_id!r:.80} does not exist")
    return status is None or status in FINAL or (until is not None and time.monotonic() >= until)


if TYPE_CHECKING:
    _: type[RunStore[RunState]] = PostgresRuns
