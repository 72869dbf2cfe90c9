"""Validates messages and converts them to column arrays, and rows to messages. Does no I/O."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pgrecall.arguments import MAX_ID_BYTES, MAX_NAME_BYTES, check_text, storable_text
from pgrecall.errors import InvalidInput
from pgrecall.jsonable import dumps, json_object
from pgrecall.messages import BLOCKS, ROLES, STATUSES, Block, Message, ToolCall
from pgrecall.postgres import wire

#: Messages and characters per statement. One call may send several statements in the same transaction.
BATCH = 1_000
BATCH_CHARACTERS = 16_000_000


@dataclass(frozen=True, slots=True)
class Packed:
    """One batch: the ids in order, and the columns for `APPEND`."""

    ids: list[str]
    values: dict[str, Any]


def one_or_many(messages: Message | Iterable[Message]) -> list[Message]:
    """The messages of a call as a list, all with ids. Raises InvalidInput if one is not a valid message.

    If an id occurs twice, the later message takes the earlier one's place.
    """
    if isinstance(messages, Message):
        messages = [messages]
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Iterable):
        raise InvalidInput(f"{type(messages).__name__} was given; expected a pgrecall.Message or an iterable of them")
    distinct: dict[str, Message] = {}
    for message in messages:
        check(message)
        distinct[message.id or uuid.uuid4().hex] = message
    return [message if message.id else replace(message, id=i) for i, message in distinct.items()]


def check(message: object) -> None:
    """Validate a message. Raises InvalidInput."""
    if not isinstance(message, Message):
        raise InvalidInput(f"a message is {type(message).__name__}; expected pgrecall.Message")
    if message.role not in ROLES:
        raise InvalidInput(f"the role is {message.role!r:.60}; expected one of {', '.join(ROLES)}")
    if message.status not in STATUSES:
        raise InvalidInput(f"the status is {message.status!r:.60}; expected 'active' or 'archived'")
    if message.id is not None:
        check_text(message.id, "a message's id", MAX_ID_BYTES)
    if not isinstance(message.content, str):
        _check_blocks(message.content, f"the content of {_named(message)}")
    for call in message.tool_calls:
        if not isinstance(call, ToolCall):
            raise InvalidInput(f"a tool call of {_named(message)} is {type(call).__name__}; expected pgrecall.ToolCall")


def _named(message: Message) -> str:
    return f"message {message.id!r:.80}" if message.id else f"a message of role {message.role!r}"


def _check_blocks(blocks: Sequence[Block], where: str) -> None:
    for at, block in enumerate(blocks):
        kind = block.get("type") if isinstance(block, Mapping) else None
        if not isinstance(kind, str) or kind not in BLOCKS:
            raise InvalidInput(
                f"{where}[{at}] is {block!r:.60}; expected an object whose type is one of {', '.join(BLOCKS)} "
                "(for anything else, use {'type': 'raw', 'framework': …, 'body': …})"
            )
        if not any(key in block for key in BLOCKS[kind]):
            raise InvalidInput(
                f"{where}[{at}] of type {kind!r} has none of its keys; expected at least one of "
                f"{', '.join(BLOCKS[kind])}"
            )
        if kind == "text" and not isinstance(block["text"], str):
            raise InvalidInput(f"{where}[{at}].text is {type(block['text']).__name__}; expected a string")
        if kind == "tool_result" and isinstance(block["content"], list | tuple):
            _check_blocks(block["content"], f"{where}[{at}].content")


def batches(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Split messages, in order, into batches of one statement each."""
    batch: list[Message] = []
    size = 0
    for message in messages:
        length = len(message.content) if isinstance(message.content, str) else len(str(message.content))
        length += 0 if message.payload is None else len(str(message.payload))
        if batch and (len(batch) >= BATCH or size + length > BATCH_CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += length
    if batch:
        yield batch


def pack(messages: Sequence[Message]) -> Packed:
    """Messages, all with ids, as column arrays. Raises InvalidInput; the message names the chat message."""
    rows = [_row(message) for message in messages]
    ids = [str(message.id) for message in messages]
    columns = list(zip(*rows, strict=True)) if rows else [()] * 10
    text, jsonb = wire.text_array, wire.jsonb_array
    return Packed(
        ids,
        {
            "count": len(ids),
            "ids": text(ids),
            "roles": text(columns[0]),
            "names": text(columns[1]),
            "texts": text(columns[2]),
            "contents": jsonb(columns[3]),
            "tool_calls": jsonb(columns[4]),
            "tool_call_ids": text(columns[5]),
            "metadata": jsonb(columns[6]),
            "payloads": jsonb(columns[7]),
            "frameworks": text(columns[8]),
            "statuses": text(columns[9]),
        },
    )


def _row(message: Message) -> tuple[str | None, ...]:
    name = _named(message)
    blocks = None if isinstance(message.content, str) else dumps(list(message.content), f"the content of {name}")
    return (
        message.role,
        _optional(message.name, f"the name of {name}"),
        storable_text(message.text, f"the content of {name}"),
        blocks,
        dumps([_call(c, name) for c in message.tool_calls], f"the tool calls of {name}")
        if message.tool_calls
        else None,
        _optional(message.tool_call_id, f"the tool_call_id of {name}"),
        json_object(message.metadata, f"the metadata of {name}"),
        None if message.payload is None else json_object(message.payload, f"the payload of {name}"),
        None
        if message.framework is None
        else check_text(message.framework, f"the framework of {name}", MAX_NAME_BYTES),
        message.status,
    )


def _optional(text: object, what: str) -> str | None:
    return None if text is None else storable_text(text, what)


def _call(call: ToolCall, where: str) -> dict[str, Any]:
    if not isinstance(call.name, str) or not (call.id is None or isinstance(call.id, str)):
        raise InvalidInput(
            f"a tool call of {where} has name {call.name!r:.40} and id {call.id!r:.40}; expected strings"
        )
    if not isinstance(call.args, str | Mapping):
        raise InvalidInput(
            f"the args of tool call {call.name!r:.40} are {type(call.args).__name__}; expected an object"
        )
    args = call.args if isinstance(call.args, str) else dict(call.args)
    known = {"id": call.id, "name": call.name, "args": args}
    return known if call.error is None else known | {"error": call.error}


def message(row: tuple[Any, ...]) -> Message:
    """Convert a row to a message."""
    (
        position, message_id, role, name, text, content, tool_calls, tool_call_id, metadata, payload, framework, status,
        created_at, expires_at,
    ) = row  # fmt: skip
    return Message(
        role,
        text if content is None else tuple(content),
        id=message_id,
        name=name,
        tool_calls=tuple(ToolCall(c["name"], c["args"], c["id"], c.get("error")) for c in tool_calls or ()),
        tool_call_id=tool_call_id,
        metadata=metadata,
        payload=payload,
        framework=framework,
        position=position,
        status=status,
        created_at=created_at,
        expires_at=expires_at,
    )
