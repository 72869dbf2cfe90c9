"""`pgrecall spaces`."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pgrecall.cli.maintain import MemoryOption, WaitOption, WorkersOption, run_maintenance
from pgrecall.cli.session import RefusedError, Session, YesOption, command, table
from pgrecall.errors import ConfigurationError, InvalidInput, NotFound

if TYPE_CHECKING:
    from pgrecall.postgres.transactions import Gate, Scope

app = typer.Typer(name="spaces", help="The registry of embedding spaces.", no_args_is_help=True)


_NO_IVFFLAT = (
    "graphs are HNSW. Measured on 50,000 chunks of 200 tenants, both with a recall@10 of .99: IVFFlat is built in "
    "0.3 s and HNSW in 4.2, beside searches either way; but a search takes 2.3 ms and not 1.7, and 2.6 and not 1.6 "
    "after a fifth of the chunks changed (python -m tests.benchmarks ivfflat). Leave --method out"
)


class Distance(StrEnum):
    """How vectors of a space are compared."""

    cosine = "cosine"
    l2 = "l2"
    ip = "ip"


class Method(StrEnum):
    """Kinds of index that pgvector has."""

    hnsw = "hnsw"
    ivfflat = "ivfflat"


def _use(gate: Gate, scope: Scope) -> dict[int, int]:
    """How many collections use each space, over all tenants."""
    from pgrecall.statements.registry import SPACE_USE

    with gate.transaction(scope, "space use") as tx:
        return dict(tx.last(SPACE_USE, {}))


@command(app, "list")
def list_(session: Session) -> None:
    """All spaces; with a login for maintenance also how many collections use each."""
    with session.database() as database:
        found = database.spaces()
        try:
            gate = database._maintenance_gate()
            use = _use(gate, database._maintenance_scope(gate))
            counts: list[int | None] = [use.get(info.id, 0) for info in found]
        except ConfigurationError:
            counts = [None] * len(found)
    entries = [
        {"id": info.id} | asdict(info.space) | {"created_at": info.created_at, "collections": count}
        for info, count in zip(found, counts, strict=True)
    ]
    columns = "id", "provider", "model", "dim", "distance", "created", "collections"
    show = table(columns, [tuple(entry.values()) for entry in entries]) if entries else "No spaces yet."
    session.emit(entries, show)


@command(app, "add")
def add(
    session: Session,
    provider: Annotated[str, typer.Argument(help="For example openai.", show_default=False)],
    model: Annotated[str, typer.Argument(help="For example text-embedding-3-small.", show_default=False)],
    dim: Annotated[int, typer.Argument(help="The vectors' length, for example 1536.", show_default=False)],
    distance: Annotated[Distance, typer.Option(help="How vectors are compared.")] = Distance.cosine,
) -> None:
    """Register a space ahead of its first use; one that is there is left as it is."""
    from pgrecall.types import EmbedSpace

    space = EmbedSpace(provider, model, dim, distance.value)
    with session.database() as database:
        number = database.add_space(space)
    session.emit({"id": number} | asdict(space), f"{number}: {space}")


@command(app, "index")
def index(
    session: Session,
    number: Annotated[int, typer.Argument(metavar="ID", help="As `spaces list` says.", show_default=False)],
    method: Annotated[Method, typer.Option(help="The kind of graph.")] = Method.hnsw,
    m: Annotated[
        int | None, typer.Option(help="Neighbours of a row: 16, or what the graph has.", show_default=False)
    ] = None,
    ef_construction: Annotated[
        int | None, typer.Option(help="Candidates for them: 128, or what the graph has.", show_default=False)
    ] = None,
    wait: WaitOption = 0.0,
    memory: MemoryOption = None,
    workers: WorkersOption = None,
) -> None:
    """Build a space's graph (HNSW) anew, beside the one that serves. Needs the owner's login, and maintenance's.

    A later `maintain` keeps --m and --ef-construction. More of them finds more, and takes longer.
    """
    from pgrecall.types import GraphBuild

    if method is Method.ivfflat:
        raise InvalidInput(_NO_IVFFLAT)
    build = GraphBuild(memory, workers, m, ef_construction)
    run_maintenance(session, number, rebuild=True, wait=wait, build=build)


@command(app, "drop")
def drop(
    session: Session,
    number: Annotated[int, typer.Argument(metavar="ID", help="As `spaces list` says.", show_default=False)],
    yes: YesOption = False,
) -> None:
    """Take a space out of the registry. Needs the owner's login; refused while collections use it."""
    from pgrecall.maintenance import Maintainer
    from pgrecall.operations.registry import probe
    from pgrecall.postgres.engines import Engines
    from pgrecall.postgres.transactions import Scope
    from pgrecall.statements.registry import DROP_SPACE, SPACE_BY_ID
    from pgrecall.types import EmbedSpace

    with session.owner() as owner, closing(Engines(owner.url)) as engines:
        gate, as_owner = engines.sync_gate(), Scope(None, ("BEGIN",))
        ground = probe(gate, maintenance=True).ground
        use = _use(gate, Scope.of_maintenance(ground)).get(number, 0)
        with gate.transaction(as_owner, "space") as tx:
            rows = tx.last(SPACE_BY_ID, {"space": number})
        if not rows:
            raise NotFound(f"there is no space {number}; see: pgrecall spaces list")
        space = EmbedSpace(*rows[0])
        if use:
            raise RefusedError(f"space {number}, {space}, is used by {use:,} collections; drop them first")
        session.confirm(f"This takes space {number}, {space}, out of the registry", yes=yes)
        Maintainer(gate, ground, owner.url).forget(number)
        with gate.transaction(as_owner, "space drop") as tx:
            tx.count(DROP_SPACE, {"space": number})  # a foreign key stands behind: none came into use meanwhile
    session.emit({"id": number, "dropped": True}, f"{number}: dropped {space}")
