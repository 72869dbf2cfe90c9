"""Runs an eval set through a retriever: answers each query, scores and stores the result, and summarises the run.

An interrupted run can be resumed by its id and ends with the same figures: results are stored as they arrive, and
a query's score does not depend on other queries.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import platform
import subprocess
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial, wraps
from itertools import islice
from typing import Any, Concatenate, ParamSpec

from sqlalchemy.util import await_only, greenlet_spawn

from pgrecall.arguments import MAX_NAME_BYTES, check_text, whole_number
from pgrecall.errors import InvalidInput, NotFound
from pgrecall.evaluation.adapters import adapt
from pgrecall.evaluation.ann import against_exact
from pgrecall.evaluation.jobs import EvaluationJob, Scorer, owners_of
from pgrecall.evaluation.metrics import Metric, standard
from pgrecall.evaluation.sets import EvalSet
from pgrecall.evaluation.store import Evaluations, Result, RunInfo, new_run_id
from pgrecall.evaluation.summary import summed_up

#: The default depths of measures.
DEPTHS = (1, 3, 5, 10)
#: Results that are stored in one transaction; an interruption loses at most these.
KEEP_EVERY = 50
Progress = Callable[[int, int], None]
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class EvalRun:
    """A finished run: its configuration, the result of each query in the order of the set, and the summary."""

    run_id: str
    set_name: str
    set_version: int | None
    set_sha256: str
    config: Mapping[str, Any]
    results: tuple[Result, ...]
    summary: Mapping[str, Any]

    def mean(self, metric: str) -> float:
        """The mean of a metric over all queries; failed ones count as 0. Raises InvalidInput."""
        try:
            return float(self.summary["metrics"][metric]["mean"])
        except KeyError as exc:
            known = ", ".join(self.summary["metrics"])
            raise InvalidInput(f"run {self.run_id} has no metric {metric!r:.60}; expected one of: {known}") from exc


def versions() -> dict[str, Any]:
    """The versions of pgrecall, Python and related packages, and the Git commit of the working directory."""
    made: dict[str, Any] = {"python": platform.python_version()}
    for package in ("pgrecall", "langchain-core", "llama-index-core", "ragas", "numpy"):
        try:
            made[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    try:
        shown = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        made["git_commit"] = shown.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        made["git_commit"] = None
    return made


def _config(job: EvaluationJob, depths: Sequence[int], seed: int, label: str | None) -> dict[str, Any]:
    """What the figures depend on, under ``asked``, and the versions that they were made with."""
    asked = {
        "retriever": job.retriever.config,
        "top_k": list(depths),
        "metrics": [str(metric) for metric in job.metrics],
        "scorers": [scorer.config for scorer in job.scorers],
        "seed": seed,
    }
    return {"asked": asked, "label": label, "versions": versions()}


def depths_of(top_k: Sequence[int] | int) -> list[int]:
    """The distinct depths of `top_k`, sorted. Raises InvalidInput."""
    named = top_k if isinstance(top_k, Iterable) and not isinstance(top_k, str) else (top_k,)
    depths = sorted({whole_number(k, "top_k", 1) for k in named})
    if not depths:
        raise InvalidInput("top_k is empty; expected at least one depth, such as (1, 5, 10)")
    return depths


def _prepare(
    retriever: Any,
    eval_set: EvalSet,
    top_k: Sequence[int] | int,
    metrics: Sequence[str] | None,
    scorers: Sequence[Scorer],
    ann_recall: bool,
    tenant_of: Callable[[str], str | None] | None,
    options: Mapping[str, Any],
) -> tuple[EvaluationJob, list[int]]:
    depths = depths_of(top_k)
    if isinstance(metrics, str):
        raise InvalidInput(f"metrics is {metrics!r:.60}; expected a list of names, such as [{metrics!r:.60}]")
    chosen = standard(depths) if metrics is None else [Metric.of(name) for name in metrics]
    depth = max([*depths, *(m.k for m in chosen if m.k is not None)])
    asked = adapt(retriever, **options)
    if ann_recall:
        asked, scorer = against_exact(asked, depths, depth)
        scorers = [*scorers, scorer]
    return EvaluationJob(asked, eval_set, chosen, depth, owners_of(eval_set, tenant_of), scorers), depths


def _resumable(info: RunInfo, eval_set: EvalSet, config: Mapping[str, Any]) -> None:
    """Raise InvalidInput if the run began on other data, or with another configuration."""
    if info.set_sha256 != eval_set.sha256:
        raise InvalidInput(
            f"run {info.run_id} began on another version of its set (sha256 {info.set_sha256[:12]}…, not "
            f"{eval_set.sha256[:12]}…); begin a new run"
        )
    before, now = info.config["asked"], config["asked"]
    if changed := [name for name in now if before.get(name) != now[name]]:
        what = "; ".join(f"{name} was {before.get(name)!r:.200}, is {now[name]!r:.200}" for name in changed)
        raise InvalidInput(f"run {info.run_id} began with another configuration: {what}. Begin a new run")


def _evaluate(
    io: _Io,
    /,
    retriever: Any,
    eval_set: EvalSet,
    *,
    store: Evaluations | None = None,
    top_k: Sequence[int] | int = DEPTHS,
    metrics: Sequence[str] | None = None,
    scorers: Sequence[Scorer] = (),
    ann_recall: bool = False,
    concurrency: int = 1,
    progress: Progress | None = None,
    run_id: str | None = None,
    seed: int = 0,
    label: str | None = None,
    tenant_of: Callable[[str], str | None] | None = None,
    **options: Any,
) -> EvalRun:
    """Ask a retriever every query of a set, and measure its answers.

    A query that fails and an empty answer count as 0; the summary counts both.

    Args:
        retriever: A core store, a LangChain or LlamaIndex retriever, or a function; see `adapt`.
        eval_set: The queries and judgements.
        store: Stores the run, and the set if it is new. By default the run is only returned.
        top_k: The depths of the measures; by default (1, 3, 5, 10). The retriever is asked for the largest.
        metrics: Names of measures, such as ``ndcg@10``. By default all except ndcg_exp, at each depth.
        scorers: Score by more than ids, such as `RagasScorer`.
        ann_recall: Compare each answer of a core store with its exact search, as ``ann_recall@k``; by default False.
        concurrency: How many queries run at the same time, in threads, or in tasks of `aevaluate`; by default 1.
        progress: Called after each query with the number of queries done and their total.
        run_id: The id of the run. If `store` has an unfinished run of this id, it is resumed, and its failed queries
            are asked again. By default the run gets a new id.
        seed: The seed of the bootstrap intervals; by default 0.
        label: A name for reports.
        tenant_of: Returns the tenant of an id, to count rows of other tenants. By default an id belongs to the
            tenants of the queries for which it is relevant.
        **options: Arguments of `adapt`, such as `embed`, `mode` and `by`.

    Raises:
        InvalidInput: An argument is invalid, or the run can't be resumed with this set and configuration.
        Unavailable: The store's database cannot be reached.
    """
    if not isinstance(eval_set, EvalSet):
        raise InvalidInput(
            f"eval_set is {type(eval_set).__name__}; expected an EvalSet, such as that of store.load_set(name)"
        )
    if store is not None and not isinstance(store, Evaluations):
        raise InvalidInput(
            f"store is {type(store).__name__}; expected Evaluations(db.tenant(…)), or None to store nothing"
        )
    job, depths = _prepare(retriever, eval_set, top_k, metrics, scorers, ann_recall, tenant_of, options)
    concurrency = whole_number(concurrency, "concurrency", 1)
    run_id = check_text(new_run_id() if run_id is None else run_id, "run_id", MAX_NAME_BYTES)
    config = _config(job, depths, seed, label)
    keeper = _Keeper(io, store, run_id)
    version = keeper.begin(eval_set, config, job)
    try:
        for result in io.answers(job, concurrency):
            keeper.add(result)
            if progress is not None:
                progress(len(job.done), len(eval_set.queries))
    finally:
        keeper.keep()
    ordered = tuple(job.done[query.id] for query in eval_set.queries)
    summary = summed_up(eval_set, ordered, seed)
    keeper.finish(summary)
    return EvalRun(run_id, eval_set.name, version, eval_set.sha256, config, ordered, summary)


def _faces(
    body: Callable[Concatenate[_Io, P], EvalRun],
) -> tuple[Callable[P, EvalRun], Callable[P, Coroutine[Any, Any, EvalRun]]]:
    """Make a synchronous and an asynchronous function of one body."""

    @wraps(body)
    def call(*args: P.args, **kwargs: P.kwargs) -> EvalRun:
        return body(_Io(), *args, **kwargs)

    @wraps(body)
    async def acall(*args: P.args, **kwargs: P.kwargs) -> EvalRun:
        return await greenlet_spawn(partial(body, _AsyncIo(), *args, **kwargs))

    signature = inspect.signature(body)
    faces: tuple[tuple[Any, str], ...] = ((call, "evaluate"), (acall, "aevaluate"))
    for face, name in faces:
        face.__name__ = face.__qualname__ = name
        face.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
    return call, acall


evaluate, aevaluate = _faces(_evaluate)


class _Io:
    """Waits in threads."""

    def kept(self, store: Evaluations, verb: str, *args: Any, **options: Any) -> Any:
        """Call a method of the store."""
        return getattr(store, verb)(*args, **options)

    def answers(self, job: EvaluationJob, concurrency: int) -> Iterator[Result]:
        """Results as they arrive; at most `concurrency` queries run at the same time."""
        if concurrency == 1:
            yield from map(job.answer, job.left)
            return
        queries = iter(job.left)
        with ThreadPoolExecutor(concurrency, thread_name_prefix="evaluate") as pool:
            running = {pool.submit(job.answer, query) for query in islice(queries, concurrency)}
            while running:
                done, running = futures.wait(running, return_when=futures.FIRST_COMPLETED)
                running |= {pool.submit(job.answer, query) for query in islice(queries, len(done))}
                yield from (future.result() for future in done)


class _AsyncIo(_Io):
    """Waits in tasks of the running event loop; the body runs in SQLAlchemy's greenlet."""

    def kept(self, store: Evaluations, verb: str, *args: Any, **options: Any) -> Any:
        """Await the asynchronous twin of a method of the store."""
        return await_only(getattr(store, "a" + verb)(*args, **options))

    def answers(self, job: EvaluationJob, concurrency: int) -> Iterator[Result]:
        """Results as they arrive; at most `concurrency` queries run at the same time."""
        queries = iter(job.left)
        running = {asyncio.ensure_future(job.aanswer(query)) for query in islice(queries, concurrency)}
        try:
            while running:
                done, running = await_only(asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED))
                running |= {asyncio.ensure_future(job.aanswer(query)) for query in islice(queries, len(done))}
                yield from (task.result() for task in done)
        finally:
            for task in running:
                task.cancel()


