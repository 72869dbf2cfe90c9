"""`PGRecallFactBlock`: a block of LlamaIndex's `Memory` that keeps facts, of one person each, in one tenant."""

from __future__ import annotations

import hashlib
import html
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, NoReturn, TypeAlias

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.llms import LLM
from llama_index.core.memory.memory import BaseMemoryBlock
from llama_index.core.memory.memory_blocks.fact import DEFAULT_FACT_EXTRACT_PROMPT
from llama_index.vector_stores.pgrecall.spaces import Model, embedder_and_space

from pgrecall import Database, EmbedModel, EmbedSpace, Fact, InvalidInput, PostgresMemoryStore, StoredFact, as_database

#: From messages to the facts in them: texts, or whole facts; synchronous or not.
Extract: TypeAlias = Callable[[Sequence[ChatMessage]], Any]
_FACT = re.compile(r"<fact>(.*?)</fact>", re.DOTALL | re.IGNORECASE)


class PGRecallFactBlock(BaseMemoryBlock[str]):
    """Facts that `extract` finds in messages that leave the chat's window, kept in Postgres and recalled later.

    `extract` is an LLM, which is asked as LlamaIndex's `FactExtractionMemoryBlock` asks, or a function from messages
    to facts (texts, or `pgrecall.Fact`s), synchronous or not: messages themselves are no facts. `subject` is whom they
    are about: a person's id, or a function from a session's id to it; left out, each session is its own. One block
    serves any number of sessions, none of which sees another subject's facts. `recall="semantic"` finds the
    `limit` facts that have most to do with the newest user's message, by words, and by meaning too where there is an
    `embed_model`, and fills up with the newest; "recent" takes the newest. `actor` is who writes, as the trail names
    it. `connection` as elsewhere.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    name: str = Field(default="Facts", description="The name of the memory block.")
    tenant: str = Field(frozen=True)
    kind: str = "fact"
    recall: Literal["semantic", "recent"] = "semantic"
    limit: int = Field(default=10, ge=1)
    _subject: str | Callable[[str | None], str | None] | None = PrivateAttr()
    _extract: LLM | Extract = PrivateAttr()
    _database: Database = PrivateAttr()
    _opened: bool = PrivateAttr()
    _memory: PostgresMemoryStore = PrivateAttr()

    def __init__(
        self,
        *,
        extract: LLM | Extract,
        connection: Any = None,
        tenant: str,
        subject: str | Callable[[str | None], str | None] | None = None,
        embed_model: Model = None,
        space: EmbedSpace | EmbedModel | None = None,
        actor: str = "llama_index",
        **fields: Any,
    ) -> None:
        super().__init__(**{"tenant": tenant, **fields})
        if not isinstance(extract, LLM) and not callable(extract):
            raise InvalidInput(f"extract is {type(extract).__name__}; expected an LLM or a function of messages")
        embedder, made = embedder_and_space(embed_model, space)
        self._subject = subject
        self._extract = extract
        self._opened = not isinstance(connection, Database)
        self._database = as_database(connection)
        self._memory = self._database.tenant(tenant).memory(actor=actor, space=made, embed=embedder)

    @property
    def client(self) -> PostgresMemoryStore:
        """The core's memory, which does the work: search, history, forgetting, erasure."""
        return self._memory

    def close(self) -> None:
        """Close the connections, where the block opened them itself."""
        if self._opened:
            self._database.close()

    def __getstate__(self) -> NoReturn:
        raise TypeError("a PGRecallFactBlock holds connections and can't be pickled; make one in each process")

    def __repr__(self) -> str:
        return f"<PGRecallFactBlock tenant={self.tenant!r} kind={self.kind!r}>"

    __str__ = __repr__

    def subject_of(self, session_id: str | None) -> str:
        """Whom a session's facts are about. Raises InvalidInput where nothing says."""
        subject = self._subject(session_id) if callable(self._subject) else self._subject
        found = subject if self._subject is not None else session_id
        if not found:
            raise InvalidInput(
                f"whom the facts of session {session_id!r} are about is not known; pass subject= to the block, or a "
                "session_id with the call"
            )
        return found

    async def aput(
        self, messages: list[ChatMessage], from_short_term_memory: bool = False, session_id: str | None = None
    ) -> None:
        """Find facts in messages and keep them; nothing of a failed call is kept."""
        if messages and (self.accept_short_term_memory or not from_short_term_memory):
            await self._keep(messages, self.subject_of(session_id))

    async def _aput(self, messages: list[ChatMessage]) -> None:
        """As `aput`, for a block that is bound to its subject."""
        await self._keep(messages, self.subject_of(None))

    async def _aget(self, messages: list[ChatMessage] | None = None, **block_kwargs: Any) -> str:
        """The facts that matter now, one `<fact>` a line; an empty text where there are none."""
        subject = self.subject_of(block_kwargs.get("session_id"))
        asked = next((m.content for m in reversed(messages or ()) if m.role == MessageRole.USER and m.content), None)
        found: list[StoredFact] = []
        if self.recall == "semantic" and asked:
            found = await self._memory.asearch_facts(subject=subject, kind=self.kind, text=asked, limit=self.limit)
        if len(found) < self.limit:
            known = {fact.id for fact in found}
            found += [fact for fact in await self._newest(subject, self.limit) if fact.id not in known]
        return "\n".join(map(_line, found[: self.limit]))

    async def _newest(self, subject: str, limit: int) -> list[StoredFact]:
        return await self._memory.asearch_facts(subject=subject, kind=self.kind, order_by="recency", limit=limit)

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
            raise InvalidInput(f"extract returned {type(found).__name__}; expected a list of texts or pgrecall.Fact")
        return found

    def _fact(self, found: str | Fact, subject: str) -> Fact:
        if isinstance(found, Fact):  # whom it is about is not for the extraction to say
            return replace(found, subject=subject, kind=self.kind)
        if not isinstance(found, str):
            raise InvalidInput(f"a fact is {type(found).__name__}; expected a text or pgrecall.Fact")
        # The same words again are the same fact, of which there is one.
        key = hashlib.sha256(" ".join(found.casefold().split()).encode()).hexdigest()
        return Fact(subject, self.kind, key, found, source="chat")


def _line(fact: StoredFact) -> str:
    text = fact.text if fact.text is not None else str(fact.value)
    return f"<fact>{html.escape(text, quote=False)}</fact>"
