"""`pgrecall chat`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from pgrecall.cli.session import Session, TenantOption, YesOption, command, plain, table
from pgrecall.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from pgrecall.messages import ChatInfo, Message
    from pgrecall.stores.tenant import Tenant

app = typer.Typer(name="chat", help="List, show, export, clear and drop a tenant's chats.", no_args_is_help=True)

ChatArgument: TypeAlias = Annotated[str, typer.Argument(metavar="SESSION_ID", show_default=False)]
StatusOption: TypeAlias = Annotated[str, typer.Option("--status", help="active, archived, or all.")]
SubjectOption: TypeAlias = Annotated[
    str | None, typer.Option("--subject", "-s", help="Only chats of this subject: a user's id.", show_default=False)
]
#: Characters of a message that are shown without --full.
SHOWN = 400


@command(app, "list")
def list_(
    session: Session,
    tenant: TenantOption,
    subject: SubjectOption = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="Chats at most.")] = 100,
) -> None:
    """List a tenant's chats, or a subject's, most recently written first."""
    with session.tenant(tenant) as opened:
        found = opened.list_chats(subject, limit=limit)
    rows = [(c.session_id, c.subject, c.messages, c.archived, c.updated_at, c.expires_at) for c in found]
    columns = ("chat", "subject", "messages", "archived", "last write", "expires")
    session.emit([_chat(c) for c in found], table(columns, rows) if rows else f"{tenant} has no matching chats.")


@command(app, "show")
def show(
    session: Session,
    session_id: ChatArgument,
    tenant: TenantOption,
    last: Annotated[
        int | None, typer.Option("--last", "-n", help="Only the newest N messages.", show_default=False)
    ] = None,
    status: StatusOption = "active",
    full: Annotated[bool, typer.Option("--full", help="Do not shorten long messages.")] = False,
) -> None:
    """Show a chat's messages in order; exit 1 if the chat does not exist."""
    with session.tenant(tenant) as opened:
        info = _existing(opened, session_id)
        found = opened.chat(session_id).list_messages(last, status=_status(status))
    rows = [(m.position, m.created_at, m.role, _shown(m, full=full)) for m in found]
    columns = ("position", "written", "role", "message")
    data = _chat(info) | {"content": [_message(m) for m in found]}
    session.emit(data, table(columns, rows) if rows else f"{session_id} has no matching messages.")


@command(app, "export")
def export(session: Session, session_id: ChatArgument, tenant: TenantOption, status: StatusOption = "all") -> None:
    """Write a chat's messages as JSON lines with all their fields; exit 1 if the chat does not exist."""
    wanted, after = _status(status), -1
    with session.tenant(tenant) as opened:
        _existing(opened, session_id)
        while page := opened.chat(session_id).list_messages(after=after, limit=500, status=wanted):
            for message in page:
                sys.stdout.write(json.dumps(_message(message), ensure_ascii=False, default=datetime.isoformat) + "\n")
            after = page[-1].position or 0


@command(app, "clear")
def clear(
    session: Session,
    session_id: ChatArgument,
    tenant: TenantOption,
    status: StatusOption = "all",
    yes: YesOption = False,
) -> None:
    """Delete a chat's messages; the chat itself keeps its subject and metadata."""
    wanted = _status(status)
    with session.tenant(tenant) as opened:
        _existing(opened, session_id)
        count = opened.chat(session_id).count(wanted)
        session.confirm(f"This deletes {count:,} messages of chat {session_id!r} of tenant {tenant!r}", yes=yes)
        gone = opened.chat(session_id).clear(wanted)
    session.emit({"tenant": tenant, "chat": session_id, "deleted": gone}, f"{session_id}: deleted {gone:,} messages")


@command(app, "drop")
def drop(session: Session, session_id: ChatArgument, tenant: TenantOption, yes: YesOption = False) -> None:
    """Delete a chat with all its messages."""
    with session.tenant(tenant) as opened:
        info = _existing(opened, session_id)
        held = f"{info.messages + info.archived:,} messages"
        session.confirm(f"This deletes chat {session_id!r} of tenant {tenant!r} with {held}", yes=yes)
        gone = opened.chat(session_id).drop()
    session.emit({"tenant": tenant, "chat": session_id, "deleted": gone}, f"{session_id}: deleted {gone:,} messages")


def _existing(tenant: Tenant, session_id: str) -> ChatInfo:
    info = tenant.chat(session_id).info()
    if info is None:
        raise NotFound(f"tenant {tenant.tenant_id!r} has no chat {session_id!r}")
    return info


def _status(value: str) -> Any:
    if value not in ("active", "archived", "all"):
        raise InvalidInput(f"--status is {value!r}; expected active, archived or all")
    return None if value == "all" else value


def _chat(info: ChatInfo) -> dict[str, Any]:
    lifetimes = {name: getattr(info, name) for name in ("ttl", "message_ttl")}
    return asdict(info) | {name: value and value.total_seconds() for name, value in lifetimes.items()}


def _message(message: Message) -> dict[str, Any]:
    """A message without its empty fields."""
    return {name: value for name, value in asdict(message).items() if value not in (None, {}, ())}


def _shown(message: Message, *, full: bool) -> str:
    parts = [message.text, *(f"[calls {call.name}]" for call in message.tool_calls)]
    parts += [f"[{block['type']}]" for block in message.blocks if block["type"] != "text"]
    text = plain(" ".join(part for part in parts if part))
    return text if full or len(text) <= SHOWN else text[: SHOWN - 1] + "…"