@dataclass(slots=True)
class _Keeper:
    """Stores the results of a run as they arrive, if there is a store."""

    io: _Io
    store: Evaluations | None
    run_id: str
    fresh: list[Result] = field(default_factory=list)
    done: dict[str, Result] = field(default_factory=dict)

    def begin(self, eval_set: EvalSet, config: dict[str, Any], job: EvaluationJob) -> int | None:
        """Begin the run, or resume it; returns the version of the set."""
        self.done = job.done
        if self.store is None:
            return None
        version = self.io.kept(self.store, "save_set", eval_set).version
        config["database"] = self.io.kept(self.store, "server_versions")
        try:
            info = self.io.kept(self.store, "run_info", self.run_id)
        except NotFound:
            self.io.kept(self.store, "begin", self.run_id, eval_set, version, config)
        else:
            _resumable(info, eval_set, config)
            results = self.io.kept(self.store, "results", self.run_id)
            self.done.update({result.query_id: result for result in results if result.error is None})
        return int(version)

    def add(self, result: Result) -> None:
        """Add a result; every `KEEP_EVERY` results they are stored."""
        self.done[result.query_id] = result
        self.fresh.append(result)
        if len(self.fresh) >= KEEP_EVERY:
            self.keep()

    def keep(self) -> None:
        """Store the results that were added since the last call."""
        if self.store is not None and self.fresh:
            self.io.kept(self.store, "add_results", self.run_id, self.fresh)
        self.fresh.clear()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Store the summary."""
        if self.store is not None:
            self.io.kept(self.store, "finish", self.run_id, summary)


def load_run(store: Evaluations, run_id: str) -> EvalRun:
    """Load a finished run. Raises NotFound, and InvalidInput if the run is not finished."""
    info = store.run_info(run_id)
    if info.summary is None:
        raise InvalidInput(
            f"run {run_id} is not finished; resume it by evaluate(…, run_id={run_id!r}) or "
            f"pgrecall eval run {info.set_name} --run {run_id}, with its original options"
        )
    results = tuple(store.results(run_id))
    return EvalRun(run_id, info.set_name, info.set_version, info.set_sha256, info.config, results, info.summary)
