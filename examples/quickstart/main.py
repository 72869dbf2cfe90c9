"""The main job, end to end: two tenants' documents go in, the right chunks come out. `make demo` runs it."""

import time

import corpus
import minilm
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

import pgrecall
from pgrecall import EmbedSpace, F

TCP, MAIL = "How do I open a TCP connection with a timeout?", "How do I send an email over SSL?"
QUESTIONS = {
    "networking": [TCP, MAIL, "How do I check whether an IP address belongs to a network?"],
    "data": ["How do I insert into a list that stays sorted?", "How do I read comma separated values?"],
}
SPACE = EmbedSpace(**minilm.SPACE_ARGS)
BAR = TextColumn("{task.description:10}"), BarColumn(50), MofNCompleteColumn(), TimeElapsedColumn()
console = Console(width=min(100, Console().width), highlight=False)


def main() -> None:
    started = time.perf_counter()
    with pgrecall.connect() as db:  # no URL: the embedded Postgres, started and migrated by itself
        section("Ingest: Python's documentation of itself, for two tenants")
        stores = {t: db.tenant(t).vectors("stdlib", SPACE, embed=minilm.embed) for t in corpus.TENANTS}
        with Progress(*BAR, console=console) as progress:
            results = [ingest(store, progress) for store in stores.values()]
        new, same = sum(r.embedded for r in results), sum(r.unchanged for r in results)
        say(f"{new:,} chunks embedded and written; {same:,} were there already, unchanged")

        section("Search: questions in plain words")
        for tenant, questions in QUESTIONS.items():
            for question in questions:
                hits = ask(stores[tenant], question)
        section('Filter: the first question again, with F.topic == "mail"')
        ask(stores["networking"], TCP, F.topic == "mail")

        section("Tenants: the same question gets the other tenant's own documents")
        ask(stores["data"], TCP)
        say(
            f"{hits[0].chunk_id} is a chunk of data; get() from networking: {stores['networking'].get([hits[0].chunk_id])}"
        )

        section("Guards: a vector of another model is refused")
        other = db.tenant("data").vectors("stdlib", EmbedSpace("openai", "text-embedding-3-small", 1536))
        try:
            other.query(np.ones(1536))
        except pgrecall.EmbedSpaceMismatch as refusal:
            say(f"EmbedSpaceMismatch: {refusal}")

        section("Deletion, of a third tenant, so that the next run finds these two whole")
        db.create_tenant("scratch", reopen=True)  # the last run deleted it, which keeps late writers out
        scratch = db.tenant("scratch").vectors("stdlib", SPACE, embed=minilm.embed)
        scratch.upsert([c for c in corpus.load("data")[1] if c.doc_id in ("bisect", "heapq")])
        say(f"scratch holds {scratch.count()} chunks of bisect and heapq")
        say(
            f"delete_by_doc_id('bisect')  {dict(scratch.delete_by_doc_id('bisect'))}; {scratch.count()} chunks left"
        )
        say(f"delete_tenant('scratch')    {dict(db.delete_tenant('scratch'))}; {scratch.count()} chunks left")
        say("The others: " + ", ".join(f"{t} {store.count():,} chunks" for t, store in stores.items()))
    again = (
        "Run it again: what is there is neither embedded nor written twice." if new else "Nothing was new."
    )
    say(f"\n{time.perf_counter() - started:.1f} s in all. {again}")


def ingest(store, progress):
    documents, chunks = corpus.load(store.tenant)
    task = progress.add_task(store.tenant, total=len(chunks))
    # Committed in small parts, so that the bar moves while the model works.
    return store.upsert(
        chunks, documents=documents, commit_every=50, progress=lambda n, _: progress.update(task, completed=n)
    )


def ask(store, question, filters=None):
    hits = store.query(minilm.embed([question])[0], top_k=3, filters=filters)
    table = Table(
        "score", "chunk", f"{store.tenant}: {question}", box=SIMPLE_HEAD, expand=True, pad_edge=False
    )
    for hit in hits:
        text = Text(" ".join(hit.text.split()), no_wrap=True, overflow="ellipsis")
        text.append(f"\n{hit.source}  {hit.uri}", style="dim")
        table.add_row(f"{hit.score:.3f}", f"{hit.doc_id} #{hit.index}", text)
    console.print(table)
    return hits


def section(title):
    console.print(f"\n[bold cyan]{title}[/]")


def say(text):
    console.print(text, markup=False)  # an id in brackets is not a style


if __name__ == "__main__":
    main()
