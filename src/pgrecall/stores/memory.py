"""The memory store: the facts of one tenant, and the trail of what was done to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from pgrecall.arguments import MAX_NAME_BYTES, actor_name, check_text, instance, reason_text, several, whole_number
from pgrecall.errors import ConfigurationError, InvalidInput
from pgrecall.facts import Fact, FactKey, StoredFact, Ttl
from pgrecall.operations.memory import forget
from pgrecall.operations.memory import put as fact_writes
from pgrecall.operations.memory import read as fact_reads
from pgrecall.operations.memory.packing import pack, ttl_seconds, whole_key
from pgrecall.operations.memory.put import Memory
from pgrecall.operations.models.embedding import Embed, ModelInUse
from pgrecall.postgres.transactions import Gate
from pgrecall.stores.backend import Backend, TenantBound
from pgrecall.stores.memory_reads import MemoryReads, named
from pgrecall.stores.twins import Work, twins
from pgrecall.types import EmbedModel, EmbedSpace

if TYPE_CHECKING:
    from pgrecall.protocols import MemoryStore


class PostgresMemoryStore(MemoryReads, TenantBound):
    """Facts of one tenant, bound to it for life; made by ``db.tenant(…).memory(actor=…)``.

    Reads return live facts: those that are neither superseded nor forgotten nor expired. Every change writes its event
    to the trail in the same transaction. Every method has an asynchronous twin with an `a` before its name. Safe to
    share between threads, event loops and forked processes.
    """

    def __init__(
        self,
        backend: Backend,
        tenant: str,
        *,
        actor: str,
        space: EmbedSpace | EmbedModel | None = None,
        embed: Embed | None = None,
        default_ttl: Mapping[str, Ttl] | None = None,
        keep_versions: int | None = None,
        grace: timedelta = timedelta(days=30),
        text_config: str | None = None,
    ) -> None:
        if space is not None:
            instance(space, (EmbedSpace, EmbedModel), "space", ConfigurationError)
        if not isinstance(grace, timedelta) or grace < timedelta(0):
            raise InvalidInput(f"grace is {grace!r:.60}; expected a timedelta, such as timedelta(days=30)")
        if text_config is not None:
            check_text(text_config, "text_config", MAX_NAME_BYTES)
        super().__init__(backend, tenant)
        self._actor = actor_name(actor)
        self._model = ModelInUse(space, embed)
        self._default_ttl = {k: ttl_seconds(t, f"default_ttl of {k!r}") or 0.0 for k, t in (default_ttl or {}).items()}
        self._keep_versions = None if keep_versions is None else whole_number(keep_versions, "keep_versions", 1)
        self._grace = grace
        self._text_config = text_config

    @property
    def actor(self) -> str:
        """Who acts, as the trail names it."""
        return self._actor

    def __repr__(self) -> str:
        return f"<PostgresMemoryStore tenant={self.tenant_id!r} actor={self.actor!r} space={self._model.given}>"

    def _memory(self, gate: Gate) -> Memory:
        return Memory(
            self._scope(gate),
            self._actor,
            self._model,
            self._backend.server(gate).halfvec_oid,
            create_tenants=self._create_tenants,
            text_config=self._text_config,
            keep_versions=self._keep_versions,
            grace=self._grace,
        )

    # Putting

    def _put_fact(self, fact: Fact, *, reason: str | None = None) -> Work[StoredFact]:
        """Store a fact. The live fact of the same (namespace, subject, kind, key) is superseded and kept as history.

        If the store has an embedding function and the fact has no vector, its texts are embedded. Returns the fact as
        stored. Raises: InvalidInput, InvalidEmbedding, EmbedSpaceMismatch, SubjectErased, TenantErased, UnknownTenant,
        Conflict.
        """
        packed, why = pack([fact], self._default_ttl), reason_text(reason)
        return lambda gate: fact_writes.put(gate, self._memory(gate), packed, why)[0]

    put_fact, aput_fact = twins(_put_fact)

    def _put_facts(self, facts: Iterable[Fact], *, reason: str | None = None) -> Work[list[StoredFact]]:
        """Store facts in one transaction: all of them or none. If an identity occurs twice, the last fact wins.

        Returns them as stored, one per identity. Raises as `put_fact`.
        """
        several(facts, "Fact")
        packed, why = pack(facts, self._default_ttl), reason_text(reason)
        return lambda gate: fact_writes.put(gate, self._memory(gate), packed, why)

    put_facts, aput_facts = twins(_put_facts)

    # Forgetting, restoring, erasing

    def _delete(
        self,
        fact_id: str | None = None,
        *,
        key: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
        namespace: Sequence[str] | None = None,
        reason: str | None = None,
    ) -> Work[int]:
        """Forget a fact: it disappears from every read at once, with its history.

        It can be restored until the store's grace time is over (30 days by default); then a sweep purges it.

        Args:
            fact_id: The id of any version of the fact.
            key: The fact's key, instead of an id.
            kind: With `key`: the fact's kind, if the key alone is ambiguous.
            subject: With `key`: the fact's subject, if the key alone is ambiguous.
            namespace: With `key`: the fact's namespace, if the key alone is ambiguous.
            reason: Why, as the trail keeps it.

        Returns:
            The number of facts forgotten, 0 or 1.

        Raises:
            InvalidInput: An argument is malformed, or the key matches several facts; the error lists them.
        """
        meant, why = named(fact_id, key, kind, subject, namespace), reason_text(reason)
        return lambda gate: forget.forget(gate, self._memory(gate), meant, why)

    delete, adelete = twins(_delete)

    def _delete_facts(self, keys: Sequence[FactKey], *, reason: str | None = None) -> Work[int]:
        """Forget the facts of several (subject, kind, key, namespace) identities: all or none. Returns how many there
        were.
        """
        whole, why = list(dict.fromkeys(whole_key(*key) for key in keys)), reason_text(reason)
        return lambda gate: forget.forget(gate, self._memory(gate), whole, why)

    delete_facts, adelete_facts = twins(_delete_facts)

    def _restore(
        self,
        fact_id: str | None = None,
        *,
        key: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
        namespace: Sequence[str] | None = None,
        reason: str | None = None,
    ) -> Work[StoredFact]:
        """Restore a forgotten fact, with its history and vectors.

        Args:
            fact_id: The id of any version of the fact.
            key: The fact's key, instead of an id.
            kind: With `key`: the fact's kind, if the key alone is ambiguous.
            subject: With `key`: the fact's subject, if the key alone is ambiguous.
            namespace: With `key`: the fact's namespace, if the key alone is ambiguous.
            reason: Why, as the trail keeps it.

        Returns:
            The fact.

        Raises:
            NotFound: No such fact is forgotten, or its grace time is over.
            InvalidInput: A newer version has taken its place, it has expired, or the key matches several facts.
        """
        meant, why = named(fact_id, key, kind, subject, namespace), reason_text(reason)

        def work(gate: Gate) -> StoredFact:
            memory = self._memory(gate)
            found = fact_reads.get(gate, memory, forget.restore(gate, memory, meant, why), refresh=False)
            if found is None:  # expired meanwhile: it is back, and no reader sees it
                raise InvalidInput("the fact has expired since it was forgotten; put it again")
            return found

        return work

    restore, arestore = twins(_restore)

    def _erase(
        self,
        fact_id: str | None = None,
        *,
        key: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
        namespace: Sequence[str] | None = None,
        reason: str | None = None,
    ) -> Work[int]:
        """Delete a fact for good: its value, all versions, forgotten ones too, and vectors. Only the trail keeps its
        ids.

        Args:
            fact_id: The id of any version of the fact.
            key: The fact's key, instead of an id.
            kind: With `key`: the fact's kind, if the key alone is ambiguous.
            subject: With `key`: the fact's subject, if the key alone is ambiguous.
            namespace: With `key`: the fact's namespace, if the key alone is ambiguous.
            reason: Why, as the trail keeps it.

        Returns:
            The number of versions deleted.

        Raises:
            InvalidInput: An argument is malformed, or the key matches several facts; the error lists them.
        """
        meant, why = named(fact_id, key, kind, subject, namespace), reason_text(reason)
        return lambda gate: forget.erase(gate, self._memory(gate), meant, why)

    erase, aerase = twins(_erase)


if TYPE_CHECKING:
    _: type[MemoryStore] = PostgresMemoryStore
