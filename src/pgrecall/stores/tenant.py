"""A handle on one tenant, from which its stores are made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from pgrecall.arguments import (
    MAX_ID_BYTES,
    MAX_IDENTITY_BYTES,
    MAX_NAME_BYTES,
    actor_name,
    check_text,
    instance,
    reason_text,
    whole_number,
)
from pgrecall.errors import ConfigurationError
from pgrecall.facts import ErasureReport, Ttl
from pgrecall.messages import ChatHit, ChatInfo, Role, Status
from pgrecall.operations import erasure, registry
from pgrecall.operations.chat import verbs as chat_ops
from pgrecall.operations.chunks import keys
from pgrecall.operations.erasure import ExportKey
from pgrecall.operations.models.embedding import Embed
from pgrecall.postgres.transactions import Gate
from pgrecall.stores.atomic import Atomic
from pgrecall.stores.chat import PostgresChat, looked_for
from pgrecall.stores.collections import Collections
from pgrecall.stores.docstore import PostgresDocstore
from pgrecall.stores.memory import PostgresMemoryStore
from pgrecall.stores.records import IndexRecords
from pgrecall.stores.renamed import renamed, renamed_arguments
from pgrecall.stores.runs import PostgresRuns
from pgrecall.stores.twins import Work, twins
from pgrecall.stores.vectors import PostgresVectorStore
from pgrecall.types import EmbedModel, EmbedSpace, KeyType, TenantInfo


class Tenant(Collections):
    """One tenant of a database. What is made from it is bound to it: no argument of a call can choose another."""

    def __repr__(self) -> str:
        return f"<pgrecall.Tenant {self.tenant_id!r}>"

    def _info(self) -> Work[TenantInfo | None]:
        """The tenant in the registry, or None if nothing was written for it yet."""
        return lambda gate: registry.tenant(gate, self._scope(gate))

    info, ainfo = twins(_info)

    def vectors(
        self,
        collection: str = "default",
        space: EmbedSpace | EmbedModel | None = None,
        *,
        embed: Embed | None = None,
        text_config: str | None = None,
        indexed_keys: Mapping[Any, KeyType] | None = None,
    ) -> PostgresVectorStore:
        """The vector store of one collection; made in the database by its first write.

        `space` says what its vectors are made by; left out, it is the collection's own; an EmbedModel learns its
        dimensions from `embed`. `embed`, a function from a list of texts to their vectors (sync or async, or an
        Embedder with both), embeds chunks that come without one, and its fingerprint is compared with the collection's
        on first use. `text_config`, a Postgres text search configuration such as "english", makes a new collection keep
        full text too (it halves the speed of ingest). `indexed_keys`, from keys of the metadata (a tuple for a nested
        one) to text, number or bool, declares them with a new collection, as `index_key` does with one that is there.
        """
        check_text(collection, "collection", MAX_NAME_BYTES)
        if space is not None:
            instance(space, (EmbedSpace, EmbedModel), "space", ConfigurationError)
        if text_config is not None:
            check_text(text_config, "text_config", MAX_NAME_BYTES)
        declared = keys.several(indexed_keys or {})
        return PostgresVectorStore(
            self._backend,
            self.tenant_id,
            collection,
            space,
            embed=embed,
            text_config=text_config,
            indexed_keys=declared,
        )

    def memory(
        self,
        *,
        actor: str,
        space: EmbedSpace | EmbedModel | None = None,
        embed: Embed | None = None,
        default_ttl: Mapping[str, Ttl] | None = None,
        keep_versions: int | None = None,
        grace: timedelta = timedelta(days=30),
        text_config: str | None = None,
    ) -> PostgresMemoryStore:
        """The tenant's facts; `actor` is who acts, as the trail names it: a user, an agent, a job.

        `space` says what the facts' vectors are made by; left out, it is the memory's own. `embed`, a function from a
        list of texts to their vectors (sync or async), embeds facts and questions; its fingerprint is compared with the
        memory's on first use. `default_ttl` maps kinds to how long their facts live (seconds or timedeltas).
        `keep_versions` is how many versions of a fact are kept, the live one too; None keeps all. `grace` is how long a
        forgotten fact can be restored. `text_config`, a Postgres text search configuration such as "english", is set by
        the tenant's first fact ("simple", which suits any language, by default).
        """
        return PostgresMemoryStore(
            self._backend,
            self.tenant_id,
            actor=actor,
            space=space,
            embed=embed,
            default_ttl=default_ttl,
            keep_versions=keep_versions,
            grace=grace,
            text_config=text_config,
        )

    def docstore(self, collection: str = "default") -> PostgresDocstore:
        """What an ingestion remembers of its documents, in this collection, which need not exist."""
        return PostgresDocstore(self._backend, self.tenant_id, check_text(collection, "collection", MAX_NAME_BYTES))

    def atomic(self) -> Atomic:
        """A `with` (or `async with`) block in which the tenant's operations are one transaction: all of them, or none.

        It is the calling code's own: tasks and context copies made inside take part, one operation at a time; other
        threads and tasks don't. An error inside rolls all of it back, also where it is caught within the block
        (RolledBack then). Nothing is retried inside: a Conflict says to run the block again. Until the end the block
        holds one connection and the locks of what it wrote, so leave slow work out. In it call the methods of its mode.

        Raises: as operations do; ConfigurationError for another tenant's operation inside, or the other mode's.
        """
        return Atomic(self._backend.engines, self._scope)

    def index_records(self, collection: str = "default", namespace: str = "") -> IndexRecords:
        """What an ingestion (`namespace`, where a collection has several) remembers of the chunks that it wrote.

        Nothing is read or written. Raises InvalidInput.
        """
        check_text(collection, "collection", MAX_NAME_BYTES)
        if namespace != "":
            check_text(namespace, "namespace", MAX_NAME_BYTES)
        return IndexRecords(self._backend, self.tenant_id, collection, namespace)

    def chat(
        self,
        session_id: str,
        subject: str | None = None,
        *,
        ttl: timedelta | None = None,
        message_ttl: timedelta | None = None,
        text_config: str | None = None,
    ) -> PostgresChat:
        """The store of one chat; made in the database by its first message.

        `subject` is whose chat it is, a user's id: with it a chat of another subject is as none, and writing to one is
        an error. `ttl` is how long the chat lives after its last write, `message_ttl` how long a message does; each
        is remembered with the chat, and stays where it is left out. `text_config`, a Postgres text search
        configuration such as "english", is what a new chat's words are searched by; "simple" (no stems, no stop words)
        where left out.
        """
        return PostgresChat(
            self._backend,
            self.tenant_id,
            session_id,
            subject=subject,
            ttl=ttl,
            message_ttl=message_ttl,
            text_config=text_config,
        )

    def _list_chats(
        self, subject: str | None = None, *, limit: int | None = None, offset: int = 0
    ) -> Work[list[ChatInfo]]:
        """The tenant's chats, or a subject's, the last written first. Raises InvalidInput."""
        if subject is not None:
            check_text(subject, "subject", MAX_ID_BYTES)
        limit = None if limit is None else whole_number(limit, "limit", 0)
        offset = whole_number(offset, "offset", 0)
        return lambda gate: chat_ops.infos(
            gate,
            self._scope(gate),
            subject=subject,
            session_id=None,
            limit=limit,
            offset=offset,
        )

    list_chats, alist_chats = twins(_list_chats)
    chats, achats = renamed("chats", list_chats, alist_chats)

    @renamed_arguments(limit="top_k")
    def _search_chats(
        self,
        text: str,
        top_k: int = 10,
        *,
        subject: str | None = None,
        roles: Sequence[Role] | None = None,
        status: Status | None = None,
    ) -> Work[list[ChatHit]]:
        """Messages of the tenant's chats, or of a subject's, that have words of a user's text, best first.

        Words are alternatives, "a phrase" is one too, -word excludes. `roles` and `status` narrow it; the archive is
        searched too unless `status` says otherwise. Each chat is searched by its own `text_config`.
        """
        sought = looked_for(text, top_k, subject, None, roles, status)
        return lambda gate: chat_ops.search(gate, self._scope(gate), sought)

    search_chats, asearch_chats = twins(_search_chats)

    def runs(self, *, ttl: timedelta | None = None, max_state_bytes: int = 1_000_000) -> PostgresRuns:
        """The store of the tenant's runs, their events and their evidence.

        `ttl` is how long a run lives after its last write. A state, and an event's data, may have `max_state_bytes` as
        JSON; larger ones are refused.
        """
        return PostgresRuns(self._backend, self.tenant_id, ttl=ttl, max_state_bytes=max_state_bytes)

    def _erase_subject(self, subject: str, *, actor: str, reason: str | None = None) -> Work[ErasureReport]:
        """Delete everything that is held about a subject, and leave a tombstone that refuses late writers.

        The report counts, per table, what was deleted and what remained, and rows that name no subject. The trail keeps
        ids and salted hashes only, for which the login for maintenance is needed; `reason` stays in it. Then the hooks
        of `Database.on_erase` are called. Raises: ConfigurationError, before anything is erased.
        """
        name = check_text(subject, "subject", MAX_IDENTITY_BYTES)
        by, why = actor_name(actor), reason_text(reason)

        def work(gate: Gate) -> ErasureReport:
            backend = self._backend
            trails = backend.trails(gate, self.tenant_id)
            report = erasure.erase_subject(gate, self._scope(gate), name, by, why, trails)
            return backend.call_hooks(gate, self.tenant_id, name, report)

        return work

    erase_subject, aerase_subject = twins(_erase_subject)

    def _reopen_subject(self, subject: str, *, actor: str, reason: str | None = None) -> Work[bool]:
        """Let something be kept about an erased subject again; True where it had been erased."""
        name = check_text(subject, "subject", MAX_IDENTITY_BYTES)
        by, why = actor_name(actor), reason_text(reason)
        return lambda gate: erasure.reopen_subject(gate, self._scope(gate), name, by, why)

    reopen_subject, areopen_subject = twins(_reopen_subject)

    def export_subject(self, subject: str) -> Iterator[str]:
        """What is held about a subject as JSON lines: a header, then ``{"table": …, "row": {…}}`` for each row.

        Facts with every version, also forgotten ones and what expired but was not swept yet, their vectors, and the
        trail. Each page is a transaction of its own.
        """
        name = check_text(subject, "subject", MAX_IDENTITY_BYTES)
        return self._export(name)

    def _export(self, subject: str) -> Iterator[str]:
        yield erasure.export_head(self.tenant_id, subject)
        after: ExportKey = erasure.EXPORT_START
        while after is not None:
            lines, after = self._run(partial(self._export_page, subject, after))
            yield from lines

    async def aexport_subject(self, subject: str) -> AsyncIterator[str]:
        """As `export_subject`."""
        name = check_text(subject, "subject", MAX_IDENTITY_BYTES)
        yield erasure.export_head(self.tenant_id, name)
        after: ExportKey = erasure.EXPORT_START
        while after is not None:
            lines, after = await self._arun(partial(self._export_page, name, after))
            for line in lines:
                yield line

    def _export_page(self, subject: str, after: ExportKey, gate: Gate) -> erasure.Page:
        return erasure.export_page(gate, self._scope(gate), subject, after)
