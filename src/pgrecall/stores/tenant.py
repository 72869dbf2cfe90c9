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
from pgrecall.operations.chat import verbs as chat_verbs
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
    """One tenant of a database. Everything made from it is bound to it: no argument of a call can choose another."""

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
        """The vector store of one collection. The collection is created by its first write.

        Args:
            collection: The collection's name.
            space: The embedding model whose vectors the collection holds. By default the one that it was created with.
                An `EmbedModel` gets its dimensions from `embed`.
            embed: A function from a list of texts to their vectors, sync or async, or an `Embedder` with both. It
                embeds chunks that come without a vector. On first use, the fingerprint that it produces is compared
                with the collection's.
            text_config: A Postgres text search configuration, such as "english": a new collection also keeps full text,
                which halves the speed of ingest. By default it keeps none.
            indexed_keys: Metadata keys to index in a new collection, as a mapping from the key (a tuple for a nested
                key) to "text", "number" or "bool". For an existing collection see `index_key`.

        Raises:
            InvalidInput: An argument is malformed.
            ConfigurationError: `space` is not a space.
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
        """The store of the tenant's facts.

        Args:
            actor: Who acts, as the trail names it: a user, an agent, a job.
            space: The embedding model of the facts' vectors. By default the one that the memory was created with.
            embed: A function from a list of texts to their vectors, sync or async. It embeds facts and queries. On
                first use, the fingerprint that it produces is compared with the memory's.
            default_ttl: How long facts of a kind live, as a mapping from kinds to seconds or timedeltas.
            keep_versions: The number of versions to keep of each fact, the live one included. By default all.
            grace: How long a forgotten fact can be restored. By default 30 days.
            text_config: A Postgres text search configuration, such as "english". It is set by the tenant's first fact;
                by default "simple", which suits any language.

        Raises:
            InvalidInput: An argument is malformed.
            ConfigurationError: `space` is not a space.
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
        """The store of what an ingestion remembers about its documents. The collection need not exist."""
        return PostgresDocstore(self._backend, self.tenant_id, check_text(collection, "collection", MAX_NAME_BYTES))

    def atomic(self) -> Atomic:
        """A `with` (or `async with`) block in which the tenant's operations are one transaction: all of them happen, or
        none.

        The block belongs to the code that opened it. Tasks and context copies made inside take part, one operation at a
        time; other threads and tasks don't. An error inside rolls everything back, even if it is caught within the
        block (then the block raises RolledBack). Nothing is retried inside; after a Conflict, run the whole block
        again. Until its end the block holds one connection and the locks of what it wrote, so keep slow work outside.
        Inside, call the methods of the block's own mode.

        Raises: as operations do; ConfigurationError for an operation of another tenant, or of the other mode.
        """
        return Atomic(self._backend.engines, self._scope)

    def index_records(self, collection: str = "default", namespace: str = "") -> IndexRecords:
        """The store of what an ingestion remembers about the chunks it wrote. Nothing is read or written.

        `namespace` separates several ingestions of one collection. Raises InvalidInput.
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
        """The store of one chat. The chat is created by its first message.

        Args:
            session_id: The chat's name.
            subject: The user that the chat belongs to. A chat of another subject then looks as if it did not exist, and
                writing to it is an error.
            ttl: How long the chat lives after its last write, as a timedelta or in seconds. It is stored with the chat;
                by default the stored value stays.
            message_ttl: How long each message lives. Stored like `ttl`.
            text_config: A Postgres text search configuration, such as "english", for searching a new chat's words. By
                default "simple", without stemming and stop words.

        Raises:
            InvalidInput: An argument is malformed.
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
        """The chats of the tenant, or of a subject, the most recently written first. Raises InvalidInput."""
        if subject is not None:
            check_text(subject, "subject", MAX_ID_BYTES)
        limit = None if limit is None else whole_number(limit, "limit", 0)
        offset = whole_number(offset, "offset", 0)
        return lambda gate: chat_verbs.infos(
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
        """Search the messages of the tenant's chats by words; returns the best matches first.

        Args:
            text: The words to search for, as in `PostgresVectorStore.query`. Each chat is searched by its own
                `text_config`.
            top_k: The number of messages to return.
            subject: Search only chats of this subject.
            roles: Search only messages with one of these roles.
            status: "active" or "archived" searches only these messages; by default both.

        Raises:
            InvalidInput: An argument is malformed.
        """
        sought = looked_for(text, top_k, subject, None, roles, status)
        return lambda gate: chat_verbs.search(gate, self._scope(gate), sought)

    search_chats, asearch_chats = twins(_search_chats)

    def runs(self, *, ttl: timedelta | None = None, max_state_bytes: int = 1_000_000) -> PostgresRuns:
        """The store of the tenant's runs, their events and their evidence.

        `ttl` is how long a run lives after its last write; by default forever. `max_state_bytes` limits a state, and an
        event's data, as JSON; larger ones are refused.
        """
        return PostgresRuns(self._backend, self.tenant_id, ttl=ttl, max_state_bytes=max_state_bytes)

    def _erase_subject(self, subject: str, *, actor: str, reason: str | None = None) -> Work[ErasureReport]:
        """Delete everything that is held about a subject, and leave a tombstone that refuses later writers.

        The report counts, by table, what was deleted, what remains, and rows that name no subject. The trail keeps ids
        and salted hashes only, and `reason`; rewriting it needs the maintenance login. Then the hooks of
        `Database.on_erase` are called. Raises: ConfigurationError, before anything is erased; InvalidInput.
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
        """Allow writes about an erased subject again; returns True if it had been erased."""
        name = check_text(subject, "subject", MAX_IDENTITY_BYTES)
        by, why = actor_name(actor), reason_text(reason)
        return lambda gate: erasure.reopen_subject(gate, self._scope(gate), name, by, why)

    reopen_subject, areopen_subject = twins(_reopen_subject)

    def export_subject(self, subject: str) -> Iterator[str]:
        """What is held about a subject, as JSON lines: a header, then ``{"table": …, "row": {…}}`` for each row.

        It includes all versions of facts, forgotten and expired ones that were not swept yet, their vectors, and the
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
