"""The contract of a `RunStore`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from pgrecall import InvalidInput, RunConflict, RunState, RunStore
from pgrecall.testing.contract.base import StoreContract


class RunStoreContract(StoreContract):
    """What a `RunStore` must do. Override the fixture `make_store`: a function of a tenant."""

    protocol: ClassVar[type] = RunStore

    @pytest.fixture
    def store(self, make_store: Callable[..., Any], called: Callable[[Any], Any]) -> Any:
        """One tenant's runs; there are none yet."""
        return called(make_store("a"))

    def test_the_store_has_the_protocols_verbs(self, make_store: Any) -> None:
        """Each verb has the protocol's arguments and defaults; arguments of the store's own are optional."""
        assert self.verbs_that_differ(make_store("a")) == []

    def test_tenants_do_not_see_each_other(self, make_store: Callable[..., Any], called: Callable[[Any], Any]) -> None:
        """One run id in two tenants is two runs."""
        one, two = called(make_store("a")), called(make_store("b"))
        first = one.put(RunState("r", {"n": 1}))
        assert two.get("r") is None
        assert two.put(RunState("r", {"n": 2})).state_version == 1
        assert one.get("r") == first

    def test_a_state_comes_back_as_it_was_put(self, store: Any) -> None:
        """A state comes back with every field, at version 1, with times; an unknown run is None."""
        run = RunState("r", {"step": 1, "ключ": [None, True, 1.5, {"": []}]}, "paused", 0, "ana", {"team": "x"})
        stored = store.put(run)
        assert replace(stored, created_at=None, updated_at=None) == replace(run, state_version=1)
        assert stored.created_at is not None and stored.updated_at is not None
        assert store.get("r") == stored
        assert store.get("nobody's") is None

    def test_a_put_goes_on_from_the_version_that_was_read(self, store: Any) -> None:
        """A put from the version that was read stores the next version; a known subject stays."""
        first = store.put(RunState("r", {"n": 1}, subject="ana"))
        second = store.put(replace(first, state={"n": 2}, subject=None, status="completed"))
        assert (second.state_version, second.state, second.status, second.subject) == (2, {"n": 2}, "completed", "ana")
        assert second.created_at == first.created_at

    def test_a_put_from_another_version_raises_a_conflict(self, store: Any) -> None:
        """A put from any other version raises RunConflict with both versions, and nothing changes."""
        first = store.put(RunState("r", {"n": 1}))
        second = store.put(replace(first, state={"n": 2}))
        for version in (0, 1, 3):
            with pytest.raises(RunConflict) as refused:
                store.put(replace(first, state={"n": 9}, state_version=version))
            assert (refused.value.expected, refused.value.found) == (version, 2)
        with pytest.raises(RunConflict) as refused:
            store.put(RunState("none", state_version=4))
        assert (refused.value.expected, refused.value.found) == (4, None)
        assert store.get("r") == second
        assert store.get("none") is None

    def test_a_put_without_a_version_always_succeeds(self, store: Any) -> None:
        """A put without a version creates the run, or goes on from the stored version."""
        assert [store.put(RunState("r", {"n": n}, state_version=None)).state_version for n in range(3)] == [1, 2, 3]
        assert store.get("r").state == {"n": 2}

    def test_a_run_of_another_subject_is_refused(self, store: Any) -> None:
        """A put for another subject raises InvalidInput, and the run stays as it was."""
        first = store.put(RunState("r", subject="ana"))
        with pytest.raises(InvalidInput):
            store.put(replace(first, subject="ben"))
        assert store.get("r") == first

    @pytest.mark.parametrize(
        "run",
        [
            RunState(""), RunState("r" * 1_001), RunState("r\0"), RunState("r", {"n": float("nan")}),
            RunState("r", {"x": "\0"}), RunState("r", {"x": object()}),
            RunState("r", {1: 1}), RunState("r", [1]),  # type: ignore[dict-item, arg-type]
            RunState("r", status=""), RunState("r", state_version=-1),
            RunState("r", state_version="1"),  # type: ignore[arg-type]
            RunState("r", state_version=True), RunState("r", subject=""), RunState("r", metadata={"\ud800": 1}),
            {"run_id": "r"},
        ],
    )  # fmt: skip
    def test_what_can_t_be_stored_is_refused(self, store: Any, run: Any) -> None:
        """A state that can't be stored raises InvalidInput, and nothing is stored."""
        with pytest.raises(InvalidInput):
            store.put(run)
        assert store.get("r") is None
