"""A collection that follows a folder: `index` adds new documents, skips unchanged ones and deletes missing ones."""

import tempfile
from pathlib import Path

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import index

import pgrecall
from langchain_pgrecall import PGRecallRecordManager, PGRecallVectorStore


def load(folder: Path) -> list[Document]:
    """One document for each paragraph of each file."""
    return [
        Document(paragraph, metadata={"source": file.name})
        for file in sorted(folder.glob("*.md"))
        for paragraph in file.read_text().split("\n\n")
    ]


def main() -> None:
    with pgrecall.connect() as db, tempfile.TemporaryDirectory() as place:  # PGRECALL_URL, or the embedded Postgres
        where = {"connection": db, "tenant": "acme", "collection": "folder"}
        store = PGRecallVectorStore(DeterministicFakeEmbedding(size=256), **where)
        manager = PGRecallRecordManager(**where)  # its records belong to the collection
        folder = Path(place)

        def sync() -> None:
            documents = load(folder)
            print(index(documents, manager, store, cleanup="full", source_id_key="source", key_encoder="sha256"))

        (folder / "holidays.md").write_text("Everyone has 30 days.\n\nThey can be moved to the next year.")
        (folder / "expenses.md").write_text("Keep your receipts.")
        sync()
        sync()  # nothing changed: nothing is embedded or written
        (folder / "holidays.md").write_text("Everyone has 31 days.\n\nThey can be moved to the next year.")
        (folder / "expenses.md").unlink()
        sync()
        store.delete(manager.list_keys()[:1])  # a document is lost: its record alone does not count
        sync()
        print(sorted(chunk.text for chunk in store.core.list_chunks()))
        store.core.drop()


if __name__ == "__main__":
    main()
