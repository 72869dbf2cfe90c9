"""LlamaIndex's nodes as the core's chunks and back, without loss, and the source documents that they name.

A node's text, metadata and embedding are stored only in the chunk's own columns, so that a change there changes the
node. The rest of the node is the chunk's payload, under a key of LlamaIndex's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MetadataMode,
    Node,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node

import pgrecall
from pgrecall import Chunk, InvalidEmbedding, InvalidInput

FORM = "llama_index"
_CLASSES: dict[str, type[BaseNode]] = {
    kind.class_name(): kind for kind in (TextNode, ImageNode, IndexNode, Node, Document, ImageDocument)
}
_RESOURCES = ("text_resource", "image_resource", "audio_resource", "video_resource")
#: Keys that readers use in a source's metadata, best first.
_SOURCE_KEYS = ("source", "file_name", "title", "filename")
_URI_KEYS = ("uri", "url", "URL", "file_path", "path")


def to_parts(node: BaseNode) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Split a node into text, metadata, and the rest, as JSON. Raises InvalidInput for values that JSON can't hold."""
    try:
        rest = node.model_dump(mode="json", exclude={"id_", "text", "embedding"}, exclude_defaults=True)
    except (ValueError, TypeError) as exc:  # pydantic's, and IndexNode's for an object that it can't write
        raise InvalidInput(f"node {node.node_id!r:.80} can't be written as JSON: {exc}") from exc
    rest["class_name"] = _known_class(node)
    metadata = rest.pop("metadata", {})
    if not _finite(node.metadata):  # pydantic would write null
        raise InvalidInput(
            f"node {node.node_id!r:.80} has NaN or infinity in its metadata; JSON has neither, use None or a string"
        )
    if order := _order(metadata):
        rest["metadata_order"] = order
    if not isinstance(node, Node):
        return node.get_content(metadata_mode=MetadataMode.NONE), metadata, rest
    for name in _RESOURCES:
        resource = getattr(node, name)
        if resource is not None:
            form = rest.setdefault(name, {})
            if resource.data is not None:  # base64 already; LlamaIndex leaves it out of every dump
                form["data"] = resource.data.decode("ascii")
    text = rest.get("text_resource", {}).pop("text", None)
    if "text_resource" in rest and text is None:
        rest["text_resource"]["text"] = None
    return text or "", metadata, rest


def from_parts(node_id: str, text: str, metadata: Mapping[str, Any], rest: Mapping[str, Any]) -> BaseNode:
    """Rebuild the node that `to_parts` split."""
    data = dict(rest)
    kind = _CLASSES.get(data.pop("class_name", ""), TextNode)
    data["metadata"] = _in_order(dict(metadata), data.pop("metadata_order", {}))
    data["id_"] = node_id
    if not issubclass(kind, Node):
        data["text"] = text
    elif "text_resource" in data:
        data["text_resource"] = {"text": text, **data["text_resource"]}
    return kind.from_dict(data)


def to_chunks(nodes: Sequence[BaseNode]) -> tuple[list[Chunk], list[pgrecall.Document]]:
    """Return a chunk for each node, in order, and the source documents that the nodes describe.

    Raises: InvalidEmbedding for a node without an embedding, InvalidInput.
    """
    chunks, documents = [], {}
    for node in nodes:
        if not isinstance(node, BaseNode):
            raise InvalidInput(f"found {type(node).__name__} among the nodes; expected a LlamaIndex BaseNode")
        if node.embedding is None:
            raise InvalidEmbedding(
                f"node {node.node_id!r:.80} has no embedding; add it through an index, or through a pipeline whose "
                "last transformation is the embedding model"
            )
        text, metadata, rest = to_parts(node)
        source = node.source_node
        doc_id = None if source is None else source.node_id
        # The core works on arrays; LlamaIndex keeps a list of floats.
        embedding = np.asarray(node.embedding, dtype=np.float32)
        chunks.append(Chunk(node.node_id, text, embedding, doc_id, metadata=metadata, payload={FORM: rest}))
        if source is not None and (source.metadata or source.hash):
            documents[source.node_id] = _document(source, rest)
    return chunks, list(documents.values())


def to_nodes(found: Iterable[Chunk | pgrecall.Hit]) -> list[BaseNode]:
    """Return the nodes of stored chunks; a chunk that another framework wrote becomes a text node."""
    return [_node(row) for row in found]


