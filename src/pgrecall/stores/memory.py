"""The memory store: one tenant's facts, and the trail of what was done to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, get_args

from pgrecall import wire
from pgrecall.errors import ConfigurationError, FilterError, InvalidInput
from pgrecall.facts import Action, Event, Fact, FactKey, Mode, Order, StoredFact, Ttl
from pgrecall.filters import Filter
from pgrecall.operations import facts as fact_ops
from pgrecall.operations import recall
from pgrecall.operations.chunks import whole_number
from pgrecall.operations.embedding import Embed, ModelInUse
from pgrecall.operations.fact_packing import (
    actor_name,
    labels,
    moment,
    pack,
    reason_text,
    seconds,
    whole_key,
)
from pgrecall.operations.facts import Memory, Named
from pgrecall.operations.packing import several
from pgrecall.operations.recall import Search
from pgrecall.statements.recall import Facts, filter_values
from pgrecall.stores.twins import R, Work, twins
from pgrecall.tenancy import Gate
from pgrecall.types import MAX_ID_BYTES, MAX_NAME_BYTES, EmbedModel, EmbedSpace, Vector, check_text

if TYPE_CHECKING:
    from pgrecall.protocols import MemoryStore
    from pgrecall.stores.database import Database


class PostgresMemoryStore:
    """Facts of one tenant, bound to it for life: made by ``db.tenant(…).memory(actor=…)``.

    Every method has an asynchronous twin with an `a` before its name. Readers see what is live: neither superseded
    nor forgotten nor expired. Each change writes its event in the same transaction. Safe to share between threads,
    event loops and forked processes.
    """

    def __init__(
        self,
        database: Database,
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
        if space is not None and not isinstance(space, EmbedSpace | EmbedModel):
            raise ConfigurationError(f"space is {type(space).__name__}; expected pgrecall.EmbedSpace or EmbedModel")
        if not isinstance(grace, timedelta) or grace < timedelta(0):
            raise InvalidInput(f"grace is {grace!r:.60}; expected a timedelta, such as timedelta(days=30)")
        if text_config is not None:
            check_text(text_config, "text_config", MAX_NAME_BYTES)
        self._database = database
        self._tenant = tenant
        self._actor = actor_name(actor)
        self._model = ModelInUse(space, embed)
        self._default_ttl = {k: seconds(t, f"default_ttl of {k!r}") or 0.0 for k, t in (default_ttl or {}).items()}
        self._keep_versions = None if keep_versions is None else whole_number(keep_versions, "keep_versions", 1)
        self._grace = grace
        self._text_config = text_config

    @property
    def tenant_id(self) -> str:
        """The tenant that the store is bound to."""
        return self._tenant

    @property
    def actor(self) -> str:
        """Who acts, as the trail names it."""
        return self._actor

    def __repr__(self) -> str:
        return f"<PostgresMemoryStore tenant={self.tenant_id!r} actor={self.actor!r} space={self._model.given}>"

    def _run(self, work: Work[R]) -> R:
        return self._database._run(work)

    async def _arun(self, work: Work[R]) -> R:
        return await self._database._arun(work)

    def _memory(self, gate: Gate) -> Memory:
        database = self._database
        return Memory(
            database._scope(gate, self.tenant_id),
            self._actor,
            self._model,
            database._probed(gate).halfvec_oid,
            create_tenants=not database.require_known_tenants,
            text_config=self._text_config,
            keep_versions=self._keep_versions,
            grace=self._grace,
        )

    # Putting

    def _put_fact(self, fact: Fact, *, reason: str | None = None) -> Work[StoredFact]:
        """Remember a fact; the live one of the same (namespace, subject, kind, key) is superseded and kept as history.

        Its texts are embedded where the store has a function and no vector came. Returns it as stored.
        Raises: InvalidInput, InvalidEmbedding, EmbedSpaceMismatch, SubjectErased, TenantErased, UnknownTenant,
        Conflict.
        """
        packed, why = pack([fact], self._default_ttl), reason_text(reason)
        return lambda gate: fact_ops.put(gate, self._memory(gate), packed, why)[0]

    put_fact, aput_fact = twins(_put_fact)

    def _put_facts(self, facts: Iterable[Fact], *, reason: str | None = None) -> Work[list[StoredFact]]:
        """Remember facts, all or none, in one transaction; of two with one identity the last wins.

        Returns them as stored, one for each identity. Raises as `put_fact`.
        """
        several(facts, "Fact")
        packed, why = pack(facts, self._default_ttl), reason_text(reason)
        return lambda gate: fact_ops.put(gate, self._memory(gate), packed, why)

    put_facts, aput_facts = twins(_put_facts)

    # Reading

    def _get(self, fact_id: str, *, refresh: bool | None = None) -> Work[StoredFact | None]:
        """A fact by id, also one that was superseded (`valid_to`); None where it expired or was forgotten.

        `refresh` says whether its ttl starts anew; None leaves it to the fact's `refresh_on_read`.
        """
        check_text(fact_id, "fact_id", MAX_ID_BYTES)
        return lambda gate: recall.get(gate, self._memory(gate), fact_id, refresh=refresh)

    get, aget = twins(_get)

    def _get_facts(
        self, keys: Sequence[FactKey], *, refresh: bool | Sequence[bool] | None = None
    ) -> Work[list[StoredFact | None]]:
        """The live facts of (subject, kind, key, namespace) identities, in their order; None where there is none.

        `refresh` as for `get`, for all or one for each.
        """
        whole = [whole_key(*key) for key in keys]
        if isinstance(refresh, Sequence) and len(refresh) != len(whole):
            raise InvalidInput(f"refresh has {len(refresh)} entries for {len(whole)} keys; give one for each, or one")
        return lambda gate: recall.get_many(gate, self._memory(gate), whole, refresh=refresh)

    get_facts, aget_facts = twins(_get_facts)

    def _search_facts(
        self,
        *,
        subject: str | None = None,
        kind: str | Sequence[str] | None = None,
        key: str | None = None,
        filters: Filter | None = None,
        query_vector: Vector | None = None,
        as_of: datetime | None = None,
        limit: int = 10,
        text: str | None = None,
        mode: Mode | None = None,
        namespace: Sequence[str] = (),
        order_by: Order | None = None,
        offset: int = 0,
        refresh: bool | None = None,
    ) -> Work[list[StoredFact]]:
        """Facts that match every condition: of one subject, kind (or several), key, below a namespace, by value.

        `text` finds words in the facts' texts, `query_vector` those whose best field is nearest, both together by
        reciprocal rank; where the store has an embedding function, `text` alone means both. `mode` ("text", "vector",
        "hybrid") says it outright. `filters` look at the value. `as_of`, a time with its zone, answers as of then, of
        what has not been forgotten or expired since, and not by vector: superseded versions have none. `order_by`
        ("relevance", "recency", "confidence") is by relevance where there is something to be relevant to. `limit` and
        `offset` choose by relevance first. Raises: InvalidInput, FilterError, EmbedSpaceMismatch, InvalidEmbedding.
        """
        if as_of is not None and (query_vector is not None or mode in ("vector", "hybrid")):
            raise InvalidInput(
                "as_of goes with words, not with vectors: superseded versions have none; use mode='text'"
            )
        _one_of(mode, Mode, "mode")
        _one_of(order_by, Order, "order_by")
        if text is not None and not isinstance(text, str):
            raise InvalidInput(f"text is {type(text).__name__}; expected a string")
        if mode is not None and (text is None if mode != "vector" else text is None and query_vector is None):
            raise InvalidInput(f"mode is {mode!r}, and there is nothing to search by; give text= (or query_vector=)")
        if filters is not None and not isinstance(filters, Filter):
            raise FilterError(f"filters is {type(filters).__name__}; expected a filter such as F.lang == 'de'")
        kinds = [kind] if isinstance(kind, str) else kind
        path = labels(namespace, "namespace")
        which = Facts.of(
            filters,
            by_subject=subject is not None,
            by_kinds=kinds is not None,
            by_key=key is not None,
            by_namespace=bool(path),
            as_of=as_of is not None,
        )
        values: dict[str, Any] = filter_values(which)
        if subject is not None:
            values["subject"] = check_text(subject, "subject", MAX_NAME_BYTES * 10)
        if kinds is not None:
            values["kinds"] = wire.text_array([check_text(k, "kind", MAX_NAME_BYTES * 10) for k in kinds])
        if key is not None:
            values["key"] = check_text(key, "key", MAX_NAME_BYTES * 10)
        if as_of is not None:
            values["as_of"] = moment(as_of, "as_of")
        if path:
            values |= {"prefix": list(path), "beyond": [*path[:-1], path[-1] + "\x01"]}
        asked = Search(
            which,
            values,
            text,
            None if mode == "text" else query_vector,
            mode,
            order_by or "relevance",
            whole_number(limit, "limit", 0),
            whole_number(offset, "offset", 0),
            refresh,
        )
        return lambda gate: recall.search(gate, self._memory(gate), asked)

    search_facts, asearch_facts = twins(_search_facts)

    def _history(
        self,
        fact_id: str | None = None,
        *,
        key: str | None = None,
        kind: str | None = None,
        subject: str | None = None,
        namespace: Sequence[str] | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> Work[list[StoredFact]]:
        """Every version of one fact, newest first, by the id of any of them or by its key; [] where there is none.

        Raises InvalidInput where a bare key names several facts, and lists them.
        """
        meant = _named(fact_id, key, kind, subject, namespace)
        page = {"limit": whole_number(limit, "limit", 0), "offset": whole_number(offset, "offset", 0)}
        return lambda gate: recall.history(gate, self._memory(gate), meant, **page)

    history, ahistory = twins(_history)

    def _list_namespaces(
        self,
        *,
        prefixes: Sequence[Sequence[str]] = (),
        suffixes: Sequence[Sequence[str]] = (),
        max_depth: int | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> Work[list[tuple[str, ...]]]:
        """The namespaces of live facts that begin with each of `prefixes` and end with each of `suffixes`, sorted.

        A label ``*`` in either stands for any one label. Cut to their first `max_depth` labels.
        """
        begin = [labels(path, "one of prefixes") for path in prefixes]
        end = [labels(path, "one of suffixes") for path in suffixes]
        depth = None if max_depth is None else min(whole_number(max_depth, "max_depth", 1), 1_000)
        page = {"limit": whole_number(limit, "limit", 0), "offset": whole_number(offset, "offset", 0)}
        return lambda gate: recall.namespaces(gate, self._memory(gate), begin, end, depth=depth, **page)

    list_namespaces, alist_namespaces = twins(_list_namespaces)

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
        """Forget a fact, by the id of any version or by its key: gone from every read at once, with its history.

        It can be restored until the store's grace time (30 days) is over; then a sweep purges it. Returns how many
        were forgotten, 0 or 1. Raises InvalidInput where a bare key names several facts, and lists them.
        """
        meant, why = _named(fact_id, key, kind, subject, namespace), reason_text(reason)
        return lambda gate: fact_ops.forget(gate, self._memory(gate), meant, why)

    delete, adelete = twins(_delete)

    def _delete_facts(self, keys: Sequence[FactKey], *, reason: str | None = None) -> Work[int]:
        """Forget the facts of (subject, kind, key, namespace) identities, all or none; returns how many there were."""
        whole, why = list(dict.fromkeys(whole_key(*key) for key in keys)), reason_text(reason)
        return lambda gate: fact_ops.forget(gate, self._memory(gate), whole, why)

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
        """Bring a forgotten fact back as it was, with its history and vectors; returns it.

        Raises: NotFound where nothing such was forgotten, or its grace time is over; InvalidInput where a newer
        version stands in its place, or a bare key names several.
        """
        meant, why = _named(fact_id, key, kind, subject, namespace), reason_text(reason)

        def work(gate: Gate) -> StoredFact:
            memory = self._memory(gate)
            found = recall.get(gate, memory, fact_ops.restore(gate, memory, meant, why), refresh=False)
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
        """Delete a fact for good: value, all versions, forgotten ones too, and vectors; returns how many versions.

        Only the trail still has its ids. Raises InvalidInput where a bare key names several facts.
        """
        meant, why = _named(fact_id, key, kind, subject, namespace), reason_text(reason)
        return lambda gate: fact_ops.erase(gate, self._memory(gate), meant, why)

    erase, aerase = twins(_erase)

    # The trail

    def _events(
        self,
        *,
        subject: str | None = None,
        target_id: str | None = None,
        action: Action | Sequence[Action] | None = None,
        actor: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        after: str = "",
        limit: int = 100,
        offset: int = 0,
    ) -> Work[list[Event]]:
        """Entries of the trail that match every condition, oldest first: from `since` on, before `until`.

        `after`, the id of the last entry that was read, continues there.
        """
        actions = [action] if isinstance(action, str) else action
        if unknown := set(actions or ()) - set(get_args(Action)):
            raise InvalidInput(f"action is {min(unknown)!r}; expected one of {', '.join(get_args(Action))}")
        for name, bound in (("since", since), ("until", until)):
            if bound is not None:
                moment(bound, name)
        values = {
            "subject": subject,
            "target_id": target_id,
            "actions": None if actions is None else list(actions),
            "by": actor,
            "since": since,
            "until": until,
            "after": after,
            "limit": whole_number(limit, "limit", 0),
            "offset": whole_number(offset, "offset", 0),
        }
        return lambda gate: recall.events(gate, self._memory(gate), values)

    events, aevents = twins(_events)


def _one_of(value: object, kind: Any, what: str) -> None:
    if value is not None and value not in get_args(kind):
        raise InvalidInput(f"{what} is {value!r:.60}; expected one of {', '.join(get_args(kind))}")


def _named(
    fact_id: str | None,
    key: str | None,
    kind: str | None,
    subject: str | None,
    namespace: Sequence[str] | None,
) -> Named:
    if (fact_id is None) == (key is None):
        raise InvalidInput(
            "say which fact: by id, or by key= (with subject=, kind= and namespace= where it is not alone)"
        )
    if fact_id is not None and not (kind is subject is namespace is None):
        raise InvalidInput("an id names one fact by itself; subject=, kind= and namespace= go with key=")
    parts = {"fact_id": fact_id, "key": key, "kind": kind, "subject": subject}
    checked = {name: None if value is None else check_text(value, name, 2_000) for name, value in parts.items()}
    return Named(**checked, namespace=None if namespace is None else labels(namespace, "namespace"))


if TYPE_CHECKING:
    _: type[MemoryStore] = PostgresMemoryStore
