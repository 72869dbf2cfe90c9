"""The docstrings of both adapters' public classes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest
from llama_index.memory.pgrecall import PGRecallFactBlock
from llama_index.storage.chat_store.pgrecall import PGRecallBufferChatStore, PGRecallChatStore
from llama_index.storage.docstore.pgrecall import PGRecallDocumentStore
from llama_index.vector_stores.pgrecall import PGRecallVectorStore

import langchain_pgrecall

#: Models whose fields are their parameters, and a class without parameters of its own.
WITHOUT = ("PGRecallRetriever", "PGRecallTranslator")
CLASSES = [
    *(getattr(langchain_pgrecall, name) for name in langchain_pgrecall.__all__ if name not in WITHOUT),
    PGRecallFactBlock,
    PGRecallBufferChatStore,
    PGRecallChatStore,
    PGRecallDocumentStore,
    PGRecallVectorStore,
]


def parameters(function: object) -> list[str]:
    """The names of the parameters, without self."""
    called = function.__init__ if isinstance(function, type) else function  # pydantic's signature adds the fields
    given = inspect.signature(called).parameters.values()
    return [f"**{p.name}" if p.kind is p.VAR_KEYWORD else p.name for p in given if p.name != "self"]


def documented() -> Iterator[object]:
    """Every constructor, which the class documents, and every public method with five parameters or more."""
    for kind in CLASSES:
        yield pytest.param(kind, id=f"{kind.__module__}.{kind.__name__}")
        for name, method in inspect.getmembers(kind, callable):
            ours = "pgrecall" in (getattr(inspect.unwrap(method), "__module__", None) or "")
            if not name.startswith("_") and ours and len(parameters(method)) >= 5:
                yield pytest.param(method, id=f"{kind.__module__}.{kind.__name__}.{name}")


@pytest.mark.parametrize("documents", [*documented()])
def test_each_parameter_is_documented_in_order(documents):
    """The section Args of the docstring names every parameter, and nothing else."""
    section = (inspect.getdoc(documents) or "").partition("Args:\n")[2].partition("\n\n")[0]
    assert re.findall(r"^    (\**\w+): \S", section, re.M) == parameters(documents)
