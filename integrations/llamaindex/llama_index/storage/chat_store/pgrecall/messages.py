"""Chat messages: from LlamaIndex's to the core's and back, by the tables of docs/chat.md.

The whole message is stored in `payload` and restored from there. The neutral form is what other frameworks read, and
what their messages are restored from here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock, ToolCallBlock
from llama_index.storage.chat_store.pgrecall.blocks import FRAMEWORK, from_block, settled, to_block

from pgrecall import InvalidInput, Message, ToolCall
from pgrecall.messages import ROLES, Role

_ASSISTANT: Final = (MessageRole.CHATBOT, MessageRole.MODEL)
_OWN: Final = ("tool_calls", "tool_call_id")


def to_message(message: ChatMessage) -> Message:
    """Convert a LlamaIndex message to the core's form. Raises InvalidInput for values that JSON can't hold."""
    if not isinstance(message, ChatMessage):
        raise InvalidInput(f"found {type(message).__name__} {message!r:.60}; expected a LlamaIndex ChatMessage")
    blocks = [settled(block) for block in message.blocks]
    # Images of additional_kwargs are among the blocks already; left there, they would be added again.
    extra = {name: value for name, value in message.additional_kwargs.items() if name != "images"}
    try:
        payload = message.model_copy(update={"blocks": blocks, "additional_kwargs": extra}).model_dump(mode="json")
    except (ValueError, TypeError) as exc:
        raise InvalidInput(f"the message {message.content!r:.60} can't be written as JSON: {exc}") from exc
    kwargs: dict[str, Any] = payload["additional_kwargs"]
    calls = _calls_in_blocks(message) + _calls_in(kwargs.get("tool_calls"))
    one_text = len(blocks) == 1 and isinstance(blocks[0], TextBlock)
    answers = kwargs.get("tool_call_id")
    return Message(
        "assistant" if message.role in _ASSISTANT else _role(message.role.value),
        blocks[0].text if one_text else [to_block(block) for block in blocks],  # type: ignore[attr-defined]
        tool_calls=list({(call.id or at): call for at, call in enumerate(calls)}.values()),
        tool_call_id=answers if isinstance(answers, str) else None,
        metadata={name: value for name, value in kwargs.items() if name not in _OWN},
        payload=payload,
        framework=FRAMEWORK,
    )


def from_dict(stored: Mapping[str, Any] | str) -> Message:
    """Convert a message as LlamaIndex's other chat stores keep it, JSON or an object. Raises InvalidInput."""
    try:
        found = json.loads(stored) if isinstance(stored, str) else stored
        return to_message(ChatMessage.model_validate(found))
    except (ValueError, TypeError) as exc:
        raise InvalidInput(f"{stored!r:.80} is not a LlamaIndex chat message: {exc}") from exc


def _role(role: str) -> Role:
    return next((known for known in ROLES if known == role), "other")


def _calls_in_blocks(message: ChatMessage) -> list[ToolCall]:
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    return [_call(block.tool_name, block.tool_kwargs, block.tool_call_id) for block in blocks]


def _calls_in(found: object) -> list[ToolCall]:
    """Return the tool calls that providers' clients write into `additional_kwargs`; other entries are skipped."""
    made = []
    for entry in found if isinstance(found, list) else []:
        function = entry.get("function") if isinstance(entry, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            made.append(_call(function["name"], function.get("arguments") or {}, entry.get("id")))
    return made


def _call(name: str, arguments: object, call_id: str | None) -> ToolCall:
    if isinstance(arguments, str):
        try:
            parsed = json.loads(arguments)
        except ValueError as exc:
            return ToolCall(name, arguments, call_id, str(exc))
        if not isinstance(parsed, dict):
            return ToolCall(name, arguments, call_id, "the arguments are not a JSON object")
        return ToolCall(name, parsed, call_id)
    return ToolCall(name, dict(arguments) if isinstance(arguments, Mapping) else {}, call_id)


def from_message(message: Message) -> ChatMessage:
    """Restore a message: LlamaIndex's own exactly as it was, another framework's from the neutral form."""
    if message.framework == FRAMEWORK and message.payload is not None:
        try:
            return ChatMessage.model_validate(dict(message.payload))
        except ValueError:  # a file that a block names is gone; the neutral form has its content
            pass
    blocks, unmapped = [], []
    for block in message.blocks:
        made = from_block(block)
        if made is None:
            unmapped.append(dict(block))
        else:
            blocks.append(made)
    standing = [block for block in blocks if isinstance(block, ToolCallBlock)]
    for call in message.tool_calls:
        args = call.args if isinstance(call.args, str) else dict(call.args)
        made = ToolCallBlock(tool_name=call.name, tool_call_id=call.id, tool_kwargs=args)
        if made not in standing and (call.id is None or call.id not in [block.tool_call_id for block in standing]):
            blocks.append(made)
    kwargs = dict(message.metadata)
    answered = {"tool_call_id": message.tool_call_id, "name": message.name}
    kwargs |= {name: value for name, value in answered.items() if value is not None}
    if unmapped:
        kwargs["unmapped"] = unmapped
    if message.role == "other":
        kwargs.setdefault("role", "other")
    role = MessageRole.USER if message.role == "other" else MessageRole(message.role)
    return ChatMessage(role=role, blocks=blocks, additional_kwargs=kwargs)
