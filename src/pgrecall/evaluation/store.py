"""Where eval sets and runs are kept: in one tenant, under row-level security like everything else."""

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
from pgrecall.postgres.transactions import Gate, Scope
from pgrecall.stores.tenant import Tenant
from pgrecall.stores.twins import R, Work, twins


@dataclass(frozen=True, slots=True)
class SetInfo:
    """A version of an eval set as it is kept."""

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
    """What came of one query: `retrieved` best first, `metrics` by name, `latency` in milliseconds by step.

    A query that failed has its `error`, no rows, and 0 in every metric. `foreign_rows` counts rows of other tenants.
    `unscored` says why a scorer gave no score, by name.
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
    """A run as it is kept; `summary` is there once it is done."""

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
    """An id that sorts by time and that no two runs share."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


class Evaluations:
    """The eval sets, runs and records of one tenant. Every method has a twin with an `a` before its name."""

    def __init__(self, tenant: Tenant) -> None:
        if not isinstance(tenant, Tenant):
            raise InvalidInput(f"the evaluations' tenant is {type(tenant).__name__}; expected db.tenant(…)")
        self._tenant = tenant

    @property
    def tenant_id(self) -> str:
        """The tenant that keeps them."""
        return self._tenant.tenant_id

    def __repr__(self) -> str:
        return f"<pgrecall.evaluation.Evaluations tenant={self.tenant_id!r}>"

    def _run(self, work: Work[R]) -> R:
        return self._tenant._run(work)

    async def _arun(self, work: Work[R]) -> R:
        return await self._tenant._arun(work)

    def _scope(self, gate: Gate) -> Scope:
        return self._tenant._scope(gate)

    @property
    def _creates(self) -> bool:
        return self._tenant._create_tenants

    def _save_set(self, eval_set: EvalSet) -> Work[SetInfo]:
        """Keep a set as the next version of its name; the version that stands where its content is the same."""
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
            version = ops.save_set(gate, scope, header, queries, create_tenants=self._creates)
            return SetInfo(*ops.sets(gate, scope, eval_set.name, version)[0])

        return work

    save_set, asave_set = twins(_save_set)

    def _sets(self, name: str | None = None) -> Work[list[SetInfo]]:
        """Every version of every set, or of the one of this name; newest version of a name first."""
        return lambda gate: [SetInfo(*row) for row in ops.sets(gate, self._scope(gate), name)]

    sets, asets = twins(_sets)

    def _load_set(self, name: str, version: int | None = None) -> Work[EvalSet]:
        """A set with its queries, ordered by id: this version, or the newest. Raises NotFound."""

        def work(gate: Gate) -> EvalSet:
            scope = self._scope(gate)
            rows = ops.sets(gate, scope, name, version)
            if not rows:
                asked = f"eval set {name!r:.80}" + (f" version {version}" if version is not None else "")
                raise NotFound(f"there is no {asked}; see: pgrecall eval list")
            info = SetInfo(*rows[0])
            queries = tuple(
                EvalQuery(i, text, judged, tenant, filters, answer, tuple(contexts))
                for i, text, judged, tenant, filters, answer, contexts in ops.queries(gate, scope, name, info.version)
            )
            return EvalSet(info.name, queries, info.source, info.licence, info.kind, info.left_out)

        return work

    load_set, aload_set = twins(_load_set)

    def _delete_set(self, name: str, version: int | None = None) -> Work[int]:
        """Delete one version of a set, or all; runs made on it stay. Returns how many versions went."""
        return lambda gate: ops.delete_set(gate, self._scope(gate), name, version)

    delete_set, adelete_set = twins(_delete_set)

    def _begin(self, run_id: str, eval_set: EvalSet, version: int | None, config: Mapping[str, Any]) -> Work[RunInfo]:
        """Begin a run under a new id. Raises InvalidInput where it is taken."""
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
            ops.add_run(gate, scope, run, create_tenants=self._creates)
            return RunInfo(*ops.runs(gate, scope, run_id)[0])

        return work

    begin, abegin = twins(_begin)

    def _run_info(self, run_id: str) -> Work[RunInfo]:
        """One run. Raises NotFound."""

        def work(gate: Gate) -> RunInfo:
            rows = ops.runs(gate, self._scope(gate), run_id)
            if not rows:
                raise NotFound(f"there is no run {run_id!r:.80}; see: pgrecall eval list")
            return RunInfo(*rows[0])

        return work

    run_info, arun_info = twins(_run_info)

    def _runs(self, set_name: str | None = None, *, limit: int = 100) -> Work[list[RunInfo]]:
        """Runs, newest first; of one set where it is named."""
        return lambda gate: [RunInfo(*row) for row in ops.runs(gate, self._scope(gate), None, set_name, limit)]

    runs, aruns = twins(_runs)

    def _add_results(self, run_id: str, results: Sequence[Result]) -> Work[None]:
        """Keep the results of some queries; one that is kept already stays as it is. Raises NotFound."""
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
        """The results of a run, by query id."""

        def work(gate: Gate) -> list[Result]:
            rows = ops.results(gate, self._scope(gate), run_id)
            return [Result(row[0], tuple(row[1]), *row[2:]) for row in rows]

        return work

    results, aresults = twins(_results)

    def _finish(self, run_id: str, summary: Mapping[str, Any]) -> Work[None]:
        """Keep a run's summary and mark it done. Raises NotFound."""
        return lambda gate: ops.finish_run(gate, self._scope(gate), run_id, summary)

    finish, afinish = twins(_finish)

    def _server_versions(self) -> Work[dict[str, str]]:
        """The versions of Postgres and of pgvector."""
        return lambda gate: dict(
            zip(("postgres", "pgvector"), ops.server_versions(gate, self._scope(gate)), strict=True)
        )

    server_versions, aserver_versions = twins(_server_versions)

    def _delete_run(self, run_id: str) -> Work[bool]:
        """Delete a run with its results; whether there was one."""
        return lambda gate: ops.delete_run(gate, self._scope(gate), run_id)

    delete_run, adelete_run = twins(_delete_run)

    def _save_records(self, kind: str, name: str, records: Sequence[Mapping[str, Any]]) -> Work[None]:
        """Put exactly these rows under a name, in order; `kind` is ``datasets`` or ``experiments``."""
        check_text(name, "name", MAX_NAME_BYTES)
        rows = list(records)
        return lambda gate: ops.save_records(gate, self._scope(gate), kind, name, rows, create_tenants=self._creates)

    save_records, asave_records = twins(_save_records)

    def _records(self, kind: str, name: str) -> Work[list[dict[str, Any]]]:
        """The rows under a name, in order. Raises NotFound."""

        def work(gate: Gate) -> list[dict[str, Any]]:
            found = ops.records(gate, self._scope(gate), kind, name)
            if found is None:
                raise NotFound(f"there is no {kind.rstrip('s')} {name!r:.80}")
            return found

        return work

    records, arecords = twins(_records)

    def _record_names(self, kind: str) -> Work[list[str]]:
        """The names under which there are rows."""
        return lambda gate: ops.record_names(gate, self._scope(gate), kind)

    record_names, arecord_names = twins(_record_names)
