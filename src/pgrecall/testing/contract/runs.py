"""The contract of a `RunStore`: what a put keeps, and when it is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgrecall import InvalidInput, RunConflict, RunState


class RunStoreContract:
    """Subclass it and give `store`, empty, with verbs that run at once."""

    def test_a_state_comes_back_as_it_was_put(self, store):
        """Every field, at version 1, with times; an unknown run is None."""
        run = RunState("r", {"step": 1, "ключ": [None, True, 1.5, {"": []}]}, "paused", 0, "ana", {"team": "x"})
        stored = store.put(run)
        assert replace(stored, created_at=None, updated_at=None) == replace(run, state_version=1)
        assert stored.created_at is not None and stored.updated_at is not None
        assert store.get("r") == stored
        assert store.get("nobody's") is None

    def test_a_put_goes_on_from_the_version_that_was_read(self, store):
        """The next one has the next version; what was said of the subject stays."""
        first = store.put(RunState("r", {"n": 1}, subject="ana"))
        second = store.put(replace(first, state={"n": 2}, subject=None, status="completed"))
        assert (second.state_version, second.state, second.status, second.subject) == (2, {"n": 2}, "completed", "ana")
        assert second.created_at == first.created_at

    def test_a_put_from_another_version_is_refused_and_tells_both(self, store):
        """A stale one, a new one of a run that is there, one of a run that is not; nothing is changed."""
        first = store.put(RunState("r", {"n": 1}))
        second = store.put(replace(first, state={"n": 2}))
        for version in (0, 1, 3):
            with pytest.raises(RunConflict) as refused:
                store.put(replace(first, state={"n": 9}, state_version=version))
            assert (refused.value.expected, refused.value.found) == (version, 2)
            assert f"version {version}" in str(refused.value) and "version 2" in str(refused.value)
        with pytest.raises(RunConflict) as refused:
            store.put(RunState("none", state_version=4))
        assert (refused.value.expected, refused.value.found) == (4, None)
        assert store.get("r") == second
        assert store.get("none") is None

    def test_without_a_version_a_put_takes_whatever_is_there(self, store):
        """The run is made, or goes on from the version that it has."""
        assert [store.put(RunState("r", {"n": n}, state_version=None)).state_version for n in range(3)] == [1, 2, 3]
        assert store.get("r").state == {"n": 2}

    def test_a_run_of_another_subject_is_refused(self, store):
        """And stays as it was."""
        first = store.put(RunState("r", subject="ana"))
        with pytest.raises(InvalidInput, match="another subject"):
            store.put(replace(first, subject="ben"))
        assert store.get("r") == first

    @pytest.mark.parametrize(
        "run",
        [
            RunState(""), RunState("r" * 1_001), RunState("r\0"), RunState("r", {"n": float("nan")}),
            RunState("r", {"x": "\0"}), RunState("r", {"x": object()}), RunState("r", {1: 1}), RunState("r", [1]),
            RunState("r", status=""), RunState("r", state_version=-1), RunState("r", state_version="1"),
            RunState("r", state_version=True), RunState("r", subject=""), RunState("r", metadata={"\ud800": 1}),
            {"run_id": "r"},
        ],
    )  # fmt: skip
    def test_what_can_t_be_stored_is_refused(self, store, run):
        """With a clear error, and nothing is kept."""
        with pytest.raises(InvalidInput):
            store.put(run)
        assert store.get("r") is None
