"""A peer's own process, in the peers' environment: reads requests, one JSON line each, and measures its own time.

    python peer_server.py langchain|llamaindex URL FOLDER

It imports nothing of pgrecall. It shares only the arrays that `corpora` saved in FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

K = 10
TABLE = "bench"


class LangChain:
    """PGVectorStore of langchain-postgres: the tenant is a column, HNSW is built after the rows are written."""

    def __init__(self, url: str, dim: int, create: bool) -> None:
        from langchain_core.embeddings import DeterministicFakeEmbedding
        from langchain_postgres import Column, PGEngine, PGVectorStore

        engine = PGEngine.from_connection_string(url)
        if create:
            tenant, key = Column("tenant_id", "TEXT"), Column("langchain_id", "TEXT")
            engine.init_vectorstore_table(TABLE, dim, metadata_columns=[tenant], id_column=key)
        embedding = DeterministicFakeEmbedding(size=dim)  # never called, because all vectors are passed in
        self._store = PGVectorStore.create_sync(engine, embedding, TABLE, metadata_columns=["tenant_id"])

    def add(self, ids, texts, vectors, tenants):
        metadatas = [{"tenant_id": tenant, "n": int(i)} for i, tenant in zip(ids, tenants, strict=True)]
        self._store.add_embeddings(texts, [v.tolist() for v in vectors], metadatas, ids)

    def index(self):
        from langchain_postgres.v2.indexes import HNSWIndex

        self._store.apply_vector_index(HNSWIndex())

    def query(self, vector, tenant):
        found = self._store.similarity_search_with_score_by_vector(vector, k=K, filter={"tenant_id": tenant})
        return [document.id for document, _ in found]


class LlamaIndex:
    """PGVectorStore of llama-index: the tenant is an indexed metadata key, HNSW is created before the first row."""

    def __init__(self, url: str, dim: int, create: bool) -> None:
        from llama_index.vector_stores.postgres import PGVectorStore

        self._store = PGVectorStore(
            connection_string=url.replace("+psycopg:", "+psycopg2:"),
            async_connection_string=url,
            table_name=TABLE,
            schema_name="public",
            embed_dim=dim,
            use_jsonb=True,
            indexed_metadata_keys={("tenant_id", "text")},
            hnsw_kwargs={
                "hnsw_m": 16,
                "hnsw_ef_construction": 64,
                "hnsw_ef_search": 40,
                "hnsw_dist_method": "vector_cosine_ops",
            },
        )

    def add(self, ids, texts, vectors, tenants):
        from llama_index.core.schema import TextNode

        given = zip(ids, texts, vectors, tenants, strict=True)
        self._store.add(
            [
                TextNode(id_=i, text=text, metadata={"tenant_id": tenant, "n": int(i)}, embedding=vector.tolist())
                for i, text, vector, tenant in given
            ]
        )

    def index(self):
        pass

    def query(self, vector, tenant):
        from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery

        only = MetadataFilters(filters=[MetadataFilter(key="tenant_id", value=tenant)])
        return self._store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=K, filters=only)).ids


class Session:
    """The operations that a request can name."""

    def __init__(self, system: type, url: str, folder: Path) -> None:
        self._system, self._url = system, url
        self._owners, self._vectors = np.load(folder / "owners.npy"), np.load(folder / "vectors.npy")
        self._texts = np.load(folder / "texts.npy").tolist()
        self._asked = [f"t{tenant}" for tenant in np.load(folder / "asked.npy")]
        self._questions = np.load(folder / "questions.npy").tolist()

    def open(self, create: bool = False):
        self._store = self._system(self._url, self._vectors.shape[1], create)
        return {}

    def ingest(self, batch: int):
        started = time.perf_counter()
        for start in range(0, len(self._owners), batch):
            rows = range(start, min(start + batch, len(self._owners)))
            texts = [self._texts[row % len(self._texts)] for row in rows]
            tenants = [f"t{self._owners[row]}" for row in rows]
            self._store.add([str(row) for row in rows], texts, self._vectors[rows.start : rows.stop], tenants)
        written = time.perf_counter()
        self._store.index()
        return {"rows": len(self._owners), "seconds": written - started, "index_seconds": time.perf_counter() - written}

    def query(self, question: int):
        vector, tenant = self._questions[question], self._asked[question]
        started = time.perf_counter()
        ids = self._store.query(vector, tenant)
        return {"seconds": time.perf_counter() - started, "ids": ids}


def main() -> None:
    name, url, folder = sys.argv[1:]
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # keeps what a library prints out of the answers
        session = Session({"langchain": LangChain, "llamaindex": LlamaIndex}[name], url, Path(folder))
        for line in sys.stdin:
            request = json.loads(line)
            print(json.dumps(getattr(session, request.pop("do"))(**request)), file=answers, flush=True)


main()
