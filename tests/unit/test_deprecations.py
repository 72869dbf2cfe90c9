"""Deprecated public names: each still works, and its warning names the replacement."""

import pytest

import pgrecall
from pgrecall import hits

RENAMED = {
    "Connection": "DatabaseLike",
    "Erased": "Erasure",
    "Event": "MemoryEvent",
    "Loaded": "BulkLoadResult",
    "Maintained": "MaintenanceResult",
    "Optimized": "OptimizeResult",
    "Reembedded": "ReembedResult",
    "Reference": "DocumentReference",
    "Tuned": "TuneResult",
    "TunedPoint": "TunePoint",
}


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_renamed_class_is_found_under_its_old_name(old: str, new: str) -> None:
    """The old name warns with the new one, is the same object, and is no longer listed."""
    with pytest.warns(
        DeprecationWarning, match=rf"pgrecall\.{old} is now pgrecall\.{new}; the old name will be removed in 0\.2"
    ):
        assert getattr(pgrecall, old) is getattr(pgrecall, new)
    assert old not in pgrecall.__all__ and old not in dir(pgrecall) and new in pgrecall.__all__


def test_the_steps_of_a_search_moved_out_of_the_root() -> None:
    """`pgrecall.Step` warns and is `pgrecall.hits.SearchStep`, which the root does not export."""
    with pytest.warns(DeprecationWarning, match=r"pgrecall\.Step is now pgrecall\.hits\.SearchStep"):
        assert pgrecall.Step is hits.SearchStep
    assert "SearchStep" not in pgrecall.__all__
