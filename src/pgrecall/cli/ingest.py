"""`pgrecall ingest`: files become searchable documents and chunks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgrecall.cli.embedding import ConcurrencyOption, EmbedOption, load_embed, space_of
from pgrecall.cli.progress import progress
from pgrecall.cli.session import Session, TenantOption, YesOption, command
from pgrecall.errors import InvalidInput

if TYPE_CHECKING:
    from pgrecall.reading import Source
    from pgrecall.types import Document


def register(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    command(app, "ingest", rich_help_panel=panel, renamed={"--passage": "--chunk-size"})(ingest)


def ingest(
    session: Session,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders.", show_default=False)],
    tenant: TenantOption,
    collection: Annotated[
        str, typer.Option("--collection", "-c", help="The collection; created if it is new.")
    ] = "default",
    chunk_size: Annotated[int, typer.Option("--chunk-size", help="Characters per chunk, at most.")] = 1_000,
    metadata: Annotated[
        str | None, typer.Option(metavar="JSON", help="A JSON object to store with every chunk.", show_default=False)
    ] = None,
    text_config: Annotated[
        str | None,
        typer.Option(
            "--text-config", help="Add full-text search to a new collection, such as english.", show_default=False
        ),
    ] = None,
    concurrency: ConcurrencyOption = 1,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete the collection's documents that are no longer in PATH...")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read, compare and count; write nothing.")] = False,
    embed: EmbedOption = None,
    yes: YesOption = False,
) -> None:
    """Ingest text (.txt), Markdown (.md) and JSON lines (.jsonl): split into chunks and embedded by --embed.

    A text or Markdown file is one document, named by its path below the given folder. In JSON lines, each line is a
    document: an object [cyan]{"text": "…", "id": "…", "uri": "…", "metadata": {…}}[/]. Only text is required.

    A second run embeds and writes only new and changed documents; all chunks of a changed document are replaced. All
    files are read and checked before anything is written. If the command is interrupted, run it again.
    """
    about = _object(metadata)
    from pgrecall.reading import Splitters

    splitters = Splitters(chunk_size)
    found = _Files(paths, chunk_size)
    with session.tenant(tenant) as opened:
        held = opened.collection_info(collection)
        changes = opened.vectors(collection).compare_documents(found.documents)
        gone = len(changes.missing) if prune else 0
        counts = {
            "documents": len(found.documents),
            "new": len(changes.new),
            "changed": len(changes.changed),
            "unchanged": len(changes.unchanged),
            "empty": found.empty,
            "pruned": gone,
        }
        data = {"tenant": tenant, "collection": collection, "dry_run": dry_run} | counts
        text = ", ".join(f"{count:,} {what}" for what, count in counts.items())
        if dry_run:
            session.emit(data, f"{collection}: {text}; dry run, nothing was written")
            return
        if gone:
            session.confirm(f"This deletes {gone:,} documents of collection {collection!r}", yes=yes)
        function = load_embed(embed)
        space = space_of(embed, function) if held is None else None
        store = opened.vectors(collection, space, embed=function, text_config=text_config if held is None else None)
        with progress(session, f"ingesting into {collection}", len(changes.new) + len(changes.changed)) as done:
            result = store.update_documents(
                changes,
                lambda document: found.source(document).passages(splitters, about),
                prune=prune,
                embed_concurrency=concurrency,
                progress=lambda count, _: done(count),
            )
    session.emit(data | {"chunks": result.chunks}, f"{collection}: {text}; {result.chunks:,} chunks written")


def _object(text: str | None) -> dict[str, Any]:
    try:
        found = {} if text is None else json.loads(text)
    except ValueError as exc:
        raise InvalidInput(f"--metadata is not JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise InvalidInput(f"--metadata is {type(found).__name__}; expected a JSON object")
    return found


class _Files:
    """The documents of files, which are read twice: all of them to compare, then those to write, in the same order."""

    def __init__(self, paths: list[Path], characters: int) -> None:
        """Read and check every file. Raises InvalidInput."""
        from pgrecall.reading import files, sources

        self._characters = characters
        self._names: dict[Path, str] = {}
        self._path_of: dict[str, Path] = {}
        self._reading: tuple[Path, Iterator[Source]] | None = None
        self.documents: list[Document] = []
        self.empty = 0
        for name, path in files(paths):
            self._names[path] = name
            for source in sources(name, path, characters):
                document = source.document
                if not source.text.strip():
                    self.empty += 1
                elif document.id in self._path_of:
                    both = f"{path} and {self._path_of[document.id]}"
                    raise InvalidInput(f"{both} both contain a document {document.id!r:.80}; ids must be unique")
                else:
                    self._path_of[document.id] = path
                    self.documents.append(document)
        if not self.documents:
            raise InvalidInput(f"no text was found in {', '.join(map(str, paths))}; expected files that have some")

    def source(self, document: Document) -> Source:
        """The document's text. Raises InvalidInput if its file changed meanwhile and has no such document any more."""
        path = self._path_of[document.id]
        for again in (False, True):
            if again or self._reading is None or self._reading[0] != path:
                from pgrecall.reading import sources

                self._reading = path, sources(self._names[path], path, self._characters)
            for source in self._reading[1]:
                if source.document.id == document.id:
                    return source
        raise InvalidInput(f"{path} changed while it was ingested; document {document.id!r:.80} is gone; run it again")
