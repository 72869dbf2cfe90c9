"""`pgrecall facts`: a tenant's facts and their audit trail."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from pgrecall.cli.embedding import EmbedOption, load_embed
from pgrecall.cli.search import ModeChoice, parse_filter
from pgrecall.cli.session import Session, TenantOption, YesOption, command, table
from pgrecall.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from pgrecall.facts import Fact, StoredFact
    from pgrecall.stores.memory import PostgresMemoryStore
    from pgrecall.stores.tenant import Tenant

app = typer.Typer(
    name="facts",
    help="List, search, put, forget, restore and erase a tenant's facts; show the audit trail.",
    no_args_is_help=True,
)

IdArgument: TypeAlias = Annotated[str | None, typer.Argument(metavar="ID", show_default=False)]
KeyOption: TypeAlias = Annotated[str | None, typer.Option("--key", "-k", help="The fact's key.", show_default=False)]
KindOption: TypeAlias = Annotated[str | None, typer.Option("--kind", help="The fact's kind.", show_default=False)]
SubjectOption: TypeAlias = Annotated[
    str | None, typer.Option("--subject", "-s", help="The fact's subject: a user's id.", show_default=False)
]
NamespaceOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--namespace",
        "-n",
        help="A label of the namespace; repeat it for each label, outermost first.",
        show_default=False,
    ),
]
ActorOption: TypeAlias = Annotated[
    str,
    typer.Option("--actor", envvar="PGRECALL_ACTOR", help="Who acts; recorded in the audit trail.", show_default=False),
]
ReasonOption: TypeAlias = Annotated[
    str | None, typer.Option("--reason", help="Why; recorded in the audit trail.", show_default=False)
]
FilterOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--filter", "-f", metavar="JSON", help="Filter on the value, as in `pgrecall search`."),
]
AsOfOption: TypeAlias = Annotated[
    datetime | None,
    typer.Option("--as-of", help="Facts as they were at this time (UTC), for example 2026-03-03T18:00:00."),
]
LimitOption: TypeAlias = Annotated[int, typer.Option("--limit", help="Rows at most.")]

#: The actor of commands that only read; it is never stored.
_READER = "command line"


def _memory(tenant: Tenant, actor: str = _READER) -> PostgresMemoryStore:
    return tenant.memory(actor=actor)


def _rows(found: list[StoredFact]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    columns = ("id", "subject", "kind", "key", "namespace", "value", "confidence", "since", "expires")
    return columns, [
        (
            f.id,
            f.subject,
            f.kind,
            f.key,
            "/".join(f.namespace) or None,
            _short(f.value),
            f.confidence,
            f.valid_from,
            f.expires_at,
        )
        for f in found
    ]


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:79] + "…"


def as_data(fact: StoredFact) -> dict[str, Any]:
    """A fact as --json prints it."""
    data = asdict(fact)
    del data["embedding"], data["embed_texts"]
    return data


def _meant(
    fact_id: str | None, key: str | None, kind: str | None, subject: str | None, namespace: list[str] | None
) -> dict[str, Any]:
    if (fact_id is None) == (key is None):
        raise InvalidInput("ID and --key were both given, or neither; pass one of them")
    if fact_id is not None and (kind or subject or namespace):
        raise InvalidInput("ID was given together with --kind, --subject or --namespace; pass ID alone")
    return {"fact_id": fact_id, "key": key, "kind": kind, "subject": subject, "namespace": namespace or None}


def _one(memory: PostgresMemoryStore, meant: dict[str, Any]) -> list[StoredFact]:
    found = memory.history(**meant)
    if not found:
        raise NotFound(
            f"tenant {memory.tenant_id!r} has no live fact of that id or key; it may be forgotten or expired: "
            "pgrecall facts events"
        )
    return found


@command(app, "list")
def list_(
    session: Session,
    tenant: TenantOption,
    words: Annotated[str | None, typer.Argument(metavar="WORDS", hidden=True)] = None,
    subject: SubjectOption = None,
    kind: KindOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    where: FilterOption = None,
    as_of: AsOfOption = None,
    limit: LimitOption = 50,
) -> None:
    """List a tenant's live facts, newest first."""
    if words is not None:
        typer.echo("facts list WORDS is deprecated; use: pgrecall facts search WORDS --mode sparse", err=True)
    with session.tenant(tenant) as opened:
        found = _memory(opened).search_facts(
            **_conditions(subject, kind, key, namespace, where, as_of), text=words, top_k=limit, refresh=False
        )
    _emit(session, found)


