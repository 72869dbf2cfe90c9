"""How a vector store is made and held: its tenant, model, space, peers' arguments, connections, threads and loops."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import VectorStore
from sqlalchemy.ext.asyncio import create_async_engine

import pgrecall
from langchain_pgrecall import PGRecallVectorStore
from pgrecall import (
    ConfigurationError,
    EmbedModel,
    EmbedSpace,
    EmbedSpaceMismatch,
    FingerprintMismatch,
    InvalidInput,
    NotFound,
    TenantErased,
)

TEXTS = ["cats purr softly", "dogs bark loudly", "birds sing early"]


def ids_of(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


# The tenant


@pytest.mark.parametrize("name", ["tenant", "tenant_id"])
def test_no_keyword_of_a_call_can_choose_a_tenant(store, name):
    """Calls, retrievers and their search_kwargs refuse it; unknown keywords are refused too, not ignored."""
    chosen = {name: "other"}
    vector = store.embeddings.embed_query("cats")
    attempts = [
        lambda: store.add_texts(["x"], **chosen),
        lambda: store.add_documents([Document("x")], **chosen),
        lambda: store.add_embeddings(["x"], [vector], **chosen),
        lambda: store.delete(["x"], **chosen),
        lambda: store.similarity_search("x", **chosen),
        lambda: store.similarity_search_with_score("x", **chosen),
        lambda: store.similarity_search_by_vector(vector, **chosen),
        lambda: store.similarity_search_with_score_by_vector(vector, **chosen),
        lambda: store.similarity_search_with_relevance_scores("x", **chosen),
        lambda: store.max_marginal_relevance_search("x", **chosen),
        lambda: store.max_marginal_relevance_search_by_vector(vector, **chosen),
        lambda: store.search("x", "mmr", **chosen),
        lambda: store.as_retriever(search_kwargs=chosen),
        lambda: store.as_retriever(**chosen),
        lambda: store.as_retriever().invoke("x", **chosen),
        lambda: asyncio.run(store.asimilarity_search("x", **chosen)),
        lambda: asyncio.run(store.aadd_texts(["x"], **chosen)),
    ]
    for attempt in attempts:
        with pytest.raises(InvalidInput, match="bound to tenant"):
            attempt()
    with pytest.raises(InvalidInput, match="unexpected keyword argument 'fts_query'; the query itself"):
        store.similarity_search("x", fts_query="y")
    for ignored in ({"k": 10}, {"filter": {"lang": "en"}}, {"search_kwarg": {"k": 10}}):  # by LangChain's own class
        with pytest.raises(InvalidInput, match=r"unexpected keyword argument .* search_kwargs"):
            store.as_retriever(**ignored)
    for attribute in ("tenant", "collection"):
        with pytest.raises(AttributeError):
            setattr(store, attribute, "other")
    gc.collect()


def test_a_sibling_costs_nothing_and_shares_the_model(db, store, words):
    """for_tenant opens nothing and asks the model nothing again; each sees its own documents."""
    store.add_texts(TEXTS)
    words.calls.clear()
    siblings = [store.for_tenant(f"{store.tenant}-{n}") for n in range(20)]
    assert all(sibling.database is db for sibling in siblings) and words.calls == []
    assert [len(sibling.core.list_chunks()) for sibling in siblings] == [0] * 20
    siblings[0].add_texts(["mine"])
    assert words.seen[-1] == "mine" and words.calls == ["sync"]  # the fingerprint's vector was known
    assert store.for_tenant(siblings[0].tenant).core is siblings[0].core  # compared with its collection once
    siblings[0].close()
    assert len(store.similarity_search("cats")) == 3
    with pytest.raises(InvalidInput, match="tenant is empty"):
        store.for_tenant("")


def test_searches_of_a_run_leave_evidence(db, store):
    """Through the store and through its retrievers, sync and async; a plain search leaves none."""
    store.add_texts(TEXTS, ids=["1", "2", "3"])
    store.similarity_search("cats")
    of_run = store.for_run("run-1")
    found = of_run.as_retriever(search_kwargs={"k": 2}).invoke("dogs bark loudly")
    asyncio.run(of_run.amax_marginal_relevance_search("cats purr", k=1))
    [first, second] = db.tenant(store.tenant).runs().list_evidence("run-1")
    assert [chunk.chunk_id for chunk in first.chunks] == ids_of(found) and len(second.chunks) == 1
    store.add_texts(["dogs are quiet now"], ids=["2"])
    assert db.tenant(store.tenant).runs().list_evidence("run-1")[0].chunks[0].now == "changed"
    of_run.close()
    assert len(store.similarity_search("cats")) == 3


def test_what_was_deleted_with_its_tenant_stays_away(db, store):
    """A late writer gets an error, and nothing is stored."""
    store.add_texts(TEXTS)
    db.delete_tenant(store.tenant)
    with pytest.raises(TenantErased):
        store.add_texts(["late"])
    assert store.similarity_search("cats") == []


# The model


def test_the_model_is_checked_at_the_first_use_in_the_callers_mode(make, words):
    """Not by the constructor; by await where the caller is asynchronous."""
    store = make()
    assert words.calls == []
    asyncio.run(store.aadd_texts(TEXTS))
    assert set(words.calls) == {"async"}
    asyncio.run(make().asimilarity_search("cats"))
    assert set(words.calls) == {"async"}
    words.calls.clear()
    make().similarity_search("cats")
    assert words.calls == ["sync", "sync"]  # the query, and the fingerprint's text of a new store


def test_another_model_of_the_same_name_is_noticed(make, words, monkeypatch):
    """Reads and writes are refused before vectors are compared."""
    make().add_texts(TEXTS)
    original = type(words).embed_documents
    monkeypatch.setattr(type(words), "embed_documents", lambda self, texts: [v[::-1] for v in original(self, texts)])
    with pytest.raises(FingerprintMismatch):
        make().similarity_search("cats")
    with pytest.raises(FingerprintMismatch):
        make().add_texts(["more"])


def test_an_unknown_embedding_class_must_say_its_space(db, tenant_id, words):
    """A clear error in the constructor; a known class needs none."""
    with pytest.raises(ConfigurationError, match=r"Words is unknown; pass space=EmbedModel"):
        PGRecallVectorStore(words, connection=db, tenant=tenant_id)
    with pytest.raises(ConfigurationError, match="expected a langchain_core Embeddings"):
        PGRecallVectorStore(lambda text: [0.0], connection=db, tenant=tenant_id)
    fake = PGRecallVectorStore(DeterministicFakeEmbedding(size=8), connection=db, tenant=tenant_id, distance="l2")
    fake.add_texts(["x"])
    held = db.tenant(tenant_id).collection_info("default").space
    assert held == EmbedSpace("fake", "DeterministicFakeEmbedding", 8, "l2")
    with pytest.raises(EmbedSpaceMismatch):
        PGRecallVectorStore(words, connection=db, tenant=tenant_id, space=EmbedModel("test", "words")).add_texts(["y"])


# Construction


def test_stores_are_made_from_texts_documents_and_embeddings(db, tenant_id, words):
    """The base class's factories, and the peers', sync and async."""
    given = {"connection": db, "tenant": tenant_id, "space": EmbedModel("test", "words")}
    first = PGRecallVectorStore.from_texts(iter(TEXTS), words, [{"n": 1}] * 3, ids=["a", "b", "c"], **given)
    assert ids_of(first.get_by_ids(["a", "b", "c"])) == ["a", "b", "c"] and first.collection == "default"
    documents = [Document("x", id="x", metadata={"n": 2}), Document("y")]
    second = PGRecallVectorStore.from_documents(documents, words, collection="two", **given)
    assert second.core.count() == 2 and second.get_by_ids(["x"])[0].metadata == {"n": 2}
    pairs = zip(TEXTS, words.embed_documents(TEXTS), strict=True)
    third = PGRecallVectorStore.from_embeddings(pairs, words, ids=["1", "2", "3"], collection="three", **given)
    assert third.similarity_search("dogs bark loudly", k=1)[0].id == "2"

    async def made() -> list[int]:
        texts = await PGRecallVectorStore.afrom_texts(TEXTS, words, collection="four", **given)
        documents = await PGRecallVectorStore.afrom_documents([Document("x")], words, collection="five", **given)
        pairs = [("x", words.embed_query("x"))]
        vectors = await PGRecallVectorStore.afrom_embeddings(pairs, words, collection="six", **given)
        return [await s.core.acount() for s in (texts, documents, vectors)]

    assert asyncio.run(made()) == [3, 1, 1]
    assert isinstance(first, VectorStore)


def test_an_existing_collection_opens_in_its_own_space(make, words, db, tenant_id):
    """Its distance is known by itself; the model is compared at the first use; a missing one is an error."""
    make(space=EmbedModel("test", "words", "l2")).add_texts(TEXTS, ids=["1", "2", "3"])
    given = {"connection": db, "tenant": tenant_id}
    opened = PGRecallVectorStore.from_existing(words, **given)
    assert opened.similarity_search_with_relevance_scores("cats purr softly", k=1)[0][1] == pytest.approx(1, abs=1e-2)
    assert ids_of(asyncio.run(PGRecallVectorStore.afrom_existing(words, **given)).get_by_ids(["1"])) == ["1"]
    with pytest.raises(NotFound, match="collection 'none' does not exist"):
        PGRecallVectorStore.from_existing(words, collection="none", **given)
    other = PGRecallVectorStore.from_existing(DeterministicFakeEmbedding(size=16), **given)
    with pytest.raises(EmbedSpaceMismatch, match="holds vectors of test/words"):
        other.similarity_search("cats")


def test_the_peers_arguments_mean_what_they_meant_or_are_refused(db, tenant_id, words):
    """engine, table_name, distance_strategy and such map; what has no meaning here says what to do instead."""
    space = {"space": EmbedModel("test", "words", "ip")}
    made = PGRecallVectorStore.create_sync(
        db, words, "docs", tenant=tenant_id, distance_strategy="inner_product", k=4, schema_name="public", **space
    )
    made.add_texts(TEXTS)
    again = asyncio.run(PGRecallVectorStore.create(db, words, table_name="docs", tenant=tenant_id, **space))
    assert len(again.similarity_search("cats")) == 3
    legacy = PGRecallVectorStore.from_documents(
        [Document("x")],
        embedding=words,
        collection_name="legacy",
        connection=db,
        use_jsonb=True,
        tenant=tenant_id,
        **space,
    )
    assert legacy.collection == "legacy"
    refused = {
        "metadata_columns": ["year"], "hybrid_search_config": object(), "schema_name": "mine", "k": 7,
        "pre_delete_collection": True, "id_column": "uuid", "distance_strategy": "jaccard", "use_jsonb": False,
    }  # fmt: skip
    for name, value in refused.items():
        with pytest.raises(ConfigurationError, match=name):
            PGRecallVectorStore.create_sync(db, words, "docs", tenant=tenant_id, **space, **{name: value})
    with pytest.raises(ConfigurationError, match="both set collection"):
        PGRecallVectorStore.create_sync(db, words, "docs", collection="x", tenant=tenant_id, **space)
    with pytest.raises(TypeError, match="unexpected keyword"):
        PGRecallVectorStore.create_sync(db, words, "docs", tenant=tenant_id, nonsense=1, **space)
    with pytest.raises(ConfigurationError, match="PGEngine"):
        PGRecallVectorStore.create_sync(type("PGEngine", (), {})(), words, "docs", tenant=tenant_id, **space)


def test_connections_are_opened_by_url_or_engines_and_closed_only_where_opened(app_url, tenant_id, words):
    """A store closes what it opened; a caller's Database and engines go on."""
    given = {"tenant": tenant_id, "space": EmbedModel("test", "words")}
    url = app_url.render_as_string(hide_password=False)
    opened = PGRecallVectorStore.from_texts(TEXTS, words, connection=url, **given)
    opened.close()
    with pytest.raises(ConfigurationError, match="closed"):
        opened.similarity_search("cats")
    engine, asynchronous = sa.create_engine(app_url), create_async_engine(app_url)

    async def ask() -> int:
        found = await PGRecallVectorStore(words, connection=(engine, asynchronous), **given).asimilarity_search("cats")
        await asynchronous.dispose()
        return len(found)

    assert asyncio.run(ask()) == 3
    with_engine = PGRecallVectorStore(words, connection=engine, **given)
    with_engine.close()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    engine.dispose()
    with pgrecall.connect(app_url) as db:
        PGRecallVectorStore(words, connection=db, **given).close()
        assert db.tenant(tenant_id).vectors("default").count() == 3


# Threads and loops


def test_one_store_serves_two_event_loops_and_sync_calls(store):
    """asyncio.run twice, with synchronous calls between."""
    store.add_texts(TEXTS, ids=["1", "2", "3"])

    async def ask() -> list[str | None]:
        return ids_of(await store.asimilarity_search("dogs bark", k=1))

    assert [asyncio.run(ask()), ids_of(store.similarity_search("dogs bark", k=1)), asyncio.run(ask())] == [["2"]] * 3
    gc.collect()


def test_one_store_serves_eight_threads(store):
    """Each writes, searches and deletes; nothing is lost."""

    def work(number: int) -> int:
        ids = [f"{number}-{n}" for n in range(25)]
        store.add_texts([f"thread {number} text {n}" for n in range(25)], [{"thread": number}] * 25, ids=ids)
        found = store.similarity_search(f"thread {number}", k=25, filter={"thread": number})
        store.delete(ids[:5])
        return len(found)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [25] * 8
    assert store.core.count() == 160
