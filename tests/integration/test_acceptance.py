"""The specification's validation list, a test a line, with a real embedding model where it is installed."""

from __future__ import annotations

import pytest

import pgrecall
from pgrecall import Chunk, Document, EmbedSpace, F
from pgrecall.admin import migrate
from support.data import hashed_words

DOCUMENTS = {
    "holidays": (
        "Every employee has thirty days of paid holidays each year.",
        "Unused holidays can be carried over into the first quarter of the next year.",
    ),
    "expenses": (
        "Expenses for travel are paid back within two weeks, if receipts are attached.",
        "A hotel may cost at most 150 euros a night; the train is preferred to the plane.",
    ),
    "security": (
        "Passwords have at least sixteen characters and are never shared by email.",
        "A lost laptop must be reported to the security team within one hour.",
    ),
}
QUESTIONS = {
    "How many days of paid holidays do I have each year?": "holidays-0",
    "What may a hotel cost a night?": "expenses-1",
    "Whom do I tell that my laptop is lost: the security team?": "security-1",
}


@pytest.fixture(scope="module")
def model():
    """The real model; words hashed to vectors where its packages are not installed."""
    try:
        import minilm

        minilm.model_folder()
    except ModuleNotFoundError:
        return hashed_words, EmbedSpace("test", "hashed-words", 384)
    return minilm.embed, EmbedSpace(**minilm.SPACE_ARGS)


@pytest.fixture
def handbook(db, tenant_id, model):
    """A tenant's collection into which the documents were ingested."""
    embed, space = model
    store = db.tenant(tenant_id).vectors("handbook", space, embed=embed)
    ingest(store)
    return store


def ingest(store):
    return store.upsert(
        (
            Chunk(f"{name}-{n}", text, doc_id=name, index=n, metadata={"topic": name, "part": n})
            for name, texts in DOCUMENTS.items()
            for n, text in enumerate(texts)
        ),
        documents=[Document(name, source=f"{name}.md") for name in DOCUMENTS],
    )


def ask(store, model, question, **conditions):
    embed, _ = model
    return store.query(embed([question])[0], top_k=2, **conditions)


@pytest.mark.parametrize(("question", "expected"), QUESTIONS.items(), ids=QUESTIONS.values())
def test_ingest_embed_upsert_query_returns_the_expected_chunks(handbook, model, question, expected):
    """A question gets the chunk that answers it first, with its text and its source."""
    best, second = ask(handbook, model, question)
    document, number = expected.split("-")
    assert (best.chunk_id, best.text) == (expected, DOCUMENTS[document][int(number)])
    assert (best.doc_id, best.source, best.index) == (document, f"{document}.md", int(number))
    assert best.score > second.score


def test_metadata_filters_work(handbook, model):
    """A filter keeps to the chunks that match, whatever else is nearer."""
    question = next(iter(QUESTIONS))
    hits = ask(handbook, model, question, filters=(F.topic == "expenses") & (F.part < 1))
    assert [h.chunk_id for h in hits] == ["expenses-0"]
    assert {h.metadata["topic"] for h in ask(handbook, model, question, filters=F.topic != "holidays")} <= {
        "expenses",
        "security",
    }


def test_delete_by_doc_id(handbook, model):
    """A deleted document is found no more, and the others still are."""
    report = handbook.delete_by_doc_id("holidays")
    assert (report.documents, report.chunks, report.vectors) == (1, 2, 2)
    for question, expected in QUESTIONS.items():
        hits = ask(handbook, model, question)
        assert "holidays" not in {h.doc_id for h in hits}
        assert expected.startswith("holidays") or hits[0].chunk_id == expected


def test_delete_by_tenant(db, handbook, tenant_id, model, admin_connection):
    """Nothing of the tenant is left in any table but its tombstone, and another tenant keeps everything."""
    embed, space = model
    other = db.tenant(f"{tenant_id}-other").vectors("handbook", space, embed=embed)
    ingest(other)
    gone = db.delete_tenant(tenant_id)
    assert {name: count for name, count in gone.items() if count} == {
        "chunk_vectors": 6,
        "chunks": 6,
        "documents": 3,
        "collections": 1,
    }
    assert set(gone.remaining) >= set(gone) and not any(gone.remaining.values())
    for table in ("collections", "documents", "chunks", "chunk_vectors"):
        left = f"SELECT count(*) FROM pgrecall.{table} WHERE tenant_id = %s"
        assert admin_connection.execute(left, [tenant_id]).fetchone() == (0,)
    question, expected = next(iter(QUESTIONS.items()))
    assert ask(handbook, model, question) == []
    assert ask(other, model, question)[0].chunk_id == expected


def test_migrations_apply_cleanly_from_an_empty_database(new_database, model):
    """An empty database is upgraded to the newest revision, without a difference, and serves a first call."""
    url, (embed, space) = new_database(), model
    assert migrate.upgrade(url) == (None, migrate.head())
    assert migrate.pending(url) == []
    migrate.check(url)
    with pgrecall.connect(url) as db:
        store = db.tenant("acme").vectors("handbook", space, embed=embed)
        assert ingest(store).written == 6
        for question, expected in QUESTIONS.items():
            assert ask(store, model, question)[0].chunk_id == expected
