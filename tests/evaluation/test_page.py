"""What docs/evaluation.md shows runs as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgrecall import Chunk, EmbedSpace
from support.readme import run_python

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"
pytestmark = pytest.mark.filterwarnings("ignore")  # what ragas deprecated, and a file that it leaves open

WORDS = ["holidays", "expenses", "days", "weeks"]


def embed(texts):
    return [[text.count(word) + 0.01 for word in WORDS] for text in texts]


class ChatModel:
    """Stands for the reader's own model, which says yes to everything."""

    def with_structured_output(self, schema):
        self.schema = schema
        return self

    def invoke(self, _prompt):
        return self.schema(reason="it is so", verdict=1)

    async def ainvoke(self, prompt):
        return self.invoke(prompt)


async def my_app(_question):
    return "30 days"


def test_every_python_snippet_of_the_page_runs_and_prints_what_it_says(db):
    """In order, in one namespace, over a small collection."""
    pytest.importorskip("ragas", reason="the eval extra is not installed")
    store = db.tenant("acme").vectors("handbook-of-the-page", EmbedSpace("test", "four words", 4), embed=embed)
    store.upsert([Chunk("holidays-0", "30 days of holidays"), Chunk("expenses-0", "expenses in two weeks")])
    names = {"db": db, "store": store, "embed": embed, "chat_model": ChatModel(), "my_app": my_app}
    try:
        assert run_python(PAGE, names) > 4
    finally:
        db.delete_tenant("acme")
        db.create_tenant("acme", reopen=True)
