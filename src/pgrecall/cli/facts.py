"""`pgrecall facts`, `pgrecall sweep`: what is remembered, and what was done to it."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from pgrecall.cli.session import Session, TenantOption, YesOption, command, table
from pgrecall.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from pgrecall.facts import Fact, StoredFact
    from pgrecall.stores.memory import PostgresMemoryStore
    from pgrecall.stores.tenant import Tenant

app = typer.Typer(
    name="facts", help="List, put, forget, restore and erase a tenant's facts; read the trail.", no_args_is_help=True
)

IdArgument: TypeAlias = Annotated[str | None, typer.Argument(metavar="[ID]", show_default=False)]
KeyOption: TypeAlias = Annotated[str | None, typer.Option("--key", "-k", help="The fact's key.", show_default=False)]
KindOption: TypeAlias = Annotated[str | None, typer.Option("--kind", help="The fact's kind.", show_default=False)]
SubjectOption: TypeAlias = Annotated[
    str | None, typer.Option("--subject", "-s", help="Whom it is about.", show_default=False)
]
NamespaceOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--namespace", "-n", help="A label of its namespace; once for each label.", show_default=False),
]
ActorOption: TypeAlias = Annotated[
    str, typer.Option("--actor", envvar="PGRECALL_ACTOR", help="Who acts, as the trail names it.", show_default=False)
]
ReasonOption: TypeAlias = Annotated[
    str | None, typer.Option("--reason", help="Why, for the trail.", show_default=False)
]
LimitOption: TypeAlias = Annotated[int, typer.Option("--limit", help="How many at most.")]

#: Who reads: nothing of it is written.
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
    """A fact as JSON prints it."""
    data = asdict(fact)
    del data["embedding"], data["embed_texts"]
    return data


def _meant(
    fact_id: str | None, key: str | None, kind: str | None, subject: str | None, namespace: list[str] | None
) -> dict[str, Any]:
    return {"fact_id": fact_id, "key": key, "kind": kind, "subject": subject, "namespace": namespace or None}


def _one(memory: PostgresMemoryStore, meant: dict[str, Any]) -> list[StoredFact]:
    found = memory.history(**meant)
    if not found:
        raise NotFound(f"tenant {memory.tenant_id!r} has no such fact, or it was forgotten or has expired")
    return found


@command(app, "list")
def list_(
    session: Session,
    tenant: TenantOption,
    text: Annotated[str | None, typer.Argument(metavar="[WORDS]", show_default=False)] = None,
    subject: SubjectOption = None,
    kind: KindOption = None,
    key: KeyOption = None,
    namespace: NamespaceOption = None,
    where: Annotated[
        str | None,
        typer.Option("--filter", help='On the value, as JSON: {"lang": "en"}, as for `pgrecall search`.'),
    ] = None,
    as_of: Annotated[
        datetime | None, typer.Option("--as-of", help="As of this time (UTC), for example 2026-03-03T18:00:00.")
    ] = None,
    limit: LimitOption = 50,
) -> None:
    """A tenant's live facts, the newest first; with WORDS those whose text has any of them, best first."""
    from datetime import UTC

    from pgrecall.cli.search import parse_filter

    with session.tenant(tenant) as opened:
        found = _memory(opened).search_facts(
            subject=subject,
            kind=kind,
            key=key,
            namespace=namespace or (),
            filters=None if where is None else parse_filter(where),
            text=text,
            as_of=None if as_of is None else as_of.replace(tzinfo=as_of.tzinfo or UTC),
            limit=limit,
            refresh=False,
        )
    session.emit([as_data(f) for f in found], table(*_rows(found)) if found else "No such facts.")


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
    """One fact by id, or by --key, with all its versions, the newest first; exit 1 where there is none."""
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
    value: Annotated[str, typer.Argument(metavar="VALUE", help="JSON; what is none is taken as a text.")],
    subject: SubjectOption = None,
    namespace: NamespaceOption = None,
    text: Annotated[str | None, typer.Option("--text", help="What is searched; else VALUE where it is a text.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="Where it is from.")] = None,
    confidence: Annotated[float | None, typer.Option("--confidence", help="0 to 1.")] = None,
    ttl: Annotated[float | None, typer.Option("--ttl", help="Seconds after which it expires.")] = None,
    reason: ReasonOption = None,
) -> None:
    """Remember a fact; the live one of the same subject, kind, key and namespace is superseded."""
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
    """Forget a fact by id or --key, with its history; `facts restore` takes that back within 30 days."""
    with session.tenant(tenant) as opened:
        memory = _memory(opened, actor)
        newest = _one(memory, _meant(fact_id, key, kind, subject, namespace))[0]
        count = memory.delete(newest.id, reason=reason)
    session.emit({"id": newest.id, "forgotten": count}, f"{newest.id}: forgotten" if count else "was forgotten already")


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
    """Bring a forgotten fact back, by id (`facts events --action forget` has it) or --key."""
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
    """Delete a fact for good, by id or --key: every version, forgotten ones too, and vectors."""
    meant = _meant(fact_id, key, kind, subject, namespace)
    if (fact_id is None) == (key is None):
        raise InvalidInput("say which fact: by ID, or by --key")
    session.confirm(f"This deletes fact {fact_id or key!r} of tenant {tenant!r} for good", yes=yes)
    with session.tenant(tenant) as opened:
        count = _memory(opened, actor).erase(**meant, reason=reason)
    if not count:
        raise NotFound(f"tenant {tenant!r} has no such fact")
    session.emit({"versions": count}, f"erased, {count} version{'s' * (count != 1)}")


@command(app, "events")
def events(
    session: Session,
    tenant: TenantOption,
    subject: SubjectOption = None,
    target: Annotated[str | None, typer.Option("--target", help="The id of a fact's version.")] = None,
    action: Annotated[list[str] | None, typer.Option("--action", help="put, forget, …; once for each.")] = None,
    actor: Annotated[str | None, typer.Option("--by", help="Who acted.")] = None,
    limit: LimitOption = 100,
) -> None:
    """The trail: what was done to facts, by whom and why, the oldest first; never the values."""
    with session.tenant(tenant) as opened:
        chosen: Any = action or None
        found = _memory(opened).events(subject=subject, target_id=target, action=chosen, actor=actor, limit=limit)
    columns = ("at", "action", "fact", "subject", "actor", "reason")
    rows = [(e.at, e.action, e.target_id, e.subject, e.actor, e.reason) for e in found]
    session.emit([asdict(e) for e in found], table(columns, rows) if rows else "No events.")


def register(root: typer.Typer, panel: str) -> None:
    """Add `sweep` to the command line."""
    command(root, "sweep", rich_help_panel=panel)(sweep)


def sweep(
    session: Session,
    batch: Annotated[int, typer.Option("--batch", help="Rows of a transaction.")] = 1_000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
) -> None:
    """Purge what expired, and what was forgotten longer ago than its grace time, of all tenants. Needs maintenance."""
    with session.database() as database, session.working("Sweeping…"):
        report = database.sweep(batch=batch, dry_run=dry_run)
    rows = [(name, count) for name, count in report.items()]
    verb = "would go" if dry_run else "purged"
    session.emit({"purged": dict(report), "tenants": report.tenants, "dry_run": dry_run}, table(("table", verb), rows))
