"""Chat messages in a framework-neutral form: roles, content blocks, tool calls.

A framework's own serialization is stored in `payload`, and its name in `framework`, so that the same framework reads
back exactly what it wrote. Other frameworks read the neutral form. Content that the neutral form cannot express is a
block of type "raw".
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
#: A JSON object whose `type` is a key of `BLOCKS`.
Block: TypeAlias = Mapping[str, Any]

ROLES: tuple[Role, ...] = ("system", "developer", "user", "assistant", "tool", "function", "other")
STATUSES: tuple[Status, ...] = ("active", "archived")
#: Type of a block -> keys, at least one of which it must have. It may have others.
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
    """A tool call that the assistant requests.

    `args` is a JSON object, or a string if the framework could not parse it; `error` then says why.
    """

    name: str
    args: Mapping[str, Any] | str = field(default_factory=dict)
    id: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat.

    `role` is one of "system", "developer", "user", "assistant", "tool", "function", "other". `content` is a string or
    a list of blocks: objects with a `type`, see docs/chat.md. `tool_call_id` is the id of the tool call that a tool's
    message answers. `payload` is a framework's own form of the message as JSON, stored unchanged, and `framework` is
    that framework's name. `id` is unique within the chat; the store generates it if it is None. The store sets
    `position` (unique and increasing within the chat), `status`, `created_at` and `expires_at`; values given for them
    are ignored.
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
        # Tuples, so that a message compares equal to the same message read back.
        if not isinstance(self.content, str):
            object.__setattr__(self, "content", _tuple(self.content, "content", "a string or a list of blocks"))
        object.__setattr__(self, "tool_calls", _tuple(self.tool_calls, "tool_calls", "a list of pgrecall.ToolCall"))

    def __hash__(self) -> int:
        return hash((self.role, self.id, self.position, self.text))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The content as blocks. A string is one block of type "text"; an empty string is no block."""
        if isinstance(self.content, str):
            return ({"type": "text", "text": self.content},) if self.content else ()
        return tuple(self.content)

    @property
    def text(self) -> str:
        """The text of all blocks, joined by newlines. This is what full-text search looks at."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(t for block in _all_blocks(self.content) if (t := _text_of(block)))

    @property
    def unmapped(self) -> tuple[Block, ...]:
        """The blocks of type "raw", which the neutral form cannot express; each has a `framework` and a `body`."""
        return tuple(block for block in _all_blocks(self.blocks) if block.get("type") == "raw")


def _tuple(values: object, what: str, expected: str) -> tuple[Any, ...]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence):
        raise InvalidInput(f"{what} is {type(values).__name__} {values!r:.60}; expected {expected}")
    return tuple(values)


def _all_blocks(blocks: Sequence[Block]) -> Iterator[Block]:
    """All blocks, including those nested in tool results."""
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
    """A chat's properties and message counts.

    Each write extends the chat's lifetime to `ttl`, and gives the messages that it writes a lifetime of `message_ttl`.
    """

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
    """A message found by a search, and its chat. `score` is Postgres' ts_rank_cd; higher is better."""

    session_id: str
    message: Message
    score: float
