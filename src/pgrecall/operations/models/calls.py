"""Calls of an embedding model: with retries while it is busy, and optionally several concurrently."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import tenacity
from sqlalchemy.util import greenlet_spawn

from pgrecall.errors import InvalidInput
from pgrecall.operations.models.embedding import Embed, Embedder, call_embed
from pgrecall.postgres.transactions import Gate

P = TypeVar("P")
R = TypeVar("R")

#: Texts per call: about what hosted models accept, and small enough for a progress bar to move.
EMBED_BATCH = 100
#: HTTP status codes that mean "try again later": too many requests, unavailable, or overloaded.
BUSY = frozenset({429, 503, 529})
#: Attempts per batch, and the longest pause between two, in seconds: about two minutes in total.
ATTEMPTS, LONGEST_PAUSE = 8, 60.0
#: Most concurrent calls. Each needs a thread if the function is synchronous.
MOST_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Calls:
    """How a model is called: the number of concurrent calls, and which errors are retried besides busy answers."""

    at_once: int = 1
    retry_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.at_once, bool) or not isinstance(self.at_once, int) or not 1 <= self.at_once <= MOST_AT_ONCE:
            raise InvalidInput(
                f"embed_concurrency is {self.at_once!r:.40}; expected a whole number from 1 to {MOST_AT_ONCE}"
            )
        if not isinstance(self.retry_on, tuple) or not all(
            isinstance(kind, type) and issubclass(kind, BaseException) for kind in self.retry_on
        ):
            raise InvalidInput(f"retry_on is {self.retry_on!r:.80}; expected a tuple of exception classes")

    def is_retryable(self, error: BaseException) -> bool:
        """Whether the error is worth a retry: it, or one of its causes, is a busy answer or in `retry_on`."""
        return any(isinstance(e, self.retry_on) or _status(e) in BUSY for e in _causes(error))


#: One call at a time, with retries for busy answers only.
PLAIN = Calls()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _status(error: BaseException) -> int | None:
    """The HTTP status, from where clients of hosted models put it: the exception (`code` at Google) or its response."""
    for each in (error, getattr(error, "response", None)):
        for name in ("status_code", "code"):
            status = getattr(each, name, None)
            if isinstance(status, int):  # http.HTTPStatus is one
                return status
    return None


def _retry_after(error: BaseException) -> float:
    """The Retry-After header in seconds, 0 if there is none."""
    for each in _causes(error):
        headers = getattr(getattr(each, "response", None), "headers", None)
        try:
            return max(0.0, float(headers["retry-after"]))  # type: ignore[index]
        except (KeyError, TypeError, ValueError):
            continue
    return 0.0


_backoff = tenacity.wait_random_exponential(multiplier=1.0, max=LONGEST_PAUSE)


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    return min(LONGEST_PAUSE, max(_backoff(state), 0.0 if error is None else _retry_after(error)))


def with_retries(gate: Gate, calls: Calls, work: Callable[[], R]) -> R:
    """Run `work`, which calls a model; retry with back-off while it is busy. Raises the last attempt's error."""
    policy = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=_pause,
        retry=tenacity.retry_if_exception(calls.is_retryable),
        sleep=gate.sleep,
        reraise=True,
    )
    return policy(work)


def embed_ahead(
    gate: Gate, embed: Embed, parts: Iterable[tuple[P, list[str]]], calls: Calls = PLAIN
) -> Generator[tuple[P, Any], None, None]:
    """Yield each part with the vectors of its texts, in order. Parts without texts are yielded without vectors.

    At most `calls.at_once` calls run ahead of the consumer, so a slow consumer slows them down. `parts` is consumed in
    the caller's thread.
    """
    if calls.at_once == 1:
        for part, texts in parts:
            vectors: Any = []
            if texts:
                vectors = with_retries(gate, calls, lambda texts=texts: call_embed(gate, embed, texts))  # type: ignore[misc]
            yield part, vectors
        return
    function = _concurrent_on_loop(gate, embed)

    def call(texts: list[str]) -> Any:
        return with_retries(gate, calls, lambda: call_embed(gate, function, texts)) if texts else []

    yield from (_tasks if gate.is_async else _threads)(gate, call, parts, calls.at_once)


def _concurrent_on_loop(gate: Gate, embed: Embed) -> Embed:
    """The function; on an event loop, a synchronous one is run in threads, so that calls run concurrently."""
    if not gate.is_async:
        return embed
    function = embed.aembed if isinstance(embed, Embedder) else embed
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        return function
    return lambda texts: _in_thread(function, texts)


async def _in_thread(function: Embed, texts: list[str]) -> Any:
    vectors = await asyncio.to_thread(function, texts)
    return await vectors if inspect.isawaitable(vectors) else vectors


def _threads(
    gate: Gate, call: Callable[[list[str]], Any], parts: Iterable[tuple[P, list[str]]], most: int
) -> Iterator[tuple[P, Any]]:
    pool = ThreadPoolExecutor(most, "pgrecall-embed")
    running: deque[tuple[P, Any]] = deque()
    try:
        for part, texts in parts:
            running.append((part, pool.submit(contextvars.copy_context().run, call, texts)))
            if len(running) >= most:
                done, future = running.popleft()
                yield done, future.result()
        while running:
            done, future = running.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _tasks(
    gate: Gate, call: Callable[[list[str]], Any], parts: Iterable[tuple[P, list[str]]], most: int
) -> Iterator[tuple[P, Any]]:
    running: deque[tuple[P, asyncio.Task[Any]]] = deque()
    try:
        for part, texts in parts:
            running.append((part, asyncio.ensure_future(greenlet_spawn(call, texts))))
            if len(running) >= most:
                done, task = running.popleft()
                yield done, gate.wait(task)
        while running:
            done, task = running.popleft()
            yield done, gate.wait(task)
    finally:
        for _, task in running:
            task.add_done_callback(_discard_error)
            task.cancel()


def _discard_error(task: asyncio.Task[Any]) -> None:
    """Retrieve the error of a task that is no longer awaited, so that the event loop does not report it."""
    if not task.cancelled():
        task.exception()
