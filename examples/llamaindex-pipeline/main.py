"""A collection that follows its documents: unchanged ones are skipped, changed ones replaced, missing ones deleted.

Vector store and document store share one transaction: if the model fails, nothing changes.
"""

from llama_index.core import Document, MockEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.storage.docstore.pgrecall import PGRecallDocumentStore
from llama_index.vector_stores.pgrecall import PGRecallVectorStore

import pgrecall


class Broken(MockEmbedding):
    """A model that can't be reached."""

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        raise ConnectionError


def main() -> None:
    with pgrecall.connect() as db:  # PGRECALL_URL, or the embedded Postgres
        where = {"connection": db, "tenant": "acme", "collection": "llama-pipeline"}
        model = MockEmbedding(embed_dim=16)
        vector_store, docstore = PGRecallVectorStore(model, **where), PGRecallDocumentStore(**where)

        def ingest(texts: dict[str, str], model: MockEmbedding = model) -> int:
            pipeline = IngestionPipeline(
                transformations=[SentenceSplitter(), model],
                vector_store=vector_store,
                docstore=docstore,
                docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
            )
            with vector_store.atomic():
                return len(pipeline.run(documents=[Document(id_=name, text=text) for name, text in texts.items()]))

        texts = {"holidays": "Everyone has 30 days.", "expenses": "Keep your receipts."}
        print(f"first run: {ingest(texts)} chunks")
        print(f"again: {ingest(texts)} chunks")  # embeds and writes nothing
        changed = {"holidays": "Everyone has 31 days."}  # the expenses are gone
        print(f"changed: {ingest(changed)} chunks")
        try:
            ingest({"holidays": "Everyone has 32 days."}, Broken(embed_dim=16))
        except ConnectionError:
            print("failed: nothing is lost")
        print([node.get_content() for node in vector_store.get_nodes()])
        vector_store.client.drop()  # the collection, and the document store's entries


if __name__ == "__main__":
    main()
