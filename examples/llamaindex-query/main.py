"""Queries of an index, with a record of what each answer was based on.

The embedding model is a stand-in that needs no API key: texts with common words are near each other. Use your own
instead.
"""

import hashlib
import re
import uuid

from llama_index.core import Document, StorageContext, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.vector_stores.pgrecall import PGRecallVectorStore

import pgrecall
from pgrecall import EmbedModel

TEXTS = {
    "holidays": "Everyone has 30 days of holidays.",
    "expenses": "Expenses are paid back in two weeks.",
    "laptop": "A lost laptop must be reported within a day.",
}


class Words(BaseEmbedding):
    """Each word of a text adds to one of 64 dimensions."""

    def _get_text_embedding(self, text: str) -> list[float]:
        vector = [0.01] * 64
        for word in re.findall(r"\w+", text.lower()):
            vector[hashlib.sha256(word.encode()).digest()[0] % 64] += 1
        return vector

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def documents(texts: dict[str, str]) -> list[Document]:
    return [Document(id_=name, text=text) for name, text in texts.items()]


def main() -> None:
    with pgrecall.connect() as db:  # PGRECALL_URL, or the embedded Postgres
        model = Words()
        space = EmbedModel("example", "words-64")  # not needed for known classes such as OpenAIEmbedding
        store = PGRecallVectorStore(model, connection=db, tenant="acme", collection="llama-query", space=space)
        store.clear()
        context = StorageContext.from_defaults(vector_store=store)
        VectorStoreIndex.from_documents(documents(TEXTS), storage_context=context, embed_model=model)

        run_id = f"run-{uuid.uuid4()}"
        asked = VectorStoreIndex.from_vector_store(store.for_run(run_id), embed_model=model)
        found = asked.as_retriever(similarity_top_k=2).retrieve("When are expenses paid back?")
        print(found[0].node.get_content())

        # Later, even if the document has changed: what was the answer based on, and is it still the same?
        [node_id] = [n.node_id for n in store.get_nodes() if n.ref_doc_id == "expenses"]
        [node] = store.get_nodes([node_id])
        node.text = "Expenses are paid back in a month."
        store.add([node])
        [evidence] = db.tenant("acme").runs().list_evidence(run_id)
        names = {n.node_id: n.ref_doc_id for n in store.get_nodes()}
        for line in sorted(f"{names[chunk.chunk_id]}: {chunk.now}" for chunk in evidence.chunks):
            print(line)


if __name__ == "__main__":
    main()
