"""A collection brought up to date with its sources: the part of the vector store that compares documents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pgrecall.arguments import OnNul
from pgrecall.errors import InvalidInput
from pgrecall.operations.chunks import changes
from pgrecall.operations.chunks.upsert import Progress, Target
from pgrecall.operations.models.calls import Calls
from pgrecall.operations.models.embedding import Embed, ModelInUse
from pgrecall.operations.registry import Place
from pgrecall.postgres.transactions import Gate
from pgrecall.stores.twins import Work, twins
from pgrecall.types import Document, DocumentChanges, UpdateResult


class DocumentUpdates:
    """The methods of a `PostgresVectorStore` that compare documents and write those that differ."""

    if TYPE_CHECKING:  # of the store
        _model: ModelInUse

        def _run(self, work: Work[Any]) -> Any: ...
        async def _arun(self, work: Work[Any]) -> Any: ...
        def _place(self, gate: Gate) -> Place: ...
        def _target(self, gate: Gate, on_nul: OnNul) -> Target: ...

    def _compare_documents(self, documents: Iterable[Document]) -> Work[DocumentChanges]:
        """Compare documents with those that the collection holds, by id and content hash; nothing is written.

        A stored document without a content hash, or one that is compared without, counts as changed. All stored ids
        and hashes are read, in pages of 1,000. Raises InvalidInput if two documents have the same id.
        """
        given = changes.distinct(documents)
        return lambda gate: changes.compare(gate, self._place(gate), given)

    compare_documents, acompare_documents = twins(_compare_documents)

    def _update_documents(
        self,
        documents: Iterable[Document] | DocumentChanges,
        chunks_of: changes.ChunksOf,
        *,
        prune: bool = False,
        embed: Embed | None = None,
        embed_concurrency: int = 1,
        progress: Progress | None = None,
    ) -> Work[UpdateResult]:
        """Bring the collection up to date with its sources: only new and changed documents are embedded and written.

        A changed document gets exactly its new chunks, in a transaction of its own. New documents are loaded as by
        `bulk_load`. If a call is interrupted, make it again: it continues where it stopped.

        Args:
            documents: All documents as they are now, each with a `content_hash`; or the result of `compare_documents`,
                for example after its numbers were confirmed.
            chunks_of: Called with each document to write, in the order of `documents`, changed ones first; returns the
                document's chunks.
            prune: Delete stored documents that are not among `documents`, with their chunks. Default: False.
            embed: Embeds chunks that have no embedding; by default the store's own function.
            embed_concurrency: Concurrent calls of the embedding function. Default: 1.
            progress: Called with the number of documents written so far, and their total.

        Returns:
            The numbers of new, changed, unchanged and deleted documents, and of the chunks of new and changed ones.

        Raises:
            InvalidInput: Two documents have the same id, or a chunk names another document.
            InvalidEmbedding: A vector has the wrong length, or is not finite.
            EmbedSpaceMismatch: The collection belongs to another model.
            NotFound: The collection does not exist, and the store has no space to create it with.
            TenantErased: The tenant was deleted.
            Conflict: Concurrent transactions collided; what was committed before stays.
            Unavailable: The database can't be reached.
        """
        known = documents if isinstance(documents, DocumentChanges) else None
        given = () if isinstance(documents, DocumentChanges) else changes.distinct(documents)
        if not callable(chunks_of):
            raise InvalidInput(f"chunks_of is {type(chunks_of).__name__}; expected a function of a document")
        job = changes.UpdateJob(chunks_of, prune, embed or self._model.embedder, Calls(embed_concurrency), progress)

        def work(gate: Gate) -> UpdateResult:
            found = known or changes.compare(gate, self._place(gate), given)
            return changes.apply(gate, lambda: self._target(gate, "error"), found, job)

        return work

    update_documents, aupdate_documents = twins(_update_documents)
