"""`pgrecall spaces`."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import Annotated, Any

import typer

from ..errors import ConfigurationError, NotFound
from .session import Refused, Session, YesOption, command, table

app = typer.Typer(name="spaces", help="The registry of embedding spaces.", no_args_is_help=True)


class Distance(str, Enum):
    """How vectors of a space are compared."""

    cosine = "cosine"
    l2 = "l2"
    ip = "ip"


@command(app, "list")
def list_(session: Session) -> None:
    """All spaces; with a login for maintenance also how many collections use each."""
    from ..operations.registry import space_use

    with session.database() as database:
        found = database.spaces()
        try:
            use = space_use(database.maintenance_gate(), database.maintenance_scope())
            counts: list[int | None] = [use.get(number, 0) for number, _, _ in found]
        except ConfigurationError:
            counts = [None] * len(found)
    entries = [
        {"id": number} | asdict(space) | {"created_at": made, "collections": count}
        for (number, space, made), count in zip(found, counts, strict=True)
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
    from ..types import EmbedSpace

    space = EmbedSpace(provider, model, dim, distance.value)
    with session.database() as database:
        number = database.add_space(space)
    session.emit({"id": number} | asdict(space), f"{number}: {space}")


@command(app, "drop")
def drop(
    session: Session,
    number: Annotated[int, typer.Argument(metavar="ID", help="As `spaces list` says.", show_default=False)],
    yes: YesOption = False,
) -> None:
    """Take a space out of the registry. Needs the owner's login; refused while collections use it."""
    import sqlalchemy as sa

    from .. import wire  # noqa: F401  # psycopg's adapters, as every pool has them
    from ..operations import registry
    from ..statements import registry as sql
    from ..tenancy import Gate, Scope

    with session.owner() as owner:
        engine = sa.create_engine(owner.url, poolclass=sa.NullPool)
        gate = Gate(engine, is_async=False)
        vector_schema = registry.probe(gate).vector_schema
        use = registry.space_use(gate, Scope.of_maintenance(vector_schema)).get(number, 0)
        with gate.transaction(Scope("", None, "BEGIN"), "space drop") as tx:
            values: dict[str, Any] = {"space": number}
            rows = tx.rows(sql.SPACE_BY_ID, values)
            if not rows:
                raise NotFound(f"there is no space {number}; see: pgrecall spaces list")
            name = "{}/{} ({} dims, {})".format(*rows[0])
            if use:
                raise Refused(f"space {number}, {name}, is used by {use:,} collections; drop them first")
            session.confirm(f"This takes space {number}, {name}, out of the registry", yes=yes)
            tx.count(sql.DROP_SPACE, values)
    session.emit({"id": number, "dropped": True}, f"{number}: dropped {name}")
