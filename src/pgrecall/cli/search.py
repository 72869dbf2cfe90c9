"""`pgrecall search`: the chunks that match a text."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgrecall.cli.embedding import EmbedOption, load_embed
from pgrecall.cli.session import Session, TenantOption, command, plain, table
from pgrecall.errors import FilterError

if TYPE_CHECKING:
    from rich.console import Console

    from pgrecall.filters import Filter
    from pgrecall.hits import Explanation, Hit
    from pgrecall.transfer import Header

#: Characters of a chunk's text that are shown without --full.
SHOWN = 400


EF_SEARCH = (
    "Candidates that a graph search keeps, up to 1,000. Default: the collection's own (`collections tune`), else a "
    "hundredth of its rows, from 100 to 600; twice as many with a filter."
)


def register(app: typer.Typer, panel: str) -> None:
    """Add the command."""
    command(app, "search", rich_help_panel=panel)(search)


class ModeChoice(StrEnum):
    """How a search finds chunks or facts."""

    dense = "dense"
    sparse = "sparse"
    hybrid = "hybrid"


def search(
    session: Session,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A question in plain words.", show_default=False)],
    tenant: TenantOption,
    collection: Annotated[str, typer.Option("--collection", "-c", help="The collection to search.")] = "default",
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="Chunks to return.")] = 10,
    where: Annotated[
        str | None,
        typer.Option("--filter", "-f", metavar="JSON", help="Filter on metadata; see above.", show_default=False),
    ] = None,
    mode: Annotated[
        ModeChoice, typer.Option(help="By meaning (dense), by words (sparse; needs no --embed), or by both.")
    ] = ModeChoice.dense,
    alpha: Annotated[
        float,
        typer.Option(help="Weight of the dense part of a hybrid search, from 0 (only words) to 1 (only the vector)."),
    ] = 0.5,
    ranks: Annotated[bool, typer.Option("--ranks", help="Fuse by reciprocal rank (RRF) instead of by scores.")] = False,
    fetch_k: Annotated[
        int | None, typer.Option(help="Candidates from each side of a hybrid search.", show_default=False)
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Scan the whole collection instead of using its graph.")
    ] = False,
    ef_search: Annotated[int | None, typer.Option(help=EF_SEARCH, show_default=False)] = None,
    embed: EmbedOption = None,
    full: Annotated[bool, typer.Option("--full", help="Do not shorten long texts.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Also show how the search was executed.")] = False,
    plan: Annotated[bool, typer.Option("--plan", help="As --explain, with the plan of EXPLAIN ANALYZE.")] = False,
) -> None:
    """Search a collection, best chunks first. Exit 1 if the collection does not exist.

    The query is embedded by --embed, which must be the collection's model: its dimensions and fingerprint are checked
    first. With --mode sparse or hybrid, words and [cyan]"quoted phrases"[/] are OR-ed; [cyan]-word[/] excludes. Any
    input is accepted.

    --filter is a JSON object of fields: [cyan]{"lang": "de"}[/], [cyan]{"year": {"$gte": 2020, "$lt": 2024}}[/],
    combined with [cyan]{"$or": \\[{…}, {…}]}[/], $and and [cyan]{"$not": {…}}[/]. Operators, each prefixed with $:
    eq ne gt gte lt lte in nin between contains any all text_match text_match_i like ilike exists is_empty.
    """
    filters = None if where is None else parse_filter(where)
    function = None if mode is ModeChoice.sparse else load_embed(embed)
    from pgrecall import transfer
    from pgrecall.hits import ReciprocalRank, Weighted

    fusion = ReciprocalRank(alpha=alpha) if ranks else Weighted(alpha)
    with session.tenant(tenant) as opened:
        header = transfer.described(opened.vectors(collection))
        vector = None if function is None else _embedded(function, query, collection, header)
        hits = opened.vectors(collection, header.space).query(
            vector,
            top_k,
            filters,
            text=query,
            mode=mode.value,
            fusion=fusion,
            fetch_k=fetch_k,
            exact=exact,
            ef_search=ef_search,
            explain="plan" if plan else explain,
        )
    explained = hits.explanation
    found = _shown(hits, full=full) if hits else _nothing
    if explained is None:
        session.emit([asdict(hit) for hit in hits], found)
    else:
        steps = explained.round_trips, explained.total_ms
        summary = asdict(explained) | dict(zip(("round_trips", "total_ms"), steps, strict=True))
        session.emit({"hits": [asdict(hit) for hit in hits], "explanation": summary}, _both(found, explained))


def _embedded(function: Callable[[list[str]], Any], query: str, collection: str, header: Header) -> Any:
    """The query's vector, after a check that --embed is the collection's model."""
    from pgrecall import guards
    from pgrecall.operations.registry import check_fingerprint

    fingerprint, vector = function([guards.FINGERPRINT_TEXT, query])
    guards.to_stored([fingerprint, vector], header.space, ["--embed's fingerprint", "the query"])
    if header.fingerprint is not None:
        check_fingerprint(f"collection {collection!r}", header.space, header.fingerprint.tolist(), fingerprint)
    return vector


def _nothing(console: Console) -> None:
    console.print("No matching chunks.")


def _both(found: Callable[[Console], None], explained: Explanation) -> Callable[[Console], None]:
    def show(console: Console) -> None:
        found(console)
        facts: list[tuple[str, object]] = [
            ("mode", explained.mode),
            ("dense search", explained.shape + (", because the graph gave too few" if explained.fell_back else "")),
            ("rows", explained.rows),
            ("graph generation", explained.generation),
            ("full text", explained.text_config),
            ("fusion", explained.fusion),
            ("depth", _listed(explained.depth)),
            ("candidates", _listed(explained.candidates)),
            ("settings", _listed(explained.settings)),
            ("round trips", explained.round_trips),
        ]
        table(("execution", ""), [fact for fact in facts if fact[1] not in (None, "")])(console)
        timed = [(s.name, s.round_trips, f"{s.wait_ms:.2f}", f"{s.total_ms:.2f}") for s in explained.steps]
        table(("step", "round trips", "waited, ms", "finished at, ms"), timed)(console)
        if explained.plan is not None:
            console.print(plain(explained.plan), markup=False, soft_wrap=True)

    return show


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in values.items()
    )


def parse_filter(text: str) -> Filter:
    """A filter from JSON. Raises FilterError."""
    from pgrecall.filters.parse import parse

    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise FilterError(f'--filter is not JSON: {exc}; expected for example {{"lang": "de"}}') from exc
    return parse(value)


def _shown(hits: Sequence[Hit], *, full: bool) -> Callable[[Console], None]:
    def show(console: Console) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        grid = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", expand=True)
        grid.add_column("score", justify="right")
        fused = any(hit.sparse_rank and hit.dense_rank for hit in hits)
        for leg in ("vector", "words") if fused else ():
            grid.add_column(leg, justify="right")
        grid.add_column("chunk", overflow="fold", max_width=32)
        grid.add_column("text", ratio=1, overflow="fold")
        for hit in hits:
            name = hit.chunk_id if hit.doc_id is None else f"{hit.doc_id} #{'–' if hit.index is None else hit.index}"
            text = " ".join(plain(hit.text).split())
            cell = Text(text if full or len(text) <= SHOWN else text[: SHOWN - 1] + "…")
            if provenance := "  ".join(filter(None, (hit.source, hit.uri))):
                cell.append(f"\n{plain(provenance)}", style="dim")
            places = [str(rank or "–") for rank in (hit.dense_rank, hit.sparse_rank)] if fused else []
            grid.add_row(f"{hit.score:.3f}", *places, Text(plain(name)), cell)
        console.print(grid)

    return show
