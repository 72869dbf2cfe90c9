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
    """The runs of one tenant, to which it is bound for life: made by ``db.tenant(…).runs()``.

    Every method has an asynchronous twin with an `a` before its name. A run whose lifetime ended is never read. Safe to
    share between threads, event loops and forked processes.
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
        """Keep a run's state; returns it as stored, at its new version, from which the next put goes on.

        Compare-and-set: `state_version` is the version that was read (0 for a new run), and where another is stored the
        call is refused, of two at the same time one. None puts whatever is there. A run's subject stays once it is
        said. The store's `ttl`, where it has one, counts from each write; else `expires_at` is as given.

        Raises: RunConflict, which tells both versions; InvalidInput, also where the state is larger than
        `max_state_bytes` as JSON, or the run is another subject's; SubjectErased, TenantErased, UnknownTenant,
        Unavailable.
        """
        run = run_verbs.check_state(run_state)
        if run.expires_at is not None:
            moment(run.expires_at, "expires_at")
        return lambda gate: run_verbs.put(gate, self._place(gate), run)

    put, aput = twins(_put)

    def _get(self, run_id: str) -> Work[RunState | None]:
        """The state of a run, or None; at version 0 where it has only events or evidence yet."""
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
        """How many runs match, as `list` finds them; all without arguments."""
        where, values = _condition(filters, state, status, subject)
        return lambda gate: run_verbs.count(gate, self._place(gate), where, values)

    count, acount = twins(_count)

    def _append_event(self, run_id: str, kind: str, data: Mapping[str, Any] | None = None) -> Work[RunEvent]:
        """Add an event at the end of a run's order; a run that does not exist yet is made, at version 0.

        Raises: InvalidInput, also where `data` is larger than `max_state_bytes`; TenantErased, UnknownTenant.
        """
        check_text(run_id, "run_id", MAX_ID_BYTES)
        check_text(kind, "kind", MAX_NAME_BYTES)
        return lambda gate: run_verbs.append_event(gate, self._place(gate), run_id, kind, {} if data is None else data)

    append_event, aappend_event = twins(_append_event)

    def _list_events(self, run_id: str, *, after: int = -1, limit: int | None = None) -> Work[list[RunEvent]]:
        """A run's events in order, those behind the number `after`; none where there is no such run."""
        check_text(run_id, "run_id", MAX_ID_BYTES)
        after = whole_number(after, "after", -1)
        limit = None if limit is None else whole_number(limit, "limit", 0)
        return lambda gate: run_verbs.events(gate, self._place(gate), run_id, after=after, limit=limit)

    list_events, alist_events = twins(_list_events)
    events, aevents = renamed("events", list_events, alist_events)

    def tail(
        self, run_id: str, *, after: int = -1, poll: float = 0.5, timeout: float | None = None
    ) -> Iterator[RunEvent]:
        """The run's events, those to come too, until the run is final, is deleted, or `timeout` seconds went by.

        `poll` is the time between two looks at the database, in seconds. Raises NotFound where there is no such run.
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
        """Record what a retrieval gave to a run: the chunks, with rank, score and the hash of each text; the space.

        Of the query only a hash is kept. `space` is the collection's own where it is left out. A run that does not
        exist yet is made, at version 0. Returns the retrieval's number in the run's order. `store.for_run(run_id)` does
        this by itself. Raises: InvalidInput, TenantErased, UnknownTenant.
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
        """Each retrieval of a run, in order, with its chunks; each is compared with what the collection holds today."""
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
        """Delete runs, with their events and evidence, that nothing touched since `older_than`; returns how many.

        `older_than` is an age or a time; `keep_latest` spares so many of the tenant's runs, the last touched, whatever
        their age; with it alone all others go. `statuses` narrows it to runs that have one of these.
        Raises InvalidInput where neither is said.
        """
        if older_than is None and keep_latest is None:
            raise InvalidInput("neither older_than nor keep_latest says which runs to delete")
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

    # Last: in the class body `list` is this method from here on.
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
        """Runs that match, the last touched first: by `filters` on their metadata, and `state` on their state.

        Raises: FilterError, InvalidInput.
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
