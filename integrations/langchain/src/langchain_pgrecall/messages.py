"""Messages: from LangChain's to the core's and back, by the tables of docs/chat.md.

The whole message is stored in `payload` and restored by the constructors of LangChain's message classes; nothing stored
is ever imported or called. The neutral form is what other frameworks read, and what their messages are restored from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    BaseMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    message_chunk_to_message,
    message_to_dict,
    messages_from_dict,
)

from langchain_pgrecall.blocks import from_block, to_block
from pgrecall import InvalidInput, Message, ToolCall
from pgrecall.messages import ROLES, Block, Role

FRAMEWORK: Final = "langchain"
_DEVELOPER: Final = {"__openai_role__": "developer"}
_ROLES: Final[dict[str, Role]] = {"human": "user", "ai": "assistant", "function": "function", "tool": "tool"}


def to_message(message: BaseMessage) -> Message:
    """Convert a LangChain message to the core's form. Raises InvalidInput if it is not a message."""
    if not isinstance(message, BaseMessage):
        raise InvalidInput(f"found {type(message).__name__} {message!r:.60} among the messages; expected BaseMessage")
    if isinstance(message, BaseMessageChunk):
        message = message_chunk_to_message(message)
    role, metadata = _role(message)
    return Message(
        role,
        _content(message),
        id=message.id or None,
        name=message.name,
        tool_calls=_tool_calls(message),
        tool_call_id=message.tool_call_id if isinstance(message, ToolMessage) else None,
        metadata=metadata,
        payload=message_to_dict(message),
        framework=FRAMEWORK,
    )


def from_dict(stored: Mapping[str, Any]) -> Message:
    """Convert a message in the form of `message_to_dict`, as other histories store it. Raises InvalidInput."""
    try:
        [found] = messages_from_dict([dict(stored)])
    except (KeyError, TypeError, ValueError) as exc:
        raise InvalidInput(f"{stored!r:.80} is not a LangChain message: {exc}") from exc
    return to_message(found)


def _role(message: BaseMessage) -> tuple[Role, dict[str, Any]]:
    if isinstance(message, SystemMessage):
        developer = message.additional_kwargs.get("__openai_role__") == "developer"
        return ("developer" if developer else "system"), {}
    if isinstance(message, ToolMessage):
        return "tool", {
            name: value
            for name, value in (("status", message.status), ("artifact", message.artifact))
            if value not in (None, "success")
        }
    if isinstance(message, ChatMessage):
        known: Role = next((role for role in ROLES if role == message.role), "other")
        return known, {} if known != "other" else {"role": message.role}
    return _ROLES.get(message.type, "other"), {}


def _content(message: BaseMessage) -> str | list[Block]:
    if isinstance(message.content, str):
        return message.content
    return [to_block(dict(block)) for block in message.content_blocks]


def _tool_calls(message: BaseMessage) -> list[ToolCall]:
    if not isinstance(message, AIMessage):
        return []
    calls = [ToolCall(found["name"], found["args"], found["id"]) for found in message.tool_calls]
    bad = [
        ToolCall(found["name"] or "", found["args"] or "", found["id"], found["error"] or "it could not be parsed")
        for found in message.invalid_tool_calls
    ]
    return calls + bad


def from_message(message: Message) -> BaseMessage:
    """Restore a message: LangChain's own exactly as it was, another framework's from the neutral form."""
    if message.framework == FRAMEWORK and message.payload is not None:
        [found] = messages_from_dict([dict(message.payload)])
        return found
    content: Any = message.content if isinstance(message.content, str) else [from_block(b) for b in message.blocks]
    extra = dict(message.metadata)
    common: dict[str, Any] = {"content": content, "id": message.id, "name": message.name}
    match message.role:
        case "user":
            return HumanMessage(**common, additional_kwargs=extra)
        case "assistant":
            return AIMessage(**common, additional_kwargs=extra, **_calls(message))
        case "system":
            return SystemMessage(**common, additional_kwargs=extra)
        case "developer":
            return SystemMessage(**common, additional_kwargs=extra | _DEVELOPER)
        case "tool":
            kept = {name: extra.pop(name) for name in ("status", "artifact") if name in extra}
            answers = message.tool_call_id or ""
            return ToolMessage(**common, tool_call_id=answers, additional_kwargs=extra, **kept)
        case "function":
            return FunctionMessage(**{**common, "name": message.name or ""}, additional_kwargs=extra)
    role = str(extra.pop("role", message.role))
    return ChatMessage(**common, role=role, additional_kwargs=extra)


def _calls(message: Message) -> dict[str, Any]:
    good, bad = [], []
    for made in message.tool_calls:
        if isinstance(made.args, Mapping):
            good.append({"name": made.name, "args": dict(made.args), "id": made.id, "type": "tool_call"})
        else:
            shared = {"name": made.name, "args": made.args, "id": made.id, "error": made.error}
            bad.append({**shared, "type": "invalid_tool_call"})
    return {"tool_calls": good, "invalid_tool_calls": bad}
