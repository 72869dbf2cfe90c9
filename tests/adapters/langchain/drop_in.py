"""An application on LangChain's vector store interface; only `made` knows whose store it is.

    python drop_in.py ours|theirs URL

It prints what it found as JSON, the same for both. Theirs runs in the peers' environment, which has nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import VectorStore

EMBEDDING = DeterministicFakeEmbedding(size=12)
IDS = [f"00000000-0000-0000-0000-00000000000{n}" for n in range(8)]


def made(whose: str, url: str) -> VectorStore:
    """The one function that differs."""
    if whose == "ours":
        from langchain_pgrecall import PGRecallVectorStore

        return PGRecallVectorStore(EMBEDDING, connection=url, tenant="drop-in", collection="docs")
    from langchain_postgres import PGEngine, PGVectorStore

    engine = PGEngine.from_connection_string(url)
    engine.init_vectorstore_table("docs", 12)
    return PGVectorStore.create_sync(engine, EMBEDDING, "docs")


def found(documents: list[Document]) -> list[Any]:
    return [[d.id, d.page_content, d.metadata] for d in documents]


def application(store: VectorStore) -> dict[str, Any]:
    """What an application does with a store."""
    texts = [f"text {n}" for n in range(6)]
    metadatas = [{"n": n, "even": n % 2 == 0, "kind": "abc"[n % 3]} for n in range(6)]
    answers: dict[str, Any] = {"ids": store.add_texts(texts, metadatas, ids=IDS[:6])}
    more = [Document("text 6", id=IDS[6], metadata={"n": 6, "kind": "a"}), Document("text 7", id=IDS[7])]
    answers["more"] = store.add_documents(more)
    answers["again"] = store.add_texts(["text 0, changed"], [{"n": 0, "kind": "a"}], ids=[IDS[0]])
    answers["nearest"] = found(store.similarity_search("text 3", k=3))
    scored = store.similarity_search_with_score("text 3", k=8)
    answers["scores"] = [[d.id, round(score, 2)] for d, score in scored]
    relevant = store.similarity_search_with_relevance_scores("text 3", k=2)
    answers["relevance"] = [[d.id, round(score, 2)] for d, score in relevant]
    vector = EMBEDDING.embed_query("text 5")
    answers["by vector"] = found(store.similarity_search_by_vector(vector, k=2))
    filters = [
        {"kind": "a"}, {"n": {"$gte": 3}}, {"n": {"$between": (1, 3)}}, {"kind": {"$in": ["b", "c"]}},
        {"$and": [{"kind": "a"}, {"n": {"$lt": 5}}]}, {"$or": [{"n": 1}, {"n": 2}]}, {"kind": {"$like": "a%"}},
        {"n": {"$exists": False}},
    ]  # fmt: skip
    answers["filtered"] = [sorted(d.id or "" for d in store.similarity_search("x", k=8, filter=f)) for f in filters]
    answers["mmr"] = [d.id for d in store.max_marginal_relevance_search("text 3", k=3, fetch_k=8, lambda_mult=0.7)]
    answers["read"] = found(sorted(store.get_by_ids(IDS[:2]), key=lambda d: d.id or ""))
    retriever = store.as_retriever(search_kwargs={"k": 2, "filter": {"kind": "a"}})
    answers["retrieved"] = found(retriever.invoke("text 6"))
    answers["deleted"] = store.delete(IDS[:4])
    answers["left"] = sorted(d.id or "" for d in asyncio.run(store.asimilarity_search("x", k=8)))
    return answers


if __name__ == "__main__":
    sys.stdout.write(json.dumps(application(made(*sys.argv[1:]))))