def from_peer(
    node_id: str, text: str | None, metadata: Mapping[str, Any], embedding: Any
) -> tuple[Chunk, pgrecall.Document | None]:
    """Convert a row of `PGVectorStore`'s table to a chunk and its source document, if any. Raises InvalidInput."""
    try:
        node = metadata_dict_to_node(dict(metadata), text)
    except (ValueError, TypeError, KeyError) as exc:
        raise InvalidInput(f"the metadata of node {node_id!r:.80} does not describe a LlamaIndex node: {exc}") from exc
    node.id_, node.embedding = node_id, [0.0]
    [chunk], documents = to_chunks([node])
    return replace(chunk, embedding=embedding), next(iter(documents), None)


def is_text(chunk: Chunk) -> bool:
    """Whether the node is neither an index nor an image node. LlamaIndex keeps copies of those itself."""
    kind = _CLASSES.get(((chunk.payload or {}).get(FORM) or {}).get("class_name", ""), TextNode)
    return not issubclass(kind, IndexNode | ImageNode)


def _node(row: Chunk | pgrecall.Hit) -> BaseNode:
    node_id = row.id if isinstance(row, Chunk) else row.chunk_id
    rest = (row.payload or {}).get(FORM)
    if rest is None:
        source = {} if row.doc_id is None else {NodeRelationship.SOURCE: _source(row)}
        node: BaseNode = TextNode(id_=node_id, text=row.text, metadata=dict(row.metadata), relationships=source)
    else:
        node = from_parts(node_id, row.text, row.metadata, rest)
    if isinstance(row, Chunk) and row.embedding is not None:
        node.embedding = _as_given(row)
    return node


def _as_given(chunk: Chunk) -> list[float]:
    """Return the embedding as it was added, in half precision: a cosine space stores direction and length apart."""
    vector = np.asarray(chunk.embedding, dtype=np.float32)
    norm = getattr(chunk, "norm", None)
    if norm is not None and (length := float(np.linalg.norm(vector))):
        vector = vector * np.float32(norm / length)
    return vector.tolist()  # type: ignore[no-any-return]


def _source(row: Chunk | pgrecall.Hit) -> RelatedNodeInfo:
    assert row.doc_id is not None
    provenance = {name: value for name in ("source", "uri") if (value := getattr(row, name, None)) is not None}
    return RelatedNodeInfo(node_id=row.doc_id, node_type=ObjectType.DOCUMENT, metadata=provenance)


def _document(source: RelatedNodeInfo, rest: Mapping[str, Any]) -> pgrecall.Document:
    # Taken from the payload, where it is JSON already: a date in the metadata is a string there.
    related = rest["relationships"][NodeRelationship.SOURCE.value]
    metadata = related.get("metadata", {})

    def first(keys: Sequence[str]) -> str | None:
        return next((str(metadata[key]) for key in keys if metadata.get(key)), None)

    return pgrecall.Document(source.node_id, first(_SOURCE_KEYS), first(_URI_KEYS), source.hash, metadata)


def _known_class(node: BaseNode) -> str:
    kinds = (kind.class_name() for kind in type(node).__mro__ if issubclass(kind, BaseNode) and kind is not BaseNode)
    name = next((name for name in kinds if name in _CLASSES), None)
    if name is None:
        raise InvalidInput(
            f"node {node.node_id!r:.80} is {type(node).__name__}; expected a subclass of TextNode or Node"
        )
    return name


def _finite(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple | set):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _order(value: object) -> dict[str, Any]:
    """Return the order of objects' keys. A node's hash and text depend on it, and jsonb does not keep it."""
    if isinstance(value, dict):
        inner = {key: order for key, item in value.items() if (order := _order(item))}
        keys = {"keys": list(value)} if len(value) > 1 or inner else {}
    elif isinstance(value, list):
        inner = {str(at): order for at, item in enumerate(value) if (order := _order(item))}
        keys = {}
    else:
        return {}
    return keys | ({"in": inner} if inner else {})


def _in_order(value: Any, order: Mapping[str, Any]) -> Any:
    """Return the value with its keys in that order; keys that were added since come last."""
    if not order:
        return value
    inner = order.get("in", {})
    if isinstance(value, dict):
        keys = dict.fromkeys([*(key for key in order.get("keys", ()) if key in value), *value])
        return {key: _in_order(value[key], inner.get(key, {})) for key in keys}
    if isinstance(value, list):
        return [_in_order(item, inner.get(str(at), {})) for at, item in enumerate(value)]
    return value
