"""Old names work for one minor version, and say the new one."""

from __future__ import annotations

import asyncio

import pytest

import pgrecall
from pgrecall import Database, IndexRecords, PostgresChat, PostgresDocstore, PostgresMemoryStore, PostgresRuns, Tenant
from pgrecall.errors import InvalidInput
from pgrecall.stores.renamed import renamed, renamed_arguments

METHODS = {
    pgrecall.PostgresVectorStore: {"list": "list_chunks", "documents": "list_documents"},
    PostgresDocstore: {"list": "list_entries"},
    IndexRecords: {"list": "list_keys"},
    PostgresRuns: {"list": "list_runs", "events": "list_events", "evidence": "list_evidence"},
    PostgresChat: {"messages": "list_messages"},
    PostgresMemoryStore: {"events": "list_events"},
    Tenant: {"chats": "list_chats", "collections": "list_collections", "collection": "collection_info"},
    Database: {"tenants": "list_tenants", "spaces": "list_spaces"},
}


@pytest.mark.parametrize(
    ("kind", "old", "new"), [(kind, old, new) for kind, names in METHODS.items() for old, new in names.items()]
)
def test_an_old_method_is_the_new_one_with_a_warning(kind, old, new):
    """Both faces of every renamed method are there, under the new name's signature."""
    for prefix in ("", "a"):
        alias, method = getattr(kind, prefix + old), getattr(kind, prefix + new)
        assert alias.__wrapped__ is method and alias.__name__ == prefix + old
        assert alias.__deprecated__ == f"use {prefix}{new}()"


def test_no_other_method_is_deprecated():
    """The table above is complete."""
    for kind, names in METHODS.items():
        marked = {name for name in dir(kind) if hasattr(getattr(kind, name), "__deprecated__")}
        assert marked == {prefix + old for old in names for prefix in ("", "a")}


class Store:
    def list_chunks(self, limit=1):
        return ["a"] * limit

    async def alist_chunks(self, limit=1):
        return ["b"] * limit

    list, alist = renamed("list", list_chunks, alist_chunks)

    @renamed_arguments(limit="top_k")
    def search(self, text, top_k=10):
        return text, top_k


def test_calling_an_old_name_warns_at_the_caller_and_answers():
    """The warning points at the calling line and names both."""
    with pytest.warns(
        DeprecationWarning, match=r"Store\.list\(\) is now list_chunks\(\); the old name will be removed in"
    ) as seen:
        assert Store().list(limit=2) == ["a", "a"]
    assert seen[0].filename == __file__
    with pytest.warns(DeprecationWarning, match=r"Store\.alist\(\) is now alist_chunks\(\)"):
        assert asyncio.run(Store().alist()) == ["b"]


def test_an_old_argument_warns_and_counts():
    """The old keyword is passed on under the new name; both at once are refused."""
    with pytest.warns(DeprecationWarning, match=r"search\(limit=…\) is now search\(top_k=…\)"):
        assert Store().search("x", limit=3) == ("x", 3)
    with pytest.raises(TypeError, match="got both top_k= and its old name limit="):
        Store().search("x", top_k=1, limit=3)


def test_the_old_modes_and_arguments_of_search_facts():
    """query_vector=, limit= and the modes "text" and "vector" go on, each with its warning."""
    memory = pgrecall.connect("postgresql://nobody@localhost/none").tenant("t").memory(actor="me")
    with pytest.warns(DeprecationWarning, match="search_facts") as seen:
        memory._search_facts(text="x", limit=3, mode="text")
    assert {str(w.message).split(";")[0] for w in seen} == {
        "search_facts(limit=…) is now search_facts(top_k=…)",
        "mode='text' of search_facts() is now mode='sparse'",
    }
    with pytest.warns(DeprecationWarning, match="mode='vector' of search_facts"):
        memory._search_facts(text="x", mode="vector")
    with pytest.raises(InvalidInput, match="mode is 'words'; expected 'dense', 'sparse' or 'hybrid'"):
        memory._search_facts(text="x", mode="words")
