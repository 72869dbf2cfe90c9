"""Whose connections an adapter's object closes."""

from __future__ import annotations

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from llama_index.memory.pgrecall import PGRecallFactBlock
from llama_index.storage.chat_store.pgrecall import PGRecallBufferChatStore, PGRecallChatStore
from llama_index.storage.docstore.pgrecall import PGRecallDocumentStore
from llama_index.vector_stores.pgrecall import PGRecallVectorStore as NodeStore

from langchain_pgrecall import PGRecallChatMessageHistory, PGRecallRecordManager, PGRecallStore, PGRecallVectorStore
from pgrecall import ConfigurationError
from support.llama import SPACE

MADE = {
    "PGRecallVectorStore": lambda **given: PGRecallVectorStore(DeterministicFakeEmbedding(size=8), **given),
    "PGRecallChatMessageHistory": lambda **given: PGRecallChatMessageHistory("s", **given),
    "PGRecallRecordManager": PGRecallRecordManager,
    "PGRecallStore": PGRecallStore,
    "LlamaIndex's PGRecallVectorStore": lambda **given: NodeStore(SPACE, **given),
    "PGRecallDocumentStore": PGRecallDocumentStore,
    "PGRecallChatStore": PGRecallChatStore,
    "PGRecallBufferChatStore": PGRecallBufferChatStore,
    "PGRecallFactBlock": lambda **given: PGRecallFactBlock(extract=list, **given),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
async def test_an_object_closes_the_connections_that_it_opened_and_no_others(make, db, app_url, tenant_id):
    """Synchronously and asynchronously; a database that was passed stays open."""
    for given in (db, app_url):
        for close in ("close", "aclose"):
            made = make(connection=given, tenant=tenant_id)
            assert made.database.tenant(tenant_id).list_collections() == []
            if close == "close":
                made.close()
            else:
                await made.aclose()
            if given is db:
                assert made.database is db and db.tenant(tenant_id).list_collections() == []
            else:
                with pytest.raises(ConfigurationError, match="closed"):
                    made.database.tenant(tenant_id).list_collections()
