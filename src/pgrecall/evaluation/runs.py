"""Running an eval set through a retriever: every query answered once, scored, kept, and summed up.

A run that is interrupted is resumed under its id and ends with the same figures: results are kept as they come, and
what a query scored depends on it alone.
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
from pgrecall.evaluation.jobs import Job, Scorer, owners_of
from pgrecall.evaluation.metrics import Metric, standard
from pgrecall.evaluation.sets import EvalSet
from pgrecall.evaluation.store import Evaluations, Result, RunInfo, new_run_id
from pgrecall.evaluation.summary import summed_up

#: Depths at which everything is measured, unless the caller says.
DEPTHS = (1, 3, 5, 10)
#: Results that are kept in one transaction; an interruption loses no more than these.
KEEP_EVERY = 50
Progress = Callable[[int, int], None]
P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class EvalRun:
    """A finished run: what was asked of what, each query's result in the set's order, and the summary."""

    run_id: str
    set_name: str
    set_version: int | None
    set_sha256: str
    config: Mapping[str, Any]
    results: tuple[Result, ...]
    summary: Mapping[str, Any]

    def mean(self, metric: str) -> float:
        """The mean of a metric over all queries, failed ones counted as 0. Raises InvalidInput."""
        try:
            return float(self.summary["metrics"][metric]["mean"])
        except KeyError as exc:
            known = ", ".join(self.summary["metrics"])
            raise InvalidInput(f"run {self.run_id} has no metric {metric!r:.60}; it has: {known}") from exc


def versions() -> dict[str, Any]:
    """What ran: versions of this package and of Python, and the commit of the folder that it ran in."""
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


def _config(job: Job, depths: Sequence[int], seed: int, label: str | None) -> dict[str, Any]:
    """What decides the figures, under ``asked``, and what they were made with."""
    asked = {
        "retriever": job.retriever.config,
        "top_k": list(depths),
        "metrics": [str(metric) for metric in job.metrics],
        "scorers": [scorer.config for scorer in job.scorers],
        "seed": seed,
    }
    return {"asked": asked, "label": label, "versions": versions()}


def depths_of(top_k: Sequence[int] | int) -> list[int]:
    """The depths that `top_k` names, sorted. Raises InvalidInput."""
    named = top_k if isinstance(top_k, Iterable) and not isinstance(top_k, str) else (top_k,)
    depths = sorted({whole_number(k, "top_k", 1) for k in named})
    if not depths:
        raise InvalidInput("top_k is empty; expected one depth or more, such as (1, 5, 10)")
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
) -> tuple[Job, list[int]]:
    depths = depths_of(top_k)
    if isinstance(metrics, str):
        raise InvalidInput(f"metrics is {metrics!r:.60}; expected a list of names, such as [{metrics!r:.60}]")
    chosen = standard(depths) if metrics is None else [Metric.of(name) for name in metrics]
    depth = max([*depths, *(m.k for m in chosen if m.k is not None)])
    asked = adapt(retriever, **options)
    if ann_recall:
        asked, scorer = against_exact(asked, depths, depth)
        scorers = [*scorers, scorer]
    return Job(asked, eval_set, chosen, depth, owners_of(eval_set, tenant_of), scorers), depths


def _resumable(info: RunInfo, eval_set: EvalSet, config: Mapping[str, Any]) -> None:
    """Raise InvalidInput where the run was begun on other data, or asked another thing."""
    if info.set_sha256 != eval_set.sha256:
        raise InvalidInput(
            f"run {info.run_id} was begun on another version of its set (sha256 {info.set_sha256[:12]}…, this one has "
            f"{eval_set.sha256[:12]}…); begin a new run"
        )
    before, now = info.config["asked"], config["asked"]
    if changed := [name for name in now if before.get(name) != now[name]]:
        what = "; ".join(f"{name} was {before.get(name)!r:.200}, is {now[name]!r:.200}" for name in changed)
        raise InvalidInput(f"run {info.run_id} can't be resumed, its figures would mix two things: {what}")


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
    """Put every query of a set to a retriever, and measure what comes back.

    `retriever` is a core store (then `embed=`, `mode=`, `filters=`, `mmr=` and options of its `query` go along), a
    LangChain or LlamaIndex retriever, or any function; `by="document"` scores documents instead of chunks (see
    `adapt`). `top_k` are the depths to measure at, the largest is asked for; `metrics` names measures, such as
    ``ndcg@10``, all of them at these depths where left out; `scorers` judge by more than ids, as `RagasScorer` does;
    `ann_recall` compares each answer of a core store with its exact search, as ``ann_recall@k``. `concurrency` is how
    many queries are under way at once: threads, or tasks of `aevaluate`. `progress(done, total)` is called after each.
    `store` keeps the run; naming the `run_id` of one that was interrupted goes on with it, and queries that failed are
    tried again. `tenant_of(id)` says whose an id is, for the count of foreign rows; left out, an id belongs to the
    tenants whose questions it answers.

    A query that fails counts as 0 and is counted as failed; an empty answer counts as 0 and is counted as empty.
    Raises: InvalidInput; what the store raises.
    """
    if not isinstance(eval_set, EvalSet):
        raise InvalidInput(
            f"eval_set is {type(eval_set).__name__}; expected an EvalSet, such as store.load_set(name) gives"
        )
    if store is not None and not isinstance(store, Evaluations):
        raise InvalidInput(
            f"store is {type(store).__name__}; expected Evaluations(db.tenant(…)), which keeps runs, or None"
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
    """The synchronous and the asynchronous function of one body."""

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
    """How a run waits: in threads."""

    def kept(self, store: Evaluations, verb: str, *args: Any, **options: Any) -> Any:
        """Call a verb of the store."""
        return getattr(store, verb)(*args, **options)

    def answers(self, job: Job, concurrency: int) -> Iterator[Result]:
        """Results as they come, no more than `concurrency` queries under way."""
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
    """How a run waits: in tasks of the running event loop; the body runs in SQLAlchemy's greenlet."""

    def kept(self, store: Evaluations, verb: str, *args: Any, **options: Any) -> Any:
        """Await the twin of a verb of the store."""
        return await_only(getattr(store, "a" + verb)(*args, **options))

    def answers(self, job: Job, concurrency: int) -> Iterator[Result]:
        """Results as they come, no more than `concurrency` queries under way."""
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
    """Keeps a run's results as they come, where there is a store."""

    io: _Io
    store: Evaluations | None
    run_id: str
    fresh: list[Result] = field(default_factory=list)
    done: dict[str, Result] = field(default_factory=dict)

    def begin(self, eval_set: EvalSet, config: dict[str, Any], job: Job) -> int | None:
        """Begin the run, or go on with it; returns the set's version."""
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
        """Take a result; every so many are kept."""
        self.done[result.query_id] = result
        self.fresh.append(result)
        if len(self.fresh) >= KEEP_EVERY:
            self.keep()

    def keep(self) -> None:
        """Keep what came since the last time."""
        if self.store is not None and self.fresh:
            self.io.kept(self.store, "add_results", self.run_id, self.fresh)
        self.fresh.clear()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Keep the summary."""
        if self.store is not None:
            self.io.kept(self.store, "finish", self.run_id, summary)


def load_run(store: Evaluations, run_id: str) -> EvalRun:
    """A finished run as it is kept. Raises: NotFound; InvalidInput where it is not finished."""
    info = store.run_info(run_id)
    if info.summary is None:
        raise InvalidInput(
            f"run {run_id} is not finished; resume it: evaluate(…, run_id={run_id!r}), or "
            f"pgrecall eval run {info.set_name} --run {run_id}, with the options that it was begun with"
        )
    results = tuple(store.results(run_id))
    return EvalRun(run_id, info.set_name, info.set_version, info.set_sha256, info.config, results, info.summary)
