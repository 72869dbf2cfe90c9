"""Blocks of a message's content: from LangChain's standard ones to the core's and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pgrecall.messages import Block

_MEDIA: Final = ("image", "audio", "video", "file")
_CALLS: Final = ("tool_call", "tool_call_chunk", "invalid_tool_call")
_SERVER_CALLS: Final = ("server_tool_call", "server_tool_call_chunk")
_CITATION: Final = {"cited_text": "text", "start_index": "start", "end_index": "end"}


def to_block(block: Mapping[str, Any]) -> Block:
    """Convert a block to the core's form; one without an equivalent is kept unchanged in a block of type "raw"."""
    kind = block.get("type")
    rest = {name: value for name, value in block.items() if name != "type"}
    made: dict[str, Any] | None = None
    if kind == "text" and isinstance(block.get("text"), str):
        made = {"type": "text", **rest}
        if found := block.get("annotations"):
            made["annotations"] = [_annotation(annotation) for annotation in found]
    elif kind == "refusal" and isinstance(block.get("refusal"), str):
        made = {"type": "text", "text": block["refusal"], "refusal": True}
    elif kind in _MEDIA and any(block.get(name) for name in ("url", "base64", "file_id")):
        made = {"type": kind, **rest}
    elif kind == "text-plain" and any(block.get(name) for name in ("url", "base64", "file_id", "text")):
        made = {"type": "file", **rest}
    elif kind == "reasoning":
        signature = (block.get("extras") or {}).get("signature")
        given = {"text": block.get("reasoning"), "signature": signature}
        found = {name: value for name, value in given.items() if value is not None}
        made = {"type": "reasoning", **found} if found else None
    elif kind in _CALLS and block.get("name"):
        made = {"type": "tool_call", **{name: block[name] for name in ("name", "id", "args") if name in block}}
    elif kind in _SERVER_CALLS and block.get("name"):
        named = {name: block[name] for name in ("name", "id", "args") if name in block}
        made = {"type": "tool_call", **named, "server": True}
    elif kind == "server_tool_result" and isinstance(block.get("output"), str):
        failed = block.get("status") == "error"
        made = {"type": "tool_result", "content": block["output"], "tool_call_id": block.get("tool_call_id")}
        made |= {"is_error": True} if failed else {}
    return made if made is not None else {"type": "raw", "framework": "langchain", "body": dict(block)}


def _annotation(annotation: Mapping[str, Any]) -> Block:
    if annotation.get("type") != "citation":
        return {"type": "raw", "framework": "langchain", "body": dict(annotation)}
    return {_CITATION.get(name, name): value for name, value in annotation.items()}


def from_block(block: Block) -> dict[str, Any]:
    """Convert a block of the core to LangChain's standard form."""
    kind = block.get("type")
    rest = {name: value for name, value in block.items() if name != "type"}
    match kind:
        case "text":
            made = {"type": "text", **rest}
            if "annotations" in block:
                made["annotations"] = [_from_annotation(annotation) for annotation in block["annotations"]]
            return made
        case "image" | "audio" | "video":
            return {"type": kind, **rest}
        case "file":
            return {"type": "text-plain" if "text" in block else "file", **rest}
        case "reasoning":
            made = {"type": "reasoning", "reasoning": block.get("text") or ""}
            return made | ({"extras": {"signature": block["signature"]}} if "signature" in block else {})
        case "tool_call":
            named = {"name": block["name"], "args": block.get("args", {}), "id": block.get("id")}
            return {"type": "server_tool_call" if block.get("server") else "tool_call", **named}
        case "tool_result":
            status = "error" if block.get("is_error") else "success"
            given = {"tool_call_id": block.get("tool_call_id") or "", "status": status, "output": block["content"]}
            return {"type": "server_tool_result", **given}
        case "citation":
            return {"type": "text", "text": block.get("text") or "", "annotations": [_from_annotation(block)]}
    if kind == "raw" and block.get("framework") == "langchain":
        return dict(block["body"])
    return {"type": "non_standard", "value": block.get("body", dict(block))}


def _from_annotation(annotation: Mapping[str, Any]) -> dict[str, Any]:
    if annotation.get("type") == "raw":
        return {"type": "non_standard_annotation", "value": annotation.get("body")}
    back = {ours: theirs for theirs, ours in _CITATION.items()}
    return {"type": "citation", **{back.get(name, name): value for name, value in annotation.items() if name != "type"}}
