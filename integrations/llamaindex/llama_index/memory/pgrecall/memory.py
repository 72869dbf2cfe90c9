"""`PGRecallFactBlock`: a block of LlamaIndex's `Memory` that keeps facts about people, in one tenant."""

from __future__ import annotations

import hashlib
import html
import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.llms import LLM
from llama_index.core.memory.memory import BaseMemoryBlock
from llama_index.core.memory.memory_blocks.fact import DEFAULT_FACT_EXTRACT_PROMPT
from llama_index.vector_stores.pgrecall.handles import OnDatabase
from llama_index.vector_stores.pgrecall.spaces import Model, embedder_and_space

from pgrecall import (
    Database,
    DatabaseLike,
    EmbedModel,
    EmbedSpace,
    Fact,
    InvalidInput,
    PostgresMemoryStore,
    StoredFact,
)

#: A function from messages to the facts in them, strings or `Fact` objects; synchronous or asynchronous.
Extract: TypeAlias = Callable[[Sequence[ChatMessage]], Any]
_FACT = re.compile(r"<fact>(.*?)</fact>", re.DOTALL | re.IGNORECASE)


class PGRecallFactBlock(OnDatabase, BaseMemoryBlock[str]):
    """A memory block that keeps facts about people and finds them later.

    Messages that leave the chat's window are passed to `extract`; the messages themselves are not facts. One block
    serves any number of sessions, and none of them sees the facts of another subject.

    Args:
        extract: An LLM, which is prompted as LlamaIndex's `FactExtractionMemoryBlock` does, or a function from messages
            to facts, strings or `pgrecall.Fact` objects, synchronous or asynchronous.
        connection: A `pgrecall.Database`, a URL, a SQLAlchemy engine, or a pair of a synchronous and an asynchronous
            one. By default `PGRECALL_URL`, otherwise the embedded Postgres.
        tenant: The tenant that owns the facts.
        subject: The person that the facts are about, or a function from a session's id to the person. By default each
            session is its own subject.
        embed_model: The model that embeds the facts, for search by meaning. By default search is by words only.
        space: The space of a model whose class `pgrecall.providers` does not know.
        actor: The name of the writer in the memory's trail; by default "llama_index".
        **fields: Fields of the block: `name` ("Facts"); `kind` of fact ("fact"); `order_by`, "relevance" (the default)
            for the facts that are relevant to the user's newest message, filled up with the newest facts, or "recency"
            for the newest only; `top_k`, the number of facts to return (10); and those of LlamaIndex's
            `BaseMemoryBlock`.

    Raises:
        InvalidInput: `extract` is neither an LLM nor callable. It is a ValueError.
        ValueError: A field is unknown or invalid.
        ConfigurationError: The model's space is unknown, or contradicts `space`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    name: str = Field(default="Facts", description="The name of the memory block.")
    tenant: str = Field(frozen=True)
    kind: str = "fact"
    order_by: Literal["relevance", "recency"] = "relevance"
    top_k: int = Field(default=10, ge=1)
    _subject: str | Callable[[str | None], str | None] | None = PrivateAttr()
    _extract: LLM | Extract = PrivateAttr()
    _database: Database = PrivateAttr()
    _opened: bool = PrivateAttr()
    _memory: PostgresMemoryStore = PrivateAttr()

    def __init__(
        self,
        *,
        extract: LLM | Extract,
        connection: DatabaseLike = None,
        tenant: str,
        subject: str | Callable[[str | None], str | None] | None = None,
        embed_model: Model = None,
        space: EmbedSpace | EmbedModel | None = None,
        actor: str = "llama_index",
        **fields: Any,
    ) -> None:
        super().__init__(**{"tenant": tenant, **_renamed(fields)})
        if not isinstance(extract, LLM) and not callable(extract):
            raise InvalidInput(
                f"extract is {type(extract).__name__}; expected an LLM, or a function from messages to facts"
            )
        embedder, made = embedder_and_space(embed_model, space)
        self._subject = subject
        self._extract = extract
        self._connect(connection)
        self._memory = self._database.tenant(tenant).memory(actor=actor, space=made, embed=embedder)

    @property
    def client(self) -> PostgresMemoryStore:
        """The core's memory of the same facts: search, history, deletion, erasure."""
        return self._memory

    def __repr__(self) -> str:
        return f"<PGRecallFactBlock tenant={self.tenant!r} kind={self.kind!r}>"

    __str__ = __repr__

    def subject_of(self, session_id: str | None) -> str:
        """Return the subject of a session's facts. Raises InvalidInput if it has none."""
        subject = self._subject(session_id) if callable(self._subject) else self._subject
        found = subject if self._subject is not None else session_id
        if not found:
            raise InvalidInput(
                f"the facts of session {session_id!r} have no subject; pass subject= to the block, or a "
                "session_id with the call"
            )
        return found

    async def aput(
        self, messages: list[ChatMessage], from_short_term_memory: bool = False, session_id: str | None = None
    ) -> None:
        """Extract facts from messages and store them, all or nothing."""
        if messages and (self.accept_short_term_memory or not from_short_term_memory):
            await self._keep(messages, self.subject_of(session_id))

    async def _aput(self, messages: list[ChatMessage]) -> None:
        """`aput` without a session, for a block with a fixed subject."""
        await self._keep(messages, self.subject_of(None))

    async def _aget(self, messages: list[ChatMessage] | None = None, **block_kwargs: Any) -> str:
        """Return the relevant facts, one `<fact>` per line; an empty string if there are none."""
        subject = self.subject_of(block_kwargs.get("session_id"))
        asked = next((m.content for m in reversed(messages or ()) if m.role == MessageRole.USER and m.content), None)
        found: list[StoredFact] = []
        if self.order_by == "relevance" and asked:
            found = await self._memory.asearch_facts(subject=subject, kind=self.kind, text=asked, top_k=self.top_k)
        if len(found) < self.top_k:
            known = {fact.id for fact in found}
            found += [fact for fact in await self._newest(subject, self.top_k) if fact.id not in known]
        return "\n".join(map(_line, found[: self.top_k]))

    async def _newest(self, subject: str, top_k: int) -> list[StoredFact]:
        return await self._memory.asearch_facts(subject=subject, kind=self.kind, order_by="recency", top_k=top_k)

    async def _keep(self, messages: Sequence[ChatMessage], subject: str) -> None:
        found = await self._extracted(messages, subject)
        facts = [self._fact(one, subject) for one in found]
        if facts:
            await self._memory.aput_facts(facts, reason="extracted from chat")

    async def _extracted(self, messages: Sequence[ChatMessage], subject: str) -> Iterable[str | Fact]:
        if isinstance(self._extract, LLM):
            known = "\n".join(map(_line, await self._newest(subject, 50)))
            prompt = DEFAULT_FACT_EXTRACT_PROMPT.format_messages(existing_facts=known)
            answer = await self._extract.achat([*messages, *prompt])
            texts = (html.unescape(text.strip()) for text in _FACT.findall(answer.message.content or ""))
            return [text for text in texts if text]
        found = self._extract(messages)
        if inspect.isawaitable(found):
            found = await found
        if isinstance(found, str | Fact) or not isinstance(found, Iterable):
            raise InvalidInput(f"extract returned {type(found).__name__}; expected a list of strings or pgrecall.Fact")
        return found

    def _fact(self, found: str | Fact, subject: str) -> Fact:
        if isinstance(found, Fact):  # the block decides whom it is about
            return replace(found, subject=subject, kind=self.kind)
        if not isinstance(found, str):
            raise InvalidInput(f"extract returned a fact of type {type(found).__name__}; expected str or pgrecall.Fact")
        # A fact is stored once, however often its words are extracted.
        key = hashlib.sha256(" ".join(found.casefold().split()).encode()).hexdigest()
        return Fact(subject, self.kind, key, found, source="chat")


def _renamed(fields: dict[str, Any]) -> dict[str, Any]:
    """Accept the old names `recall` and `limit`, which go with the next minor version."""
    given = dict(fields)
    for old, new in (("recall", "order_by"), ("limit", "top_k")):
        if old in given:
            message = f"{old} of PGRecallFactBlock is deprecated; use {new} instead"
            warnings.warn(message, DeprecationWarning, stacklevel=3)
            value = given.pop(old)
            given[new] = {"semantic": "relevance", "recent": "recency"}.get(value, value)
    return given


def _line(fact: StoredFact) -> str:
    text = fact.text if fact.text is not None else str(fact.value)
    return f"<fact>{html.escape(text, quote=False)}</fact>"
