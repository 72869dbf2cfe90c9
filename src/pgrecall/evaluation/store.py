"""Stores eval sets and runs in one tenant, under row-level security like all tables."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pgrecall.arguments import MAX_NAME_BYTES, check_text
from pgrecall.errors import InvalidInput, NotFound
from pgrecall.evaluation.sets import EvalQuery, EvalSet
from pgrecall.operations import evaluation as ops
from pgrecall.postgres.transactions import Gate
from pgrecall.stores.backend import TenantBound
from pgrecall.stores.tenant import Tenant
from pgrecall.stores.twins import Work, twins


@dataclass(frozen=True, slots=True)
class SetInfo:
    """A stored version of an eval set."""

    name: str
    version: int
    sha256: str
    kind: str
    source: str | None
    licence: str | None
    left_out: dict[str, int]
    created_at: datetime
    queries: int


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one query: `retrieved` rows, best first, `metrics` by name, and `latency` in milliseconds by step.

    A query that failed has an `error`, no rows, and 0 in every metric. `foreign_rows` counts rows of other tenants.
    `unscored` maps a metric without a score to the reason.
    """

    query_id: str
    retrieved: tuple[dict[str, Any], ...]
    metrics: dict[str, float]
    latency: dict[str, float]
    foreign_rows: int = 0
    error: str | None = None
    unscored: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A stored run; `summary` is None until it is finished."""

    run_id: str
    set_name: str
    set_version: int | None
    set_sha256: str
    status: str
    config: dict[str, Any]
    summary: dict[str, Any] | None
    created_at: datetime
    finished_at: datetime | None


def new_run_id() -> str:
    """A new unique id; ids sort by time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


