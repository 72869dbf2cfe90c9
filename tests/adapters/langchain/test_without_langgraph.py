"""What of the adapter works without LangGraph."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = """
import sys
sys.modules["langgraph"] = None  # as if it was not installed
import langchain_pgrecall
for name in langchain_pgrecall.__all__:
    if name != "PGRecallStore":
        getattr(langchain_pgrecall, name)
from langchain_pgrecall.checkpoints import erase_threads, of_person
try:
    langchain_pgrecall.PGRecallStore
except ImportError as error:
    print(error)
"""


def test_only_the_store_needs_langgraph():
    """Every other name can be imported without it, and the error contains a line that installs what is missing."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith('pip install "langgraph-checkpoint>=3,<5"')


def test_an_unknown_name_is_an_attribute_error():
    """The lazy import of the store does not hide misspelt names."""
    with pytest.raises(ImportError, match="PGRecallStores"):
        from langchain_pgrecall import PGRecallStores  # noqa: F401
