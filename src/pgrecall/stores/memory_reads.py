"""The reads of the memory store: facts, their history, and the trail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args

from pgrecall.arguments import MAX_ID_BYTES, MAX_NAME_BYTES, check_text, labels, moment, one_of, whole_number
from pgrecall.errors import FilterError, InvalidInput
from pgrecall.facts import Action, FactKey, MemoryEvent, Order, StoredFact
from pgrecall.filters import Filter
from pgrecall.hits import SearchMode
from pgrecall.operations.memory import read as fact_reads
from pgrecall.operations.memory.forget import Named
from pgrecall.operations.memory.packing import whole_key
from pgrecall.operations.memory.put import Memory
from pgrecall.operations.memory.read import FactSearch
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Gate
from pgrecall.statements.fact_reads import Facts, filter_values
from pgrecall.stores.renamed import renamed, renamed_arguments, warn
from pgrecall.stores.twins import Work, twins
from pgrecall.types import Vector

#: Old names of the modes.
_OLD_MODES: Mapping[Any, SearchMode] = {"text": "sparse", "vector": "dense"}


class MemoryReads:
    """The reads of a `PostgresMemoryStore`."""

    if TYPE_CHECKING:  # what the store gives

        def _run(self, work: Work[Any]) -> Any: ...
        async def _arun(self, work: Work[Any]) -> Any: ...
        def _memory(self, gate: Gate) -> Memory: ...

    def _get(self, fact_id: str, *, refresh: bool | None = None) -> Work[StoredFact | None]:
        """A version of a fact by id, superseded ones included; None if it expired or was forgotten.

        `refresh` says whether its lifetime starts again; by default the fact's `refresh_on_read` decides.
        """
        check_text(fact_id, "fact_id", MAX_ID_BYTES)
        return lambda gate: fact_reads.get(gate, self._memory(gate), fact_id, refresh=refresh)

    get, aget = twins(_get)

    def _get_facts(
        self, keys: Sequence[FactKey], *, refresh: bool | Sequence[bool] | None = None
    ) -> Work[list[StoredFact | None]]:
        """The live facts of (subject, kind, key, namespace) identities, in their order; None for an identity without
        one.

        `refresh` is as for `get`: one value for all, or one for each.
        """
        whole = [whole_key(*key) for key in keys]
        if isinstance(refresh, Sequence) and len(refresh) != len(whole):
            raise InvalidInput(f"refresh has {len(refresh)} entries for {len(whole)} keys; give one for each, or one")
        return lambda gate: fact_reads.get_many(gate, self._memory(gate), whole, refresh=refresh)

    get_facts, aget_facts = twins(_get_facts)

    @renamed_arguments(query_vector="vector", limit="top_k")
    def _search_facts(
        self,
        *,
        subject: str | None = None,
        kind: str | Sequence[str] | None = None,
        key: str | None = None,
        filters: Filter | None = None,
        vector: Vector | None = None,
        as_of: datetime | None = None,
        top_k: int = 10,
        text: str | None = None,
        mode: SearchMode | None = None,
        namespace: Sequence[str] = (),
        order_by: Order | None = None,
        offset: int = 0,
        refresh: bool | None = None,
    ) -> Work[list[StoredFact]]:
        """Search the live facts; returns those that match all conditions.

        Args:
            subject: Only facts about this subject. By default of every subject, and those without one.
            kind: Only facts of this kind, or of one of these kinds.
            key: Only facts with this key.
            filters: Only facts whose value matches.
            vector: Rank by distance to this vector; a fact with several vectors counts by its nearest.
            as_of: Answer as of this time, which needs a time zone. Facts that were forgotten or expired since are not
                found, and neither `vector` nor a mode that needs one is possible: superseded versions have no vectors.
            top_k: The number of facts to return.
            text: Rank by the words of this text, as in `PostgresVectorStore.query`. If the store has an embedding
                function, the text is embedded too, and the search is hybrid.
            mode: "dense" ranks by vector, "sparse" by words, "hybrid" by both, fused by reciprocal rank. By default it
                follows from what is given.
            namespace: Only facts in this namespace or below it.
            order_by: The order of the returned facts: "relevance", "recency" (newest first) or "confidence". By default
                "relevance"; without a vector and a text that is the newest first.
            offset: The number of facts to skip. `top_k` and `offset` always select by relevance.
            refresh: Whether the lifetimes of the returned facts start again. By default each fact's `refresh_on_read`
                decides.

        Returns:
            A list of `StoredFact`; `score` is set if the search ranked by relevance.

        Raises:
            InvalidInput: An argument is malformed, or the mode has nothing to search by.
            FilterError: `filters` is malformed.
            EmbedSpaceMismatch: The memory belongs to another model.
            InvalidEmbedding: The vector has the wrong length, or is not finite.
        """
        if mode in _OLD_MODES:
            warn(f"mode={mode!r} of search_facts()", f"mode={_OLD_MODES[mode]!r}", stacklevel=5)
            mode = _OLD_MODES[mode]
        if mode is not None:
            one_of(mode, get_args(SearchMode), "mode")
        if as_of is not None and (vector is not None or mode in ("dense", "hybrid")):
            raise InvalidInput(
                "as_of was given with a vector, or with a mode that needs one, but superseded versions have no "
                "vectors; pass mode='sparse' and no vector"
            )
        if order_by is not None:
            one_of(order_by, get_args(Order), "order_by")
        if text is not None and not isinstance(text, str):
            raise InvalidInput(f"text is {type(text).__name__}; expected a string")
        if mode is not None and (text is None if mode != "dense" else text is None and vector is None):
            needed = "text= or vector=" if mode == "dense" else "text="
            raise InvalidInput(f"mode is {mode!r}, but there is nothing to search by; pass {needed}")
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
        asked = FactSearch(
            which,
            values,
            text,
            None if mode == "sparse" else vector,
            mode,
            order_by or "relevance",
            whole_number(top_k, "top_k", 0),
            whole_number(offset, "offset", 0),
            refresh,
        )
        return lambda gate: fact_reads.search(gate, self._memory(gate), asked)

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
        """All versions of one fact, newest first; an empty list if there is no such fact.

        Args:
            fact_id: The id of any version of the fact.
            key: The fact's key, instead of an id.
            kind: With `key`: the fact's kind, if the key alone is ambiguous.
            subject: With `key`: the fact's subject, if the key alone is ambiguous.
            namespace: With `key`: the fact's namespace, if the key alone is ambiguous.
            limit: The maximum number of versions; by default 100.
            offset: The number of versions to skip; by default 0.

        Returns:
            A list of `StoredFact`.

        Raises:
            InvalidInput: An argument is malformed, or the key matches several facts; the error lists them.
        """
        meant = named(fact_id, key, kind, subject, namespace)
        page = {"limit": whole_number(limit, "limit", 0), "offset": whole_number(offset, "offset", 0)}
        return lambda gate: fact_reads.history(gate, self._memory(gate), meant, **page)

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
        """The namespaces of live facts, sorted.

        Args:
            prefixes: Only namespaces that begin with each of these. The label ``*`` matches any label.
            suffixes: Only namespaces that end with each of these. The label ``*`` matches any label.
            max_depth: Cut namespaces to this number of labels; by default they are whole.
            limit: The maximum number of namespaces; by default 100.
            offset: The number of namespaces to skip; by default 0.

        Returns:
            A list of tuples of labels.

        Raises:
            InvalidInput: An argument is malformed.
        """
        begin = [labels(path, "one of prefixes") for path in prefixes]
        end = [labels(path, "one of suffixes") for path in suffixes]
        depth = None if max_depth is None else min(whole_number(max_depth, "max_depth", 1), 1_000)
        page = {"limit": whole_number(limit, "limit", 0), "offset": whole_number(offset, "offset", 0)}
        return lambda gate: fact_reads.namespaces(gate, self._memory(gate), begin, end, depth=depth, **page)

    list_namespaces, alist_namespaces = twins(_list_namespaces)

    # The trail

    def _list_events(
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
    ) -> Work[list[MemoryEvent]]:
        """Events of the trail that match all conditions, oldest first.

        Args:
            subject: Only events of this subject's facts.
            target_id: Only events of the fact version with this id.
            action: Only events with this action, or one of these.
            actor: Only events by this actor.
            since: Only events at this time or later; it needs a time zone.
            until: Only events before this time.
            after: Continue after the event with this id.
            limit: The maximum number of events; by default 100.
            offset: The number of events to skip; by default 0.

        Returns:
            A list of `MemoryEvent`.

        Raises:
            InvalidInput: An argument is malformed.
        """
        actions = [action] if isinstance(action, str) else action
        for one in actions or ():
            one_of(one, get_args(Action), "action")
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
        return lambda gate: fact_reads.events(gate, self._memory(gate), values)

    list_events, alist_events = twins(_list_events)
    events, aevents = renamed("events", list_events, alist_events)


def named(
    fact_id: str | None,
    key: str | None,
    kind: str | None,
    subject: str | None,
    namespace: Sequence[str] | None,
) -> Named:
    """The fact that a call names. Raises InvalidInput if the call says too little, or too much."""
    if fact_id is None and key is None:
        raise InvalidInput(
            "no fact was named; pass its id, or key= and, if several facts have the key, subject=, kind= or namespace="
        )
    if fact_id is not None and not (key is kind is subject is namespace is None):
        raise InvalidInput(
            "a fact's id was given together with key=, subject=, kind= or namespace=; pass the id alone, or the "
            "others without it"
        )
    parts = {"fact_id": fact_id, "key": key, "kind": kind, "subject": subject}
    checked = {name: None if value is None else check_text(value, name, 2_000) for name, value in parts.items()}
    return Named(**checked, namespace=None if namespace is None else labels(namespace, "namespace"))
