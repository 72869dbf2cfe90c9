"""Stores and reads eval sets, runs and records for `pgrecall.evaluation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pgrecall.errors import InvalidInput, NotFound
from pgrecall.jsonable import dumps
from pgrecall.operations import tombstones
from pgrecall.operations.registry import Place, find_space
from pgrecall.operations.search import routes
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Gate, Rows, Scope, Transaction
from pgrecall.schema import GRAPH_NAME
from pgrecall.statements import evaluation as sql
from pgrecall.statements import graphs as graph_sql
from pgrecall.types import EmbedSpace

#: Rows per statement.
BATCH = 1_000


def _at(scope: Scope, **values: Any) -> dict[str, Any]:
    return {"tenant": scope.tenant, **values}


def _columns(rows: Sequence[Mapping[str, Any]], **kinds: str) -> dict[str, wire.Binary]:
    """Columns of `rows` as arrays. `kinds` maps each column's name to ``text``, ``json`` or ``int``."""
    made: dict[str, wire.Binary] = {}
    for name, kind in kinds.items():
        values = [row[name] for row in rows]
        if kind == "json":
            texts = [None if v is None else dumps(v, name) for v in values]
            made[name] = wire.jsonb_array(texts)
        else:
            made[name] = wire.text_array(values) if kind == "text" else wire.int4_array(values)
    return made


def save_set(
    gate: Gate, scope: Scope, header: Mapping[str, Any], queries: Sequence[Mapping[str, Any]], *, create_tenants: bool
) -> int:
    """Store a set as the next version of its name; returns the version.

    If a stored version has the same content, nothing is stored and that version is returned.
    """

    def body() -> int:
        with gate.transaction(scope, "eval set") as tx:
            tombstones.ensure_tenant(tx, scope, create=create_tenants)
            tx.rows(sql.LOCK_SET, _at(scope, name=header["name"]))
            found = tx.rows(sql.SETS, _at(scope, name=header["name"], version=None))
            for row in found:
                if row[2] == header["sha256"]:
                    return int(row[1])
            version = 1 + max((int(row[1]) for row in found), default=0)
            left_out = dumps(header["left_out"], "left_out")
            tx.count(sql.ADD_SET, _at(scope, **{**header, "version": version, "left_out": left_out}))
            for start in range(0, len(queries), BATCH):
                columns = _columns(
                    queries[start : start + BATCH],
                    ids="text",
                    texts="text",
                    judged="json",
                    tenants="text",
                    filters="json",
                    answers="text",
                    contexts="json",
                )
                tx.count(sql.ADD_QUERIES, _at(scope, name=header["name"], version=version, **columns))
            return version

    return gate.retrying(body)


def sets(gate: Gate, scope: Scope, name: str | None = None, version: int | None = None) -> Rows:
    """The headers of sets; of each name the newest version first."""
    with gate.transaction(scope, "eval sets") as tx:
        return tx.last(sql.SETS, _at(scope, name=name, version=version))


def queries(gate: Gate, scope: Scope, name: str, version: int) -> Rows:
    """The queries of one set, ordered by id."""
    with gate.transaction(scope, "eval queries") as tx:
        return tx.last(sql.QUERIES, _at(scope, name=name, version=version))


def delete_set(gate: Gate, scope: Scope, name: str, version: int | None) -> int:
    """Delete one version of a set, or all of them; returns how many versions were deleted."""
    values = _at(scope, name=name, version=version)
    with gate.transaction(scope, "eval set delete") as tx:
        tx.count(sql.DELETE_QUERIES, values)
        return tx.count(sql.DELETE_SETS, values)


def add_run(gate: Gate, scope: Scope, run: Mapping[str, Any], *, create_tenants: bool) -> None:
    """Begin a run. Raises InvalidInput if its id is taken."""
    with gate.transaction(scope, "eval run") as tx:
        tombstones.ensure_tenant(tx, scope, create=create_tenants)
        if tx.rows(sql.RUNS, _at(scope, run=run["run"], set_name=None, limit=1)):
            raise InvalidInput(f"run {run['run']!r:.80} already exists; resume it, or choose another id")
        tx.count(sql.ADD_RUN, _at(scope, **{**run, "config": dumps(run["config"], "config")}))


def runs(gate: Gate, scope: Scope, run: str | None = None, set_name: str | None = None, limit: int = 100) -> Rows:
    """Runs, newest first."""
    with gate.transaction(scope, "eval runs") as tx:
        return tx.last(sql.RUNS, _at(scope, run=run, set_name=set_name, limit=limit))