@command(app, "search")
def search(
    session: Session,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A question in plain words.", show_default=False)],
    tenant: TenantOption,
    mode: Annotated[
        ModeChoice | None,
        typer.Option(
            help="By meaning (dense), by words (sparse), or by both. Default: hybrid with --embed, else sparse.",
            show_default=False,
        ),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="Facts to return.")] = 10,
    subject: SubjectOption = None,
    kind: KindOption = None,
    key: Annotated[str | None, typer.Option("--key", help="Only facts with this key.", show_default=False)] = None,
    namespace: NamespaceOption = None,
    where: FilterOption = None,
    as_of: AsOfOption = None,
    embed: EmbedOption = None,
) -> None:
    """Search a tenant's live facts, best first.

    The query is embedded by --embed, which must be the model that made the facts' vectors. Words and
    [cyan]"quoted phrases"[/] are OR-ed; [cyan]-word[/] excludes. --as-of works with --mode sparse only.
    """
    chosen = mode or (ModeChoice.hybrid if embed else ModeChoice.sparse)
    function = None if chosen is ModeChoice.sparse else load_embed(embed)
    with session.tenant(tenant) as opened:
        found = opened.memory(actor=_READER, embed=function).search_facts(
            **_conditions(subject, kind, key, namespace, where, as_of),
            text=query,
            mode=chosen.value,
            top_k=top_k,
            refresh=False,
        )
    _emit(session, found)


def _conditions(
    subject: str | None,
    kind: str | None,
    key: str | None,
    namespace: list[str] | None,
    where: str | None,
    as_of: datetime | None,
) -> dict[str, Any]:
    return {
        "subject": subject,
        "kind": kind,
        "key": key,
        "namespace": namespace or (),
        "filters": None if where is None else parse_filter(where),
        "as_of": None if as_of is None else as_of.replace(tzinfo=as_of.tzinfo or UTC),
    }


def _emit(session: Session, found: list[StoredFact]) -> None:
    session.emit([as_data(f) for f in found], table(*_rows(found)) if found else "No matching facts.")


@command(app, "show")
def show(
    session: Session,
    tenant: TenantOption,
    fact_id: IdArgument = None,
    key: KeyOption = None,
    kind: KindOption = None,
    subject: SubjectOption = None,
    namespace: NamespaceOption = None,
) -> None:
    """Show a fact, by ID or --key, with all its versions, newest first; exit 1 if there is none."""
    with session.tenant(tenant) as opened:
        found = _one(_memory(opened), _meant(fact_id, key, kind, subject, namespace))
    session.emit([as_data(f) for f in found], table(*_rows(found)))
    if not session.as_json:
        newest = found[0]
        more = {"text": newest.text, "source": newest.source, "actor": newest.actor, "created": newest.created_at}
        for name, value in more.items():
            session.note(f"{name}: {value}")


@command(app, "put")
def put(
    session: Session,
    tenant: TenantOption,
    actor: ActorOption,
    kind: Annotated[str, typer.Option("--kind", help="The fact's kind.", show_default=False)],
    key: Annotated[str, typer.Option("--key", "-k", help="The fact's key.", show_default=False)],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="A JSON value; anything else is taken as a string.")],
    subject: SubjectOption = None,
    namespace: NamespaceOption = None,
    text: Annotated[
        str | None, typer.Option("--text", help="The text to search in. Default: VALUE, if it is a string.")
    ] = None,
    source: Annotated[str | None, typer.Option("--source", help="Where the fact comes from.")] = None,
    confidence: Annotated[float | None, typer.Option("--confidence", help="From 0 to 1.")] = None,
    ttl: Annotated[float | None, typer.Option("--ttl", help="Seconds until it expires.")] = None,
    reason: ReasonOption = None,
) -> None:
    """Store a fact. It supersedes the live fact of the same subject, kind, key and namespace."""
    from pgrecall.facts import Fact

    fact: Fact = Fact(
        subject,
        kind,
        key,
        _parsed(value),
        text,
        source,
        confidence,
        ttl,
        namespace=tuple(namespace or ()),
    )
    with session.tenant(tenant) as opened:
        stored = _memory(opened, actor).put_fact(fact, reason=reason)
    session.emit(as_data(stored), stored.id)


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


