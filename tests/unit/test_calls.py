"""Calls of an embedding model: in order, bounded in number and read-ahead, with retries only for a busy model."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from sqlalchemy.util import greenlet_spawn

from pgrecall import InvalidEmbedding, InvalidInput
from pgrecall.operations.models import calls
from pgrecall.operations.models.calls import Calls, embed_ahead
from pgrecall.postgres.engine_gate import EngineGate

ENGINE = sa.create_engine("postgresql+psycopg://")  # never connected to: no call here needs a database
PARTS = [(n, [] if n == 3 else [f"text {n}"] * (n + 1)) for n in range(12)]
RIGHT = [(n, [[float(n)]] * (0 if n == 3 else n + 1)) for n in range(12)]


class Busy(Exception):
    """As a hosted model's client says that it was asked too often."""

    def __init__(self, **said):
        self.__dict__.update(said)


class Model:
    """Counts its calls, and how many run at once; none but the first three ends before `together` run."""

    def __init__(self, fails=lambda call: None, together=1):
        self.fails, self.calls, self.running, self.most, self.together = fails, 0, 0, 0, together
        self.lock, self.deadline = threading.Lock(), time.monotonic() + 30

    def _begin(self):
        with self.lock:
            self.calls, self.running = self.calls + 1, self.running + 1
            self.most = max(self.most, self.running)
            return self.calls, self.fails(self.calls)

    def _lonely(self, number):
        # The fourth of PARTS makes no call, so of the first four parts only three calls run at once.
        return number > 3 and self.most < self.together and time.monotonic() < self.deadline

    def _end(self, error, texts):
        with self.lock:
            self.running -= 1
        if error is not None:
            raise error
        return [[float(t.split()[1])] for t in texts]

    def sync(self, texts):
        number, error = self._begin()
        time.sleep(0.005)
        while self._lonely(number):
            time.sleep(0.001)
        return self._end(error, texts)

    async def later(self, texts):
        number, error = self._begin()
        await asyncio.sleep(0.005)
        while self._lonely(number):
            await asyncio.sleep(0.001)
        return self._end(error, texts)


MODES = {
    "sync": (False, "sync"),
    "async": (True, "later"),
    "sync function on an event loop": (True, "sync"),
}


@pytest.fixture(params=MODES)
def answers(request):
    """Answers of embed_ahead in a mode, each with how many calls were begun when it was taken."""
    is_async, function = MODES[request.param]

    def run(model, at_once, **options):
        gate = EngineGate(ENGINE, is_async=is_async)

        def work():
            ahead = embed_ahead(gate, getattr(model, function), iter(PARTS), Calls(at_once, **options))
            return [(part, vectors, model.calls) for part, vectors in ahead]

        return asyncio.run(greenlet_spawn(work)) if is_async else work()

    return run


@pytest.fixture
def impatient(monkeypatch):
    """Pauses that take no time, and how long they would have been at least."""
    asked = []
    monkeypatch.setattr(calls, "_backoff", lambda state: asked.append(state.attempt_number) or 0.001)
    return asked


@pytest.mark.parametrize("at_once", [1, 4])
def test_parts_come_in_order_and_calls_are_held_back(answers, at_once):
    """At most `at_once` calls run in parallel, and none runs far ahead of the answers that were taken."""
    model = Model(together=at_once)
    found = answers(model, at_once)
    assert [taken[:2] for taken in found] == RIGHT
    assert model.calls == 11 and model.most == at_once
    # A part without texts makes no call. When the n-th answer is taken, at most n + at_once calls have begun.
    assert all(begun <= taken + at_once for taken, (_, _, begun) in enumerate(found))


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize(
    "error",
    [
        Busy(status_code=429),
        Busy(code=503),
        Busy(response=SimpleNamespace(status_code=529, headers={"retry-after": "0.002"})),
        TimeoutError(),
    ],
    ids=["429", "google's 503", "529 that says when", "named by the caller"],
)
def test_a_busy_model_is_called_again(answers, impatient, at_once, error):
    """However its client says that it is busy: nothing is lost, nothing out of order."""
    model = Model(lambda call: error if call in {2, 5, 6} else None)
    found = answers(model, at_once, retry_on=(TimeoutError,))
    assert [taken[:2] for taken in found] == RIGHT
    assert model.calls == 14 and len(impatient) == 3


def test_retries_end_and_other_errors_are_raised_at_once(answers, impatient):
    """The last error is raised as it came; a wrong key, or a wrong number of vectors, is no reason to wait."""
    model = Model(lambda call: Busy(status_code=429))
    with pytest.raises(Busy):
        answers(model, 1)
    assert model.calls == calls.ATTEMPTS
    model = Model(lambda call: Busy(status_code=401) if call == 2 else None)
    with pytest.raises(Busy):
        answers(model, 1)
    assert model.calls == 2
    wrong = Model()
    wrong.sync = lambda texts: [[0.0]] * 3
    wrong.later = lambda texts: asyncio.sleep(0, [[0.0]] * 3)
    with pytest.raises(InvalidEmbedding, match="returned 3 vectors for 1 texts"):
        answers(wrong, 4)


def test_the_pause_grows_and_heeds_what_the_model_asks():
    """Retry-After in seconds is kept to, up to the longest pause; what is no number is left out."""

    def pause(attempt, error):
        outcome = SimpleNamespace(exception=lambda: error)
        return calls._pause(SimpleNamespace(attempt_number=attempt, outcome=outcome))

    asks = Busy(response=SimpleNamespace(status_code=429, headers={"retry-after": "7"}))
    wrapped = InvalidInput("embed failed")
    wrapped.__cause__ = asks
    assert [pause(1, asks), pause(1, wrapped)] == [7.0, 7.0]
    later = Busy(response=SimpleNamespace(status_code=429, headers={"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}))
    assert 0 <= pause(1, later) <= 1.0
    longest = Busy(response=SimpleNamespace(status_code=429, headers={"retry-after": "86400"}))
    assert pause(1, longest) == calls.LONGEST_PAUSE
    assert max(pause(9, Busy()) for _ in range(50)) > 1.0


@pytest.mark.parametrize("wrong", [0, 65, True, 2.0, "4"])
def test_calls_at_once_are_a_number(wrong):
    """What a caller sets wrongly is refused before anything is called."""
    with pytest.raises(InvalidInput, match="embed_concurrency"):
        Calls(wrong)
    with pytest.raises(InvalidInput, match="retry_on"):
        Calls(1, [TimeoutError])
