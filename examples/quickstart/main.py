"""The quickstart: ingest documents of two tenants, search and filter them, delete them. `make demo` runs it."""

import time
from functools import partial
from textwrap import shorten

import corpus
import minilm
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress
from rich.table import Table
from rich.text import Text

from pgrecall import EmbedSpace, EmbedSpaceMismatch, F, connect

TCP = "How do I open a TCP connection with a timeout?"
SPACE = EmbedSpace(**minilm.SPACE_ARGS)
console = Console(width=min(100, Console().width), highlight=False, markup=False)
section, say = partial(console.rule, align="left", style="cyan"), partial(console.print, end="\n\n")


def main(started: float) -> None:
    with connect() as db:  # no URL: starts and migrates the embedded Postgres
        section("Ingest: the documentation of Python's standard library, for two tenants")
        networking, data = (db.tenant(t).vectors("stdlib", SPACE, embed=minilm.embed) for t in corpus.TENANTS)
        with Progress("{task.description:10}", BarColumn(60), MofNCompleteColumn(), console=console) as bars:
            results = [ingest(store, bars) for store in (networking, data)]
        say(f"{sum(r.embedded for r in results):,} embedded, {sum(r.unchanged for r in results):,} unchanged")

        section("Search: questions in plain words, each in one tenant")
        ask(networking, TCP)
        ask(networking, "How do I check whether an IP address belongs to a network?")
        ask(data, "How do I insert into a list that stays sorted?")
        ask(data, "How do I read comma separated values?")
        section('Filter: the first question again, with F.topic == "mail"')
        ids = [hit.chunk_id for hit in ask(networking, TCP, F.topic == "mail")]

        section("Tenants: the same question in tenant data finds no chunk of networking")
        ask(data, TCP)
        say(f"Ids of networking are unknown there: get({ids}) returns {data.get(ids)}")

        section("Guard: a vector of another model is refused")
        other = EmbedSpace("openai", "text-embedding-3-small", 1536)
        try:
            db.tenant("data").vectors("stdlib", other).query(np.ones(1536))
        except EmbedSpaceMismatch as refusal:
            say(f"EmbedSpaceMismatch: {refusal}")

        section("Delete: a document, then a whole tenant (a third one)")
        db.create_tenant("scratch", reopen=True)  # the previous run deleted it, and a tombstone refuses writes
        scratch = db.tenant("scratch").vectors("stdlib", SPACE, embed=minilm.embed)
        scratch.upsert([c for c in corpus.load("data")[1] if c.doc_id in ("bisect", "heapq")])
        console.print(f"delete_by_doc_id: {dict(scratch.delete_by_doc_id('bisect'))}; {scratch.count()} left")
        say(f"delete_tenant: { {k: n for k, n in db.delete_tenant('scratch').items() if n} }; {scratch.count()} left")
        say(f"networking still has {networking.count()} chunks, data {data.count()}")
    section(f"{time.perf_counter() - started:.1f} s in total; the next run embeds and writes only new chunks")


def ingest(store, bars):
    documents, chunks = corpus.load(store.tenant_id)
    bar = bars.add_task(store.tenant_id, total=len(chunks))
    # Small commits, so that the progress bar moves while the model works.
    return store.upsert(
        chunks, documents=documents, commit_every=50, progress=lambda n, _: bars.update(bar, completed=n)
    )


def ask(store, question, filters=None):
    hits = store.query(minilm.embed([question])[0], top_k=3, filters=filters)
    table = Table("score", "chunk", f"{store.tenant_id}: {question}", box=None, pad_edge=False)
    for hit in hits:
        text = Text(shorten(hit.text, 145, placeholder=" …")).append(f"\n{hit.source} · {hit.uri}", "dim")
        table.add_row(f"{hit.score:.3f}", f"{hit.doc_id} #{hit.index}".ljust(15), text)
    say(table)
    return hits


if __name__ == "__main__":
    main(time.perf_counter())
