"""Validates facts and converts them to column arrays, ready to send. Does no I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgrecall.arguments import (
    MAX_ID_BYTES,
    MAX_IDENTITY_BYTES,
    check_text,
    fraction,
    labels,
    lifetime,
    moment,
    storable_text,
)
from pgrecall.errors import InvalidInput
from pgrecall.facts import MAX_VALUE_BYTES, Fact, FactKey, Ttl
from pgrecall.jsonable import dumps
from pgrecall.postgres import wire
from pgrecall.types import Vector

#: Advisory locks per tenant; each identity maps to one of them.
LOCKS = 256


@dataclass(frozen=True, slots=True)
class PackedFact:
    """A validated fact. `key.subject` is '' if it has none. `texts` to embed and given `vectors` are by field name."""

    key: FactKey
    name: str
    value: str
    given: Any
    text: str | None
    source: str | None
    confidence: float | None
    ttl: float | None
    refresh: bool
    expires_at: datetime | None
    texts: Mapping[str, str]
    vectors: Mapping[str, Vector]

    @property
    def size(self) -> int:
        """Approximate size in bytes of the fact in a message."""
        return len(self.value) + len(self.text or "")


def whole_key(subject: object, kind: object, key: object, namespace: object = ()) -> FactKey:
    """A validated identity; its subject is '' if it has none. Raises InvalidInput."""
    path = labels(namespace, "namespace")
    if subject is None:
        if not path:
            raise InvalidInput(
                "subject is None and there is no namespace; expected a subject, such as a user's id. For a fact about "
                "nobody, pass subject=None together with namespace=('docs', …)"
            )
        subject = ""
    else:
        subject = check_text(subject, "subject", MAX_IDENTITY_BYTES)
    whole = FactKey(
        subject, check_text(kind, "kind", MAX_IDENTITY_BYTES), check_text(key, "key", MAX_IDENTITY_BYTES), path
    )
    named_parts: list[Any] = [*whole[:3], *path]
    size = sum(len(part.encode()) for part in named_parts) + 8 * len(path)
    if size > MAX_IDENTITY_BYTES:
        raise InvalidInput(
            f"namespace, subject, kind and key have {size:,} bytes together (plus 8 for each label); expected at most "
            f"{MAX_IDENTITY_BYTES:,}. Hash or shorten them"
        )
    return whole


def named(key: FactKey) -> str:
    """An identity, as error messages name it."""
    where = f" in {'/'.join(key.namespace)}" if key.namespace else ""
    return f"{key.kind}/{key.key}"[:120] + (f" of {key.subject!r:.80}" if key.subject else "") + where[:120]


def ttl_seconds(ttl: Ttl | None, what: str) -> float | None:
    """A fact's time to live in seconds. Raises InvalidInput."""
    span = lifetime(ttl, what, at_least=0)
    return None if span is None else span.total_seconds()


def pack(facts: Iterable[Fact], default_ttl: Mapping[str, float]) -> list[PackedFact]:
    """Validate facts. If an identity occurs twice, the later fact wins. Raises InvalidInput; it names the fact."""
    distinct: dict[FactKey, PackedFact] = {}
    for fact in facts:
        packed = _pack(fact, default_ttl)
        distinct.pop(packed.key, None)
        distinct[packed.key] = packed
    return list(distinct.values())


def _pack(fact: Fact, default_ttl: Mapping[str, float]) -> PackedFact:
    if not isinstance(fact, Fact):
        raise InvalidInput(f"a fact is {type(fact).__name__}; expected pgrecall.Fact")
    key = whole_key(fact.subject, fact.kind, fact.key, fact.namespace)
    name = named(key)
    value = dumps(fact.value, f"the value of fact {name}")
    text = fact.text if fact.text is not None else fact.value if isinstance(fact.value, str) else None
    if text is not None:
        text = storable_text(text, f"the text of fact {name}")
    for what, part in (("value", value), ("text", text or "")):
        if len(part) > MAX_VALUE_BYTES:
            raise InvalidInput(
                f"the {what} of fact {name} has {len(part):,} characters; expected at most {MAX_VALUE_BYTES:,}. Store "
                "large values elsewhere, and put a reference here"
            )
    confidence = fact.confidence
    if confidence is not None:
        confidence = fraction(confidence, f"the confidence of fact {name}")
    ttl = ttl_seconds(fact.ttl, f"the ttl of fact {name}")
    if fact.expires_at is not None:
        moment(fact.expires_at, f"expires_at of fact {name}")
    elif ttl is None:
        ttl = default_ttl.get(fact.kind)
    texts, vectors = _embedded(fact, text, name)
    return PackedFact(
        key=key,
        name=name,
        value=value,
        given=json.loads(value),
        text=text,
        source=None if fact.source is None else storable_text(fact.source, f"the source of fact {name}"),
        confidence=confidence,
        ttl=ttl,
        refresh=bool(fact.refresh_on_read),
        expires_at=fact.expires_at,
        texts=texts,
        vectors=vectors,
    )


def _embedded(fact: Fact, text: str | None, name: str) -> tuple[Mapping[str, str], Mapping[str, Vector]]:
    """The texts to embed and the given vectors, by field name."""
    given = fact.embedding
    vectors: Mapping[str, Vector] = {} if given is None else given if isinstance(given, Mapping) else {"text": given}
    texts = fact.embed_texts
    if texts is None:
        texts = {"text": text} if text and given is None else {}
    elif not isinstance(texts, Mapping):
        raise InvalidInput(
            f"embed_texts of fact {name} is {type(texts).__name__}; expected a mapping of field names to texts"
        )
    for field in (*vectors, *texts):
        check_text(field, f"a field of fact {name}", MAX_ID_BYTES)
    return {f: storable_text(t, f"{f!r} of fact {name}") for f, t in texts.items() if f not in vectors}, vectors


def identities(keys: Sequence[FactKey]) -> dict[str, Any]:
    """Identities as column arrays."""
    return {
        "subjects": wire.text_array([k.subject for k in keys]),
        "kinds": wire.text_array([k.kind for k in keys]),
        "keys": wire.text_array([k.key for k in keys]),
        "namespaces": wire.text_array([array_literal(k.namespace) for k in keys]),
    }


def array_literal(path: Sequence[str]) -> str:
    """A text[] in Postgres' text format."""
    quoted = (label.replace("\\", "\\\\").replace('"', '\\"') for label in path)
    return "{" + ",".join(f'"{label}"' for label in quoted) + "}"


def lock_numbers(tenant: str, keys: Iterable[FactKey]) -> list[int]:
    """The advisory locks of identities, in lock order."""
    parts = {hashlib.blake2b("\0".join((*k[:3], *k.namespace)).encode()).digest()[0] % LOCKS for k in keys}  # type: ignore[arg-type]
    names = (hashlib.blake2b(f"pgrecall.facts\0{tenant}\0{p}".encode(), digest_size=8).digest() for p in parts)
    return sorted(int.from_bytes(name, "big", signed=True) for name in names)