@command(app, "forget")
def forget(
    session: Session,
    tenant: TenantOption,
    actor: ActorOption,
    fact_id: IdArgument = None,
    key: KeyOption = None,
    kind: KindOption = None,
    subject: SubjectOption = None,
    namespace: NamespaceOption = None,
    reason: ReasonOption = None,
) -> None:
    """Forget a fact, by ID or --key, with its history; `facts restore` can undo it for 30 days."""
    with session.tenant(tenant) as opened:
        memory = _memory(opened, actor)
        newest = _one(memory, _meant(fact_id, key, kind, subject, namespace))[0]
        count = memory.delete(newest.id, reason=reason)
    session.emit(
        {"id": newest.id, "forgotten": count}, f"{newest.id}: " + ("forgotten" if count else "was already forgotten")
    )


@command(app, "restore")
def restore(
    session: Session,
    tenant: TenantOption,
    actor: ActorOption,
    fact_id: IdArgument = None,
    key: KeyOption = None,
    kind: KindOption = None,
    subject: SubjectOption = None,
    namespace: NamespaceOption = None,
    reason: ReasonOption = None,
) -> None:
    """Restore a forgotten fact, by ID (see `facts events --action forget`) or --key."""
    with session.tenant(tenant) as opened:
        stored = _memory(opened, actor).restore(**_meant(fact_id, key, kind, subject, namespace), reason=reason)
    session.emit(as_data(stored), f"{stored.id}: restored")


@command(app, "erase")
def erase(
    session: Session,
    tenant: TenantOption,
    actor: ActorOption,
    fact_id: IdArgument = None,
    key: KeyOption = None,
    kind: KindOption = None,
    subject: SubjectOption = None,
    namespace: NamespaceOption = None,
    reason: ReasonOption = None,
    yes: YesOption = False,
) -> None:
    """Permanently delete a fact, by ID or --key: every version, including forgotten ones, and their vectors."""
    meant = _meant(fact_id, key, kind, subject, namespace)
    session.confirm(f"This permanently deletes fact {fact_id or key!r} of tenant {tenant!r}", yes=yes)
    with session.tenant(tenant) as opened:
        count = _memory(opened, actor).erase(**meant, reason=reason)
    if not count:
        raise NotFound(f"tenant {tenant!r} has no fact of that id or key")
    session.emit({"versions": count}, f"erased {count} version{'s' * (count != 1)}")


@command(app, "events", renamed={"--by": "--actor"})
def events(
    session: Session,
    tenant: TenantOption,
    subject: SubjectOption = None,
    target: Annotated[str | None, typer.Option("--target", help="Only events of this fact version, by id.")] = None,
    action: Annotated[
        list[str] | None, typer.Option("--action", help="Only these actions: put, forget, …; repeat it for several.")
    ] = None,
    actor: Annotated[str | None, typer.Option("--actor", help="Only events of this actor.")] = None,
    limit: LimitOption = 100,
) -> None:
    """Show the audit trail, oldest first: what was done to facts, by whom and why, without their values."""
    with session.tenant(tenant) as opened:
        chosen: Any = action or None
        found = _memory(opened).list_events(subject=subject, target_id=target, action=chosen, actor=actor, limit=limit)
    columns = ("at", "action", "fact", "subject", "actor", "reason")
    rows = [(e.at, e.action, e.target_id, e.subject, e.actor, e.reason) for e in found]
    session.emit([asdict(e) for e in found], table(columns, rows) if rows else "No events.")
