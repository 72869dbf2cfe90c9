"""`pgrecall eval load|list`: eval sets and their runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgrecall.cli.embedding import EmbedOption, load_embed, space_of
from pgrecall.cli.evaluation.common import (
    SHOWN,
    app,
    evaluations_of,
    from_json,
)
from pgrecall.cli.progress import progress
from pgrecall.cli.session import Session, TenantOption, command, table
from pgrecall.errors import InvalidInput

if TYPE_CHECKING:
    from pgrecall.evaluation import EvalSet
    from pgrecall.stores.tenant import Tenant


@command(app, "load")
def load(
    session: Session,
    tenant: TenantOption,
    path: Annotated[
        Path | None,
        typer.Argument(help="A folder in BEIR format, or a file of JSON lines.", show_default=False),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="The set's name. Default: the file's or folder's.", show_default=False)
    ] = None,
    split: Annotated[str, typer.Option("--split", help="The split of a BEIR folder's judgements.")] = "test",
    fields: Annotated[
        str | None,
        typer.Option(
            "--fields",
            metavar="JSON",
            help='The keys of JSON lines, if they differ: {"text": "question", …}',
            show_default=False,
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="The data's licence, to store with the set.", show_default=False)
    ] = None,
    collection: Annotated[
        str | None,
        typer.Option(
            "--collection", "-c", help="Also ingest a BEIR folder's corpus into this collection.", show_default=False
        ),
    ] = None,
    known_item: Annotated[
        int | None,
        typer.Option(
            "--known-item",
            metavar="N",
            help="Make N queries from --collection's own chunks instead.",
            show_default=False,
        ),
    ] = None,
    text_config: Annotated[
        str | None,
        typer.Option(
            "--text-config", help="Add full-text search to a new --collection, such as english.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of --known-item's sample.")] = 0,
    embed: EmbedOption = None,
) -> None:
    """Store an eval set as the next version of its name. Loading the same content again keeps the version.

    A BEIR folder has queries.jsonl, qrels/test.tsv or qrels.tsv, and corpus.jsonl. --collection ingests the corpus:
    each line becomes a document with one chunk of its title and text, embedded by --embed.

    JSON lines have id, text and judged (an id, a list of ids, or ids with grades), and optionally tenant, filters and
    answer. --fields maps them to other keys.
    """
    with session.tenant(tenant) as opened:
        kept = evaluations_of(opened)
        from pgrecall.evaluation import beir, json_lines, known_items

        if known_item is not None:
            if collection is None or path is not None:
                raise InvalidInput(
                    "--known-item makes queries from a collection's chunks; pass --collection and no PATH"
                )
            chunks = opened.vectors(collection).list_chunks(limit=1_000_000)
            made = known_items(chunks, known_item, name=name or f"{collection} known items", seed=seed)
        elif path is None:
            raise InvalidInput(
                "there is nothing to load; pass a BEIR folder or a file of JSON lines, or --known-item N"
            )
        elif path.is_dir():
            made = beir(path, name=name, split=split, licence=licence)
            if collection is not None:
                _ingest(session, opened, path, made, collection, embed, text_config)
        else:
            if collection is not None:
                raise InvalidInput(
                    f"{path} contains only queries, so there is no corpus for collection {collection!r}; omit "
                    "--collection, or pass a BEIR folder"
                )
            renamed = None if fields is None else from_json(fields, "--fields")
            made = json_lines(path, name=name, fields=renamed, licence=licence)
        info = kept.save_set(made)
    left = "".join(f"; skipped: {count:,} {what}" for what, count in info.left_out.items())
    text = f"{info.name} version {info.version}: {info.queries:,} queries, sha256 {info.sha256[:16]}…{left}"
    session.emit(asdict(info), text)


def _ingest(
    session: Session,
    tenant: Tenant,
    folder: Path,
    made: EvalSet,
    collection: str,
    embed: str | None,
    text_config: str | None,
) -> None:
    from pgrecall.evaluation import corpus
    from pgrecall.types import Chunk, Document

    function = load_embed(embed)
    documents, chunks = [], []
    for document in corpus(folder):
        title, text = document.metadata["title"], document.metadata["text"]
        documents.append(Document(document.id, source=document.source))
        chunks.append(Chunk(document.id, f"{title}\n{text}" if title else text, doc_id=document.id, index=0))
    judged = {own for query in made.queries for own in query.judged}
    if missing := judged.difference(document.id for document in documents):
        count = f"{len(missing):,} of {len(judged):,} judged documents"
        problem = f"{count} are not in corpus.jsonl, such as {min(missing)!r:.80}"
        if len(missing) == len(judged):
            raise InvalidInput(f"{problem}; check that its ids match those of the judgements")
        session.note(f"{problem}, so no search can find them.")
    held = tenant.collection_info(collection)
    space = None if held is not None else space_of(embed, function)
    store = tenant.vectors(collection, space, embed=function, text_config=text_config if held is None else None)
    with progress(session, f"ingesting {folder.name}", len(chunks)) as done:
        # After an interrupt, the chunks committed so far are not embedded again.
        store.upsert(chunks, documents=documents, commit_every=1_000, progress=lambda count, _total: done(count))


@command(app, "list")
def list_(session: Session, tenant: TenantOption) -> None:
    """List the tenant's eval sets and runs, newest first."""
    with session.tenant(tenant) as opened:
        kept = evaluations_of(opened)
        sets, runs = kept.sets(), kept.runs()

    def show(console: Any) -> None:
        table(
            ("set", "version", "queries", "kind", "licence", "sha256", "loaded"),
            [(s.name, s.version, s.queries, s.kind, s.licence, s.sha256[:12], s.created_at) for s in sets],
        )(console)
        table(
            ("run", "set", "label", "status", *SHOWN, "started"),
            [
                (
                    r.run_id,
                    f"{r.set_name} v{r.set_version}",
                    r.config.get("label"),
                    r.status,
                    *(_mean(r.summary, name) for name in SHOWN),
                    r.created_at,
                )
                for r in runs
            ],
        )(console)

    data = {"sets": [asdict(s) for s in sets], "runs": [asdict(r) for r in runs]}
    session.emit(data, show if sets or runs else f"{tenant} has no eval sets; load one: pgrecall eval load PATH")


def _mean(summary: Mapping[str, Any] | None, name: str) -> str:
    held = (summary or {}).get("metrics", {}).get(name)
    return "–" if held is None else f"{held['mean']:.4f}"