def _open(tx: Transaction, scope: Scope, run: str) -> None:
    if not tx.rows(sql.LOCK_RUN, _at(scope, run=run)):
        raise NotFound(f"run {run!r:.80} does not exist; it may have been deleted")


def add_results(gate: Gate, scope: Scope, run: str, results: Sequence[Mapping[str, Any]]) -> None:
    """Store the results of some queries of a run. Raises NotFound."""
    columns = _columns(
        results,
        ids="text",
        retrieved="json",
        metrics="json",
        latency="json",
        foreign="int",
        errors="text",
        unscored="json",
    )
    with gate.transaction(scope, "eval results") as tx:
        _open(tx, scope, run)
        tx.count(sql.ADD_RESULTS, _at(scope, run=run, **columns))


def results(gate: Gate, scope: Scope, run: str) -> Rows:
    """The results of a run, ordered by query id."""
    with gate.transaction(scope, "eval results") as tx:
        return tx.last(sql.RESULTS, _at(scope, run=run))


def finish_run(gate: Gate, scope: Scope, run: str, summary: Mapping[str, Any]) -> None:
    """Store a run's summary and mark it as done. Raises NotFound."""
    with gate.transaction(scope, "eval finish") as tx:
        if not tx.count(sql.FINISH_RUN, _at(scope, run=run, summary=dumps(summary, "summary"))):
            raise NotFound(f"run {run!r:.80} does not exist; it may have been deleted")


def delete_run(gate: Gate, scope: Scope, run: str) -> bool:
    """Delete a run and its results; returns whether it existed."""
    with gate.transaction(scope, "eval run delete") as tx:
        tx.count(sql.DELETE_RESULTS, _at(scope, run=run))
        return bool(tx.count(sql.DELETE_RUN, _at(scope, run=run)))


def save_records(
    gate: Gate, scope: Scope, kind: str, name: str, records: Sequence[Any], *, create_tenants: bool
) -> None:
    """Replace the records of a name by these, in their order."""

    def body() -> None:
        with gate.transaction(scope, "eval records") as tx:
            tombstones.ensure_tenant(tx, scope, create=create_tenants)
            tx.rows(sql.LOCK_RECORDS, _at(scope, kind=kind, name=name))
            tx.count(sql.DELETE_RECORDS, _at(scope, kind=kind, name=name))
            tx.count(sql.ADD_RECORDS, _at(scope, kind=kind, name=name, records=wire.jsonb_array(packed)))

    packed = ["null", *(dumps(record, f"record {place}") for place, record in enumerate(records))]
    gate.retrying(body)


def records(gate: Gate, scope: Scope, kind: str, name: str) -> list[Any] | None:
    """The records of a name, in order; None if none were ever stored under it."""
    with gate.transaction(scope, "eval records") as tx:
        rows = tx.last(sql.RECORDS, _at(scope, kind=kind, name=name))
    return [row[0] for row in rows[1:]] if rows else None


def record_names(gate: Gate, scope: Scope, kind: str) -> list[str]:
    """The names that have records."""
    with gate.transaction(scope, "eval record names") as tx:
        return [row[0] for row in tx.last(sql.RECORD_NAMES, _at(scope, kind=kind))]


def server_versions(gate: Gate, scope: Scope) -> tuple[str, str]:
    """The versions of Postgres and pgvector."""
    with gate.transaction(scope, "versions") as tx:
        [(postgres, pgvector)] = tx.last(sql.SERVER, {})
    return postgres, pgvector


def row_counts(gate: Gate, scope: Scope, collection: str) -> dict[str, int]:
    """The number of chunks and documents of a collection."""
    with gate.transaction(scope, "row counts") as tx:
        [(chunks, documents)] = tx.last(sql.ROW_COUNTS, _at(scope, collection=collection))
    return {"chunks": chunks, "documents": documents}


def graph_of(gate: Gate, place: Place, space: EmbedSpace) -> dict[str, int] | None:
    """The graph that a collection's searches use, or None if they are exact.

    Its keys are `generation`, `m`, `ef_construction` and `ef_search`; the last is the default for searches without a
    filter.
    """
    space_id = find_space(gate, place.scope, space)
    route = routes.NOWHERE if space_id is None else routes.look(gate, place, space, space_id)
    if not route.by_graph(space, 1):
        return None
    pattern = f"^{GRAPH_NAME.format(space=space_id, generation=route.generation)}(_p[0-9]+)?$"
    built = gate.read(place.scope, "graph", lambda tx: tx.last(graph_sql.INDEXES, {"pattern": pattern}))
    options = dict(option.split("=") for _, valid, found in built if valid for option in found)
    shape = {name: int(value) for name, value in options.items()}
    return {"generation": route.generation, "ef_search": route.breadth(filtered=False)} | shape
