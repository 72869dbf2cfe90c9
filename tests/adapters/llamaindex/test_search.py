"""Words, and words with a vector: SPARSE, TEXT_SEARCH and HYBRID as LlamaIndex asks for them; evidence of a run."""

from __future__ import annotations

import asyncio

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters, VectorStoreQuery, VectorStoreQueryMode
from llama_index.vector_stores.pgrecall import PGRecallVectorStore

from pgrecall import ConfigurationError, InvalidInput
from support.llama import SPACE, vector

TEXTS = [
    "holidays are thirty days",
    "expenses are paid back",
    "a lost laptop must be reported",
    "holidays and expenses",
]


@pytest.fixture
def worded(db, tenant_id):
    store = PGRecallVectorStore(SPACE, connection=db, tenant=tenant_id, collection="words", text_config="english")
    store.add(
        [TextNode(id_=f"n{n}", text=text, embedding=vector(n), metadata={"n": n}) for n, text in enumerate(TEXTS)]
    )
    return store


def ask(store, face, mode, **query):
    asked = VectorStoreQuery(**{"similarity_top_k": 10, "mode": VectorStoreQueryMode(mode)} | query)
    return store.query(asked) if face == "sync" else asyncio.run(store.aquery(asked))


@pytest.mark.parametrize("mode", ["sparse", "text_search"])
def test_words_find_texts(worded, face, mode):
    """Stemmed, best first, filtered; as many as sparse_top_k says where it does; no embedding is needed."""
    found = ask(worded, face, mode, query_str="holiday expense")
    assert found.ids[0] == "n3" and set(found.ids) == {"n0", "n1", "n3"}
    assert found.similarities == sorted(found.similarities, reverse=True)
    assert len(ask(worded, face, mode, query_str="holiday expense", sparse_top_k=1).ids) == 1
    filters = MetadataFilters(filters=[MetadataFilter(key="n", value=0)])
    assert ask(worded, face, mode, query_str="holiday", filters=filters).ids == ["n0"]
    with pytest.raises(InvalidInput, match="no text"):
        ask(worded, face, mode)


def test_hybrid_is_fused_by_alpha(worded, face):
    """0 is words alone, 1 the vector alone; hybrid_top_k says how many come, the other two how deep each leg goes."""
    both = {"query_embedding": vector(2), "query_str": "holidays"}
    assert ask(worded, face, "hybrid", **both, alpha=1.0).ids[0] == "n2"
    assert ask(worded, face, "hybrid", **both, alpha=0.0).ids[0] in ("n0", "n3")
    found = ask(worded, face, "hybrid", **both, hybrid_top_k=2, sparse_top_k=1, similarity_top_k=1)
    assert len(found.ids) == 2 and "n2" in found.ids and set(found.ids) & {"n0", "n3"}
    assert found.similarities == sorted(found.similarities, reverse=True)
    for missing in ("query_embedding", "query_str"):
        with pytest.raises(InvalidInput, match="mode 'hybrid' needs one"):
            ask(worded, face, "hybrid", **{**both, missing: None})


def test_a_second_query_goes_by_its_own_words(worded, face):
    """The peer's second hybrid query went by the first one's text."""
    for text, expected in (("laptop", "n2"), ("thirty", "n0")):
        assert ask(worded, face, "hybrid", query_embedding=vector(9), query_str=text, alpha=0.0).ids[0] == expected


def test_a_collection_without_full_text_says_so(store, face):
    """Words need it; the error names the way."""
    store.add([TextNode(id_="a", text="holidays", embedding=vector(1))])
    with pytest.raises(ConfigurationError, match="full-text search"):
        ask(store, face, "text_search", query_str="holidays")


def test_retrievers_ask_in_every_mode(wordy, model, db, tenant_id):
    """vector_store_query_mode of an index reaches the store."""
    store = PGRecallVectorStore(
        model, connection=db, tenant=tenant_id, collection="r", space=wordy.client._model.given, text_config="english"
    )
    index = VectorStoreIndex.from_vector_store(store, embed_model=model)
    index.insert_nodes([TextNode(id_=f"n{n}", text=text) for n, text in enumerate(TEXTS)])
    for mode in ("default", "sparse", "text_search", "hybrid", "mmr"):
        retriever = index.as_retriever(vector_store_query_mode=mode, similarity_top_k=2)
        assert retriever.retrieve("a lost laptop")[0].node_id == "n2", mode


def test_queries_of_a_run_leave_evidence(worded, face, db, tenant_id):
    """What each query gave, and nothing of the store that is not at work for the run."""
    ask(worded, face, "default", query_embedding=vector(0))
    at_work = worded.for_run("run-1")
    ids = ask(at_work, face, "default", query_embedding=vector(0), similarity_top_k=2).ids
    ask(at_work, face, "text_search", query_str="laptop")
    first, second = db.tenant(tenant_id).runs().list_evidence("run-1")
    assert [c.chunk_id for c in first.chunks] == ids and [c.chunk_id for c in second.chunks] == ["n2"]
    assert (first.collection, first.query_kind) == ("words", "vector")
