"""`pgrecall ingest`: files in, so that they can be searched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgrecall.cli.embedding import ConcurrencyOption, EmbedOption, load_embed, space_of
from pgrecall.cli.progress import progress
from pgrecall.cli.session import Session, TenantOption, YesOption, command
from pgrecall.errors import InvalidInput

if TYPE_CHECKING:
    from pgrecall.reading import Source, Splitters
    from pgrecall.stores.vectors import PostgresVectorStore
    from pgrecall.types import Chunk, Document

#: Documents that are looked up, or described, in one call.
PAGE = 1_000


def register(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    command(app, "ingest", rich_help_panel=panel)(ingest)


@dataclass
class _Plan:
    """What is to be done with each document: its name -> the file that it is read from."""

    hashes: dict[str, str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    of_file: dict[Path, str] = field(default_factory=dict)
    new: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    empty: int = 0
    gone: list[str] = field(default_factory=list)


def ingest(
    session: Session,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders.", show_default=False)],
    tenant: TenantOption,
    collection: Annotated[str, typer.Option("--collection", "-c", help="Where to; made if it is new.")] = "default",
    passage: Annotated[int, typer.Option(help="Characters of a passage, at most.")] = 1_000,
    metadata: Annotated[
        str | None, typer.Option(metavar="JSON", help="An object, for every chunk.", show_default=False)
    ] = None,
    text_config: Annotated[
        str | None, typer.Option("--text-config", help="Keep full text in a new collection.", show_default=False)
    ] = None,
    concurrency: ConcurrencyOption = 1,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete the collection's documents that are not among PATH... any more.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read, compare and count; write nothing.")] = False,
    embed: EmbedOption = None,
    yes: YesOption = False,
) -> None:
    """Ingest text (.txt), Markdown (.md) and JSON lines (.jsonl): split, embedded by --embed, and searchable.

    Each file is a document, named by its path below the folder that was given. Each line of JSON lines is one, an
    object: [cyan]{"text": "…", "id": "…", "uri": "…", "metadata": {…}}[/], of which only text must be there.

    Run again, only what is new or has changed is embedded and written; a document that changed has exactly its new
    passages then. All files are read and checked before anything is written. Where it was cut off, run it again.
    """
    about = _object(metadata)
    from pgrecall.reading import Splitters

    splitters = Splitters(passage)
    with session.tenant(tenant) as opened:
        held = opened.collection(collection)
        plan = _planned(paths, passage, opened.vectors(collection) if held is not None else None, prune=prune)
        if not plan.hashes:
            raise InvalidInput(f"there is nothing to read in {', '.join(map(str, paths))}")
        counts = {
            "documents": len(plan.hashes),
            "new": len(plan.new),
            "changed": len(plan.changed),
            "unchanged": len(plan.hashes) - len(plan.new) - len(plan.changed),
            "empty": plan.empty,
            "pruned": len(plan.gone),
        }
        told = {"tenant": tenant, "collection": collection, "dry_run": dry_run} | counts
        said = ", ".join(f"{count:,} {what}" for what, count in counts.items())
        if dry_run:
            session.emit(told, f"{collection}: {said}; nothing was written")
            return
        if plan.gone:
            session.confirm(f"This deletes {len(plan.gone):,} documents of collection {collection!r}", yes=yes)
        function = load_embed(embed)
        space = space_of(embed, function) if held is None else None
        store = opened.vectors(collection, space, embed=function, text_config=text_config if held is None else None)
        with progress(session, f"ingesting into {collection}", len(plan.new) + len(plan.changed)) as done:
            passages = _write(store, plan, splitters, about, concurrency, done)
        for doc_id in plan.gone:
            store.delete_by_doc_id(doc_id)
    session.emit(told | {"passages": passages}, f"{collection}: {said}; {passages:,} passages")


def _object(text: str | None) -> dict[str, Any]:
    try:
        found = {} if text is None else json.loads(text)
    except ValueError as exc:
        raise InvalidInput(f"--metadata is no JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise InvalidInput(f"--metadata is {type(found).__name__}; expected a JSON object")
    return found


def _planned(paths: list[Path], passage: int, store: PostgresVectorStore | None, *, prune: bool) -> _Plan:
    """Read everything once, and compare it with what the collection holds."""
    from pgrecall.reading import files, sources

    plan = _Plan()
    for name, path in files(paths):
        plan.of_file[path] = name
        for source in sources(name, path, passage):
            document = source.document
            if not source.text.strip():
                plan.empty += 1
                continue
            if document.id in plan.files:
                raise InvalidInput(
                    f"{path} and {plan.files[document.id]} both have a document {document.id!r:.80}; ids must differ"
                )
            plan.files[document.id], plan.hashes[document.id] = path, str(document.content_hash)
    held = dict(_held(store)) if store is not None else {}
    plan.new = set(plan.hashes) - set(held)
    plan.changed = {name for name, digest in plan.hashes.items() if name in held and held[name] != digest}
    if prune:
        plan.gone = sorted(set(held) - set(plan.hashes))
    return plan


def _held(store: PostgresVectorStore) -> Iterator[tuple[str, str | None]]:
    offset = 0
    while page := store.documents(limit=PAGE, offset=offset):
        yield from ((document.id, document.content_hash) for document in page)
        offset += len(page)


def _write(
    store: PostgresVectorStore,
    plan: _Plan,
    splitters: Splitters,
    about: dict[str, Any],
    concurrency: int,
    done: Callable[[int], None],
) -> int:
    """What changed, document by document; then what is new, in bulk. How many passages.

    A new document's hash is written last, after all passages: one without its hash was cut off, and is taken for
    changed.
    """
    passages = finished = 0
    described: list[Document] = []

    def read(wanted: set[str]) -> Iterator[Source]:
        from pgrecall.reading import sources

        for path in dict.fromkeys(plan.files[name] for name in wanted):
            for source in sources(plan.of_file[path], path, splitters.characters):
                if source.document.id in wanted:
                    yield source

    for source in read(plan.changed):
        chunks = source.passages(splitters, about)
        store.replace_document(source.document, chunks)
        passages, finished = passages + len(chunks), finished + 1
        done(finished)

    def new() -> Iterator[Chunk]:
        nonlocal passages, finished
        for source in read(plan.new):
            chunks = source.passages(splitters, about)
            described.append(source.document)
            yield from chunks
            passages, finished = passages + len(chunks), finished + 1
            done(finished)

    if plan.new:
        unfinished = (replace(source.document, content_hash=None) for source in read(plan.new))
        store.bulk_load(new(), documents=unfinished, embed_concurrency=concurrency)
        for start in range(0, len(described), PAGE):
            store.upsert([], documents=described[start : start + PAGE])
    return passages
