"""A chat's messages in a form that belongs to no framework: roles, content blocks, tool calls.

A framework's own message travels in `payload`, named by `framework`, so that it comes back exactly in its own
framework; any other reads the neutral form. What the neutral form has no word for is a block of type "raw".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

from pgrecall.errors import InvalidInput
from pgrecall.types import Metadata

Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool", "function", "other"]
Status: TypeAlias = Literal["active", "archived"]
#: A JSON object with a `type` of `BLOCKS`.
Block: TypeAlias = Mapping[str, Any]

ROLES: tuple[Role, ...] = ("system", "developer", "user", "assistant", "tool", "function", "other")
STATUSES: tuple[Status, ...] = ("active", "archived")
#: Type of a block -> the keys of which it must have one at least; it may have more.
BLOCKS: dict[str, tuple[str, ...]] = {
    "text": ("text",),
    "image": ("url", "base64", "file_id"),
    "audio": ("url", "base64", "file_id"),
    "video": ("url", "base64", "file_id"),
    "file": ("url", "base64", "file_id", "text"),
    "reasoning": ("text", "signature", "data"),
    "tool_call": ("name",),
    "tool_result": ("content",),
    "citation": ("text", "url", "title", "source"),
    "raw": ("body",),
}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the assistant wants called.

    `args` is an object; text where a framework kept what could not be parsed, which `error` then explains.
    """

    name: str
    args: Mapping[str, Any] | str = field(default_factory=dict)
    id: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat.

    `role` is one of "system", "developer", "user", "assistant", "tool", "function", "other". `content` is a text or
    blocks: objects with a `type`, see docs/chat.md. `tool_call_id` says which call a tool's message answers.
    `payload` is the framework's own form as JSON, kept as it is, and `framework` says whose. `id` is unique in its
    chat; the store makes one where there is none. The store sets `position` (unique in the chat, growing), `status`,
    `created_at` and `expires_at`, whatever is given.
    """

    role: Role
    content: str | Sequence[Block] = ""
    id: str | None = None
    name: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str | None = None
    metadata: Metadata = field(default_factory=dict)
    payload: Metadata | None = None
    framework: str | None = None
    position: int | None = None
    status: Status = "active"
    created_at: datetime | None = None
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        # Tuples, so that what was put and what is read compare equal.
        if not isinstance(self.content, str):
            object.__setattr__(self, "content", _tuple(self.content, "content", "a text or a list of blocks"))
        object.__setattr__(self, "tool_calls", _tuple(self.tool_calls, "tool_calls", "a list of pgrecall.ToolCall"))

    def __hash__(self) -> int:
        return hash((self.role, self.id, self.position, self.text))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The content as blocks: a text is one of type "text"; an empty one is none."""
        if isinstance(self.content, str):
            return ({"type": "text", "text": self.content},) if self.content else ()
        return tuple(self.content)

    @property
    def text(self) -> str:
        """The texts of the content, one below the other: what is searched."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(t for block in _all_blocks(self.content) if (t := _text_of(block)))

    @property
    def unmapped(self) -> tuple[Block, ...]:
        """The blocks that the neutral form has no word for, each with its `framework` and `body`."""
        return tuple(block for block in _all_blocks(self.blocks) if block.get("type") == "raw")


def _tuple(values: object, what: str, expected: str) -> tuple[Any, ...]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence):
        raise InvalidInput(f"{what} is {type(values).__name__} {values!r:.60}; expected {expected}")
    return tuple(values)


def _all_blocks(blocks: Sequence[Block]) -> Iterator[Block]:
    """Blocks, and those that a tool's result holds."""
    for block in blocks:
        if isinstance(block, Mapping):
            yield block
            inner = block.get("content")
            if block.get("type") == "tool_result" and isinstance(inner, list | tuple):
                yield from _all_blocks(inner)


def _text_of(block: Block) -> str | None:
    key = {"text": "text", "file": "text", "citation": "text", "tool_result": "content"}.get(str(block.get("type")))
    found = block.get(key) if key else None
    return found if isinstance(found, str) else None


@dataclass(frozen=True, slots=True)
class ChatInfo:
    """A chat and what it holds. `ttl` and `message_ttl` are the lifetimes that a write gives to it and to a message."""

    session_id: str
    subject: str | None
    messages: int
    archived: int
    metadata: dict[str, Any]
    text_config: str
    ttl: timedelta | None
    message_ttl: timedelta | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class ChatHit:
    """A message that a search found, and where. `score` is Postgres' ts_rank_cd, higher is better."""

    session_id: str
    message: Message
    score: float
