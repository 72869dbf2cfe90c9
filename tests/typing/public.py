"""The public types as a type checker sees them: read by mypy in `make lint`, run by nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import assert_type

import numpy as np

import pgrecall
from pgrecall import (
    And,
    BulkLoadResult,
    ChatHit,
    ChatInfo,
    Chunk,
    CollectionInfo,
    Compare,
    Database,
    DeleteReport,
    Document,
    Embedder,
    EmbedModel,
    EmbedSpace,
    ErasureReport,
    Evidence,
    Explanation,
    F,
    Filter,
    GraphBuild,
    Hit,
    Hits,
    IndexedKey,
    MaintenanceResult,
    Message,
    Not,
    OptimizeResult,
    Or,
    PostgresChat,
    PostgresRuns,
    PostgresVectorStore,
    ReciprocalRank,
    ReembedResult,
    RunEvent,
    RunState,
    SpaceInfo,
    Tenant,
    TenantInfo,
    ToolCall,
    TuneResult,
    UpsertResult,
    VectorStore,
)
from pgrecall.types import DocumentChanges, SpaceUse, UpdateResult

SPACE = EmbedSpace("openai", "text-embedding-3-small", 1536, distance="ip")
EmbedSpace("p", "m", 3, distance="hamming")  # type: ignore[arg-type]


def handles() -> VectorStore:
    """What `connect` leads to."""
    with pgrecall.connect("postgresql://localhost/recall", pool_size=2) as db:
        assert_type(db, Database)
        assert_type(db.tenant("acme"), Tenant)
        assert_type(db.list_tenants(), list[TenantInfo])
        assert_type(db.tenant_info("acme"), TenantInfo | None)
        assert_type(db.create_tenant("acme", reopen=True), bool)
        assert_type(db.delete_tenant("acme"), ErasureReport)
        assert_type(db.list_spaces(), list[SpaceInfo])
        assert_type(db.add_space(SPACE), int)
        assert_type(db.drop_space(1), EmbedSpace)
        assert_type(db.space_use(), dict[int, SpaceUse])
        assert_type(db.reset(), str | None)
        assert_type(db.maintain(1, rebuild=True, wait=5.0, build=GraphBuild("2GB", m=32)), list[MaintenanceResult])
        db.maintain(progress=lambda what, done, total: None)
        tenant = db.tenant("acme")
        assert_type(tenant.list_collections(), list[CollectionInfo])
        with tenant.atomic():
            pass
        assert_type(tenant.collection_info("handbook"), CollectionInfo | None)
        assert_type(tenant.set_text_config("handbook", "english", batch=500), int)
        assert_type(
            tenant.reembed("handbook", SPACE, lambda texts: [[0.0] for _ in texts], switch=False), ReembedResult
        )
        assert_type(tenant.cancel_reembed("handbook"), int)
        tenant.vectors("handbook", indexed_keys={"lang": "text"})
        assert_type(tenant.index_key("handbook", ["author", "age"], "number"), IndexedKey)
        assert_type(tenant.unindex_key("handbook", "lang"), int)
        assert_type(tenant.tune("handbook", 0.95, k=5, queries=20, vectors=[[0.1] * 1536]), TuneResult)
        assert_type(tenant.set_ef_search("handbook", None), None)
        tenant.index_key("handbook", "lang", "date")  # type: ignore[arg-type]
        store = tenant.vectors("handbook", SPACE, embed=lambda texts: [[0.0] for _ in texts])
        assert_type(store, PostgresVectorStore)
        tenant.vectors("handbook", EmbedModel("openai", "small"), embed=Embedder(lambda texts: [[0.0] for _ in texts]))
        assert_type(pgrecall.as_database(db), Database)
        store.space = SPACE  # type: ignore[attr-defined]
        store.tenant_id = "other"  # type: ignore[misc]
        return store


def verbs(store: PostgresVectorStore) -> None:
    """What each verb takes and gives."""
    chunks = [Chunk("1", "one", [0.1, 0.2]), Chunk("2", "two", np.ones(2, dtype=np.float32), doc_id="d")]
    assert_type(store.upsert(chunks, documents=[Document("d")], commit_every=100), UpsertResult)
    assert_type(
        store.bulk_load(iter(chunks), embed_concurrency=8, retry_on=(OSError,), commit_every=10), BulkLoadResult
    )
    store.upsert((chunk for chunk in chunks), progress=lambda done, total: None, on_nul="strip")
    store.upsert(["text"])  # type: ignore[list-item]
    store.upsert(chunks, on_nul="drop")  # type: ignore[arg-type]
    assert_type(store.replace_document(Document("d"), chunks), UpsertResult)
    assert_type(store.compare_documents([Document("d")]), DocumentChanges)
    assert_type(store.update_documents([Document("d")], lambda document: chunks), UpdateResult)
    assert_type(store.query([0.1, 0.2], 5, F.lang == "de", ids=["1"]), Hits)
    store.query(np.ones(2), top_k=5, filters=Not(F.year > 2020))
    store.query("text")  # type: ignore[arg-type]
    hits: list[Hit] = store.query(text="two words", mode="sparse", explain="plan")
    store.query([0.1], text="words", fusion=ReciprocalRank(k=10), fetch_k=20, sparse_k=5, ef_search=40, explain=True)
    store.query([0.1], text="words", mode="words")  # type: ignore[arg-type]
    store.query([0.1], text="words", fusion="weighted")  # type: ignore[arg-type]
    assert_type(store.query([0.1]).explanation, Explanation | None)
    assert_type(hits[0].dense_rank, int | None)
    store.query([0.1], tenant="other")  # type: ignore[call-arg]
    assert_type(store.query_mmr([0.1], 5, F.lang == "de", fetch_k=50, lambda_mult=0.3), Hits)
    assert_type(store.get(["1"], with_embeddings=True), list[Chunk])
    assert_type(store.list_chunks(F.lang == "de", limit=10, offset=5), list[Chunk])
    assert_type(store.list_documents(["d"]), list[Document])
    assert_type(store.count(doc_ids=["d"]), int)
    assert_type(store.set_metadata({"a": [1, None]}, ids=["1"], replace=True), int)
    assert_type(store.delete(filters=F.old.exists()), DeleteReport)
    assert_type(store.delete(["1"])["chunks"], int)
    assert_type(store.delete_by_doc_id("d").documents, int)
    assert_type(store.optimize(wait=5.0), OptimizeResult)
    assert_type(store.drop(), DeleteReport)


def chats(tenant: Tenant) -> None:
    """What a chat takes and gives."""
    chat = tenant.chat("s", "ana", ttl=timedelta(days=30), text_config="english")
    assert_type(chat, PostgresChat)
    assert_type(chat.append(Message("user", "hello")), list[Message])
    chat.append(Message("assistant", [{"type": "text", "text": "x"}], tool_calls=[ToolCall("t", {"a": 1}, "c")]))
    chat.append(Message("robot", "x"))  # type: ignore[arg-type]
    chat.append("text")  # type: ignore[arg-type]
    assert_type(chat.list_messages(3, status=None), list[Message])
    assert_type(chat.window(max_tokens=100, count_tokens=lambda m: len(m.text)), list[Message])
    assert_type(chat.replace_message(3, Message("user", "x")), Message)
    assert_type(chat.pop(), Message | None)
    assert_type(chat.delete(["1"], positions=[2]), int)
    assert_type(chat.archive_oldest(3), list[Message])
    assert_type(chat.info(), ChatInfo | None)
    assert_type(tenant.list_chats("ana"), list[ChatInfo])
    assert_type(tenant.search_chats("words", roles=["user"]), list[ChatHit])


def runs(tenant: Tenant, store: PostgresVectorStore) -> None:
    """What runs take and give."""
    kept = tenant.runs(ttl=timedelta(days=30), max_state_bytes=10_000)
    assert_type(kept, PostgresRuns)
    assert_type(kept.put(RunState("r", {"n": 1}, state_version=None)), RunState)
    kept.put({"run_id": "r"})  # type: ignore[arg-type]
    assert_type(kept.get("r"), RunState | None)
    assert_type(kept.list_runs(F.team == 1, state=F.step > 2, status="failed"), list[RunState])
    assert_type(kept.append_event("r", "k", {"a": 1}), RunEvent)
    assert_type(next(kept.tail("r", timeout=1.5)), RunEvent)
    assert_type(kept.record_evidence("r", [0.1], store.query([0.1]), collection=store), int)
    assert_type(kept.list_evidence("r"), list[Evidence])
    assert_type(kept.prune(timedelta(days=30), keep_latest=100), int)
    assert_type(store.for_run("r"), PostgresVectorStore)


async def aruns(kept: PostgresRuns) -> None:
    """The asynchronous twins give the same."""
    assert_type(await kept.aput(RunState("r")), RunState)
    async for event in kept.atail("r"):
        assert_type(event, RunEvent)


async def achats(chat: PostgresChat) -> None:
    """The asynchronous twins give the same."""
    assert_type(await chat.aappend([Message("user", "hello")]), list[Message])
    assert_type(await chat.alist_messages(since=datetime.now()), list[Message])


async def twins(db: Database, store: PostgresVectorStore) -> None:
    """The asynchronous twins give the same."""

    async def arriving() -> AsyncIterator[Chunk]:
        yield Chunk("1", "one", [0.1])

    assert_type(await db.alist_tenants(), list[TenantInfo])
    assert_type(await db.amaintain(), list[MaintenanceResult])
    assert_type(await store.aoptimize(), OptimizeResult)
    assert_type(await db.adelete_tenant("acme"), ErasureReport)
    assert_type(await db.tenant("acme").alist_collections(), list[CollectionInfo])
    assert_type(await store.aupsert(arriving(), on_nul="error"), UpsertResult)
    assert_type(await store.aquery([0.1], filters=F["a", "b"].in_([1, "x"])), Hits)
    assert_type(await store.alist_chunks(), list[Chunk])
    assert_type(await store.adelete(["1"]), DeleteReport)
    await store.aquery(vectors=[0.1])  # type: ignore[call-arg]


def filters() -> list[Filter]:
    """Comparisons make filters, and only filters combine."""
    assert_type(F.lang == "de", Compare)
    assert_type(F.year.between(2020, 2024), Compare)
    assert_type((F.lang == "de") & ~(F.year > 2020), And)
    assert_type((F.lang != "de") | F.tags.contains("x"), Or)
    Compare(("lang",), "equals", "de")  # type: ignore[arg-type]
    return [F.a == 1, And(F.a == 1), Or(), Not(F.b.is_empty())]
