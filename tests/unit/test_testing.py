"""The testing package: its documentation page, what it imports, and what its stores do beyond the protocols."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pgrecall import Chunk, EmbedSpace, Fact, InvalidEmbedding, InvalidInput
from pgrecall.testing import InMemoryDatabase, InMemoryFactStore, InMemoryVectorStore
from support.readme import snippets

PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing.md"
SPACE = EmbedSpace("test", "two", 2)


def embed(texts):
    return [[1.0, float(len(text))] for text in texts]


@pytest.mark.parametrize(("line", "code"), snippets(PAGE, "python"), ids=lambda value: str(value)[:8].strip())
def test_the_pages_examples_pass(tmp_path, line, code):
    """Each block of the page is a test file that passes by itself."""
    (tmp_path / "test_block.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, f"the block after line {line}: {done.stdout}"


def test_the_stores_in_memory_do_without_pytest():
    """Importing them imports neither pytest nor the stores on Postgres."""
    code = "import sys, pgrecall.testing; sys.exit('pytest' in sys.modules or 'pgrecall.stores' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_embedding_function_embeds_what_comes_without_a_vector():
    """Chunks, facts and the text of a search for facts are embedded; stored vectors of unchanged texts are kept."""
    tenant = InMemoryDatabase().tenant("a")
    store = tenant.vectors("c", SPACE, embed=embed)
    assert store.upsert([Chunk("1", "a"), Chunk("2", "bb", [1.0, 0.0])]).embedded == 1
    assert store.upsert([Chunk("1", "a", metadata={"n": 1})]).embedded == 0
    memory = tenant.memory(actor="me", space=SPACE, embed=embed)
    memory.put_facts([Fact("ann", "k", "short", "a"), Fact("ann", "k", "long", "a" * 9)])
    assert [f.key for f in memory.search_facts(text="b" * 9)] == ["long", "short"]


def test_a_store_without_a_space_takes_that_of_its_collection():
    """A collection that exists has a space; without one, a space is needed."""
    tenant = InMemoryDatabase().tenant("a")
    with pytest.raises(InvalidInput, match="no space was given, and collection 'c' does not exist"):
        tenant.vectors("c")
    tenant.vectors("c", SPACE).upsert([Chunk("1", "a", [1.0, 2.0])])
    assert tenant.vectors("c").count() == 1
    assert InMemoryDatabase().tenant("a").vectors("c", SPACE).count() == 0


def test_an_embedding_function_that_misbehaves_is_refused():
    """An asynchronous function, or one that returns a wrong number of vectors, stores nothing."""

    async def awaited(texts):
        return embed(texts)

    for wrong, message in ((awaited, "is asynchronous"), (lambda texts: [], "returned 0 vectors for 1 texts")):
        store = InMemoryVectorStore(SPACE, embed=wrong)
        with pytest.raises(InvalidInput, match=message):
            store.upsert([Chunk("1", "a")])
        assert store.count() == 0
    with pytest.raises(InvalidEmbedding, match="chunk '1' has no embedding"):
        InMemoryVectorStore(SPACE).upsert([Chunk("1", "a")])
    with pytest.raises(InvalidInput, match="the store has no space"):
        InMemoryFactStore(actor="me").put_fact(Fact("ann", "k", "k", 1, embedding=[1.0, 2.0]))