class Evaluations(TenantBound):
    """The eval sets, runs and records of one tenant. Every method has an asynchronous twin, with an `a` in front."""

    def __init__(self, tenant: Tenant) -> None:
        if not isinstance(tenant, Tenant):
            raise InvalidInput(f"tenant is {type(tenant).__name__}; expected db.tenant(…)")
        super().__init__(tenant.backend, tenant.tenant_id)

    def __repr__(self) -> str:
        return f"<pgrecall.evaluation.Evaluations tenant={self.tenant_id!r}>"

    def _save_set(self, eval_set: EvalSet) -> Work[SetInfo]:
        """Store a set as the next version of its name, unless a version has the same content; returns that version."""
        header = {
            "name": eval_set.name,
            "sha256": eval_set.sha256,
            "kind": eval_set.kind,
            "source": eval_set.source,
            "licence": eval_set.licence,
            "left_out": dict(eval_set.left_out),
        }
        queries = [
            {
                "ids": q.id,
                "texts": q.text,
                "judged": dict(q.judged),
                "tenants": q.tenant,
                "filters": None if q.filters is None else dict(q.filters),
                "answers": q.answer,
                "contexts": list(q.contexts),
            }
            for q in sorted(eval_set.queries, key=lambda q: q.id)
        ]

        def work(gate: Gate) -> SetInfo:
            scope = self._scope(gate)
            version = ops.save_set(gate, scope, header, queries, create_tenants=self._create_tenants)
            return SetInfo(*ops.sets(gate, scope, eval_set.name, version)[0])

        return work

    save_set, asave_set = twins(_save_set)

    def _sets(self, name: str | None = None) -> Work[list[SetInfo]]:
        """All versions of all sets, or of the set `name`; the newest version of a name first."""
        return lambda gate: [SetInfo(*row) for row in ops.sets(gate, self._scope(gate), name)]

    sets, asets = twins(_sets)

    def _load_set(self, name: str, version: int | None = None) -> Work[EvalSet]:
        """Load a set with its queries, ordered by id: this version, or the newest. Raises NotFound."""

        def work(gate: Gate) -> EvalSet:
            scope = self._scope(gate)
            rows = ops.sets(gate, scope, name, version)
            if not rows:
                asked = f"eval set {name!r:.80}" + (f" version {version}" if version is not None else "")
                raise NotFound(f"{asked} does not exist; list those that do by: pgrecall eval list")
            info = SetInfo(*rows[0])
            queries = tuple(
                EvalQuery(i, text, judged, tenant, filters, answer, tuple(contexts))
                for i, text, judged, tenant, filters, answer, contexts in ops.queries(gate, scope, name, info.version)
            )
            return EvalSet(info.name, queries, info.source, info.licence, info.kind, info.left_out)

        return work

    load_set, aload_set = twins(_load_set)

    def _delete_set(self, name: str, version: int | None = None) -> Work[int]:
        """Delete one version of a set, or all; its runs stay. Returns how many versions were deleted."""
        return lambda gate: ops.delete_set(gate, self._scope(gate), name, version)

    delete_set, adelete_set = twins(_delete_set)

    def _begin(self, run_id: str, eval_set: EvalSet, version: int | None, config: Mapping[str, Any]) -> Work[RunInfo]:
        """Begin a run under a new id. Raises InvalidInput if the id is taken."""
        check_text(run_id, "run_id", MAX_NAME_BYTES)
        run = {
            "run": run_id,
            "set_name": eval_set.name,
            "set_version": version,
            "set_sha256": eval_set.sha256,
            "config": dict(config),
        }

        def work(gate: Gate) -> RunInfo:
            scope = self._scope(gate)
            ops.add_run(gate, scope, run, create_tenants=self._create_tenants)
            return RunInfo(*ops.runs(gate, scope, run_id)[0])

        return work

    begin, abegin = twins(_begin)

    def _run_info(self, run_id: str) -> Work[RunInfo]:
        """A stored run. Raises NotFound."""

        def work(gate: Gate) -> RunInfo:
            rows = ops.runs(gate, self._scope(gate), run_id)
            if not rows:
                raise NotFound(f"run {run_id!r:.80} does not exist; list those that do by: pgrecall eval list")
            return RunInfo(*rows[0])

        return work

    run_info, arun_info = twins(_run_info)

    def _runs(self, set_name: str | None = None, *, limit: int = 100) -> Work[list[RunInfo]]:
        """Runs, newest first; only those of one set if `set_name` is given."""
        return lambda gate: [RunInfo(*row) for row in ops.runs(gate, self._scope(gate), None, set_name, limit)]

    runs, aruns = twins(_runs)

    def _add_results(self, run_id: str, results: Sequence[Result]) -> Work[None]:
        """Store the results of some queries; a stored result is not changed. Raises NotFound."""
        rows = [
            {
                "ids": r.query_id,
                "retrieved": list(r.retrieved),
                "metrics": r.metrics,
                "latency": r.latency,
                "foreign": r.foreign_rows,
                "errors": r.error,
                "unscored": r.unscored,
            }
            for r in results
        ]
        return lambda gate: ops.add_results(gate, self._scope(gate), run_id, rows)

    add_results, aadd_results = twins(_add_results)

    def _results(self, run_id: str) -> Work[list[Result]]:
        """The results of a run, ordered by query id."""

        def work(gate: Gate) -> list[Result]:
            rows = ops.results(gate, self._scope(gate), run_id)
            return [Result(row[0], tuple(row[1]), *row[2:]) for row in rows]

        return work

    results, aresults = twins(_results)

    def _finish(self, run_id: str, summary: Mapping[str, Any]) -> Work[None]:
        """Store the summary of a run and mark it as finished. Raises NotFound."""
        return lambda gate: ops.finish_run(gate, self._scope(gate), run_id, summary)

    finish, afinish = twins(_finish)

    def _server_versions(self) -> Work[dict[str, str]]:
        """The versions of Postgres and of pgvector."""
        return lambda gate: dict(
            zip(("postgres", "pgvector"), ops.server_versions(gate, self._scope(gate)), strict=True)
        )

    server_versions, aserver_versions = twins(_server_versions)

    def _delete_run(self, run_id: str) -> Work[bool]:
        """Delete a run with its results; returns whether it existed."""
        return lambda gate: ops.delete_run(gate, self._scope(gate), run_id)

    delete_run, adelete_run = twins(_delete_run)

    def _save_records(self, kind: str, name: str, records: Sequence[Mapping[str, Any]]) -> Work[None]:
        """Store exactly these rows under a name, in order; `kind` is ``datasets`` or ``experiments``."""
        check_text(name, "name", MAX_NAME_BYTES)
        rows = list(records)
        return lambda gate: ops.save_records(
            gate, self._scope(gate), kind, name, rows, create_tenants=self._create_tenants
        )

    save_records, asave_records = twins(_save_records)

    def _records(self, kind: str, name: str) -> Work[list[dict[str, Any]]]:
        """The rows under a name, in order. Raises NotFound."""

        def work(gate: Gate) -> list[dict[str, Any]]:
            found = ops.records(gate, self._scope(gate), kind, name)
            if found is None:
                raise NotFound(f"{kind.rstrip('s')} {name!r:.80} does not exist")
            return found

        return work

    records, arecords = twins(_records)

    def _record_names(self, kind: str) -> Work[list[str]]:
        """The names that have rows."""
        return lambda gate: ops.record_names(gate, self._scope(gate), kind)

    record_names, arecord_names = twins(_record_names)
