"""Blocks of a message's content: from LlamaIndex's to the core's and back, by the tables of docs/chat.md."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Mapping
from io import IOBase
from pathlib import Path
from typing import Any, Final

from llama_index.core.base.llms.types import (
    AudioBlock,
    BaseContentBlock,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)

from pgrecall.messages import Block

FRAMEWORK: Final = "llama_index"
#: A block's class -> the neutral type, the field with its bytes, and the field with their MIME type.
_MEDIA: Final[dict[type[BaseContentBlock], tuple[str, str, str]]] = {
    ImageBlock: ("image", "image", "image_mimetype"),
    AudioBlock: ("audio", "audio", "format"),
    VideoBlock: ("video", "video", "video_mimetype"),
    DocumentBlock: ("file", "data", "document_mimetype"),
}
_CLASSES: Final = {kind: made for made, (kind, _, _) in _MEDIA.items()}


def settled(block: BaseContentBlock) -> BaseContentBlock:
    """Return the block with its bytes in memory. A stream is read, and rewound for the caller."""
    if type(block) not in _MEDIA:
        return block
    field = _MEDIA[type(block)][1]
    stream = getattr(block, field)
    if not isinstance(stream, IOBase):
        return block
    stream.seek(0)
    read = stream.read()
    stream.seek(0)
    return type(block)(**{**block.model_dump(exclude={field}), field: read})


def to_block(block: BaseContentBlock) -> Block:
    """Convert a block to the core's form; one without an equivalent is kept unchanged in a block of type "raw"."""
    made: dict[str, Any] | None = None
    match block:
        case TextBlock():
            made = {"type": "text", "text": block.text}
        case ThinkingBlock():
            known = {"text": block.content, "signature": block.additional_information.get("signature")}
            found = {name: value for name, value in known.items() if value is not None}
            tokens = {} if block.num_tokens is None else {"tokens": block.num_tokens}
            made = {"type": "reasoning", **found, **tokens} if found else None
        case ToolCallBlock():
            made = {"type": "tool_call", "name": block.tool_name, "id": block.tool_call_id, "args": block.tool_kwargs}
        case CitationBlock():
            text = block.cited_content.text if isinstance(block.cited_content, TextBlock) else None
            made = {"type": "citation", "title": block.title, "source": block.source}
            made |= {} if text is None else {"text": text}
        case CitableBlock():
            texts = [inner.text for inner in block.content if isinstance(inner, TextBlock)]
            made = {"type": "file", "text": "\n".join(texts), "name": block.title} if texts else None
    if type(block) in _MEDIA:
        made = _media(block)
    return made if made is not None else raw(block)


def raw(block: BaseContentBlock) -> Block:
    """Wrap a block as LlamaIndex serializes it."""
    return {"type": "raw", "framework": FRAMEWORK, "body": block.model_dump(mode="json")}


def _media(block: Any) -> dict[str, Any] | None:
    kind, field, typed = _MEDIA[type(block)]
    data, mime = getattr(block, field), getattr(block, typed)
    if isinstance(block, AudioBlock) and mime:
        mime = mimetypes.types_map.get(f".{mime}", f"audio/{mime}")
    known = {"mime_type": mime, "detail": getattr(block, "detail", None), "name": getattr(block, "title", None)}
    made = {"type": kind, **{name: value for name, value in known.items() if value is not None}}
    if isinstance(data, bytes):
        return {**made, "base64": data.decode("ascii")}
    if block.url is not None:
        return {**made, "url": str(block.url)}
    # Another process or machine has no such file, so its content is stored.
    if block.path is not None and Path(block.path).is_file():
        return {**made, "base64": base64.b64encode(Path(block.path).read_bytes()).decode("ascii")}
    return None


def from_block(block: Block) -> BaseContentBlock | None:
    """Convert a block of the core to LlamaIndex's form; None if it has no equivalent."""
    kind = block.get("type")
    match kind:
        case "text":
            return TextBlock(text=block["text"])
        case "image" | "audio" | "video" | "file" if block.get("base64") or block.get("url"):
            return _from_media(block)
        case "file" if "text" in block:
            name = block.get("name") or ""
            return CitableBlock(title=name, source=name, content=[TextBlock(text=block["text"])])
        case "reasoning" if "text" in block or "signature" in block:
            signed = {"signature": block["signature"]} if "signature" in block else {}
            return ThinkingBlock(
                content=block.get("text"), num_tokens=block.get("tokens"), additional_information=signed
            )
        case "tool_call":
            args = block.get("args", {})
            given = args if isinstance(args, str) else dict(args)
            return ToolCallBlock(tool_name=block["name"], tool_call_id=block.get("id"), tool_kwargs=given)
        case "tool_result" if isinstance(block.get("content"), str):
            return TextBlock(text=block["content"])
        case "citation":
            source = block.get("source") or block.get("url") or ""
            places = {name: block[name] for name in ("start", "end") if isinstance(block.get(name), int)}
            return CitationBlock(
                cited_content=TextBlock(text=block.get("text") or ""),
                source=source,
                title=block.get("title") or source,
                additional_location_info=places,
            )
    return None


def _from_media(block: Mapping[str, Any]) -> BaseContentBlock:
    made = _CLASSES[block["type"]]
    _, field, typed = _MEDIA[made]
    mime = block.get("mime_type")
    if made is AudioBlock and mime:
        mime = (mimetypes.guess_extension(mime) or mime.rpartition("/")[2]).removeprefix(".")
    given: dict[str, Any] = {typed: mime}
    if block.get("base64"):
        given[field] = block["base64"].encode("ascii")
    else:
        given["url"] = block["url"]
    if "detail" in block and made is not DocumentBlock:
        given["detail"] = block["detail"]
    if made is DocumentBlock:
        given["title"] = block.get("name")
    return made(**given)
