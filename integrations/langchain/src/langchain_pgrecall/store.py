"""`PGRecallStore`: LangGraph's long-term memory on the facts of one tenant."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from langchain_core.embeddings import Embeddings
from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    ensure_embeddings,
    get_text_at_path,
)

from langchain_pgrecall.items import check_namespace, to_filter
from langchain_pgrecall.spaces import embedder
from pgrecall import (
    ConfigurationError,
    DatabaseLike,
    EmbedModel,
    EmbedSpace,
    Fact,
    FactKey,
    InvalidInput,
    StoredFact,
    as_database,
)
from pgrecall.providers import space_of
from pgrecall.steps import Steps, call, faces

#: The kind of fact that an item is; `pgrecall import langgraph-store` writes the same.
KIND = "item"

SubjectOf = Callable[[tuple[str, ...]], str | None]


class PGRecallStore(BaseStore):
    """LangGraph's store on one tenant's facts; every operation also asynchronous, on the same object.

    `connection` as for `PGRecallVectorStore`. `index` embeds items for search by meaning (`embed`, `dims`, `fields`);
    `space` says which model that is, where the object's class does not tell. `ttl` gives defaults in minutes. Expired
    items are never returned, swept or not.

    `subject_of` maps a namespace to the person whom its items are about, so that `erase_subject` finds them; keep it
    the same, an item is known by it too. `delete` (and a put of None) erases an item for good; with
    `on_delete="forget"` it can be restored within the memory's grace time. `actor` is who acts, as the memory's trail
    names it. Of an item that is overwritten the last `keep_versions` are kept as history (None: all).

    In a batch reads see what was there before its writes; of two writes of one item the last counts.
    """

    supports_ttl = True

    def __init__(
        self,
        *,
        connection: DatabaseLike = None,
        tenant: str,
        index: IndexConfig | None = None,
        space: EmbedSpace | EmbedModel | None = None,
        ttl: TTLConfig | None = None,
        subject_of: SubjectOf | None = None,
        on_delete: Literal["erase", "forget"] = "erase",
        actor: str = "langgraph",
        keep_versions: int | None = 1,
    ) -> None:
        if on_delete not in ("erase", "forget"):
            raise InvalidInput(f"on_delete is {on_delete!r:.60}; expected 'erase' or 'forget'")
        _refuse_unknown("ttl", ttl, ("default_ttl", "refresh_on_read", "sweep_interval_minutes"))
        self.ttl_config = ttl
        self._embeddings, self._fields = _indexing(index)
        embed, resolved = None, None
        if index is not None and self._embeddings is not None:
            embed = embedder(self._embeddings)
            resolved = space_of(self._embeddings, space)
            if isinstance(resolved, EmbedModel):
                resolved = resolved.space(index["dims"])
            elif resolved.dim != index.get("dims", resolved.dim):
                raise ConfigurationError(f"index says {index['dims']!r:.20} dims, but the model's space is {resolved}")
        database = as_database(connection)
        self._owned = database if database is not connection else None
        self._database = database
        self._subject_of = subject_of
        self._on_delete = on_delete
        self._memory = database.tenant(tenant).memory(
            actor=actor, space=resolved, embed=embed, keep_versions=keep_versions
        )

    def close(self) -> None:
        """Close the connections, unless they are those of a database that was given."""
        if self._owned is not None:
            self._owned.close()

    def sweep_ttl(self) -> int:
        """Delete what expired, of all tenants, and return how many rows; needs the maintenance login.

        Reads never return expired items anyway; any job may sweep, at any time (`Database.sweep`).
        """
        return sum(self._database.sweep().purged.values())

    def _batch(self, ops: Iterable[Op]) -> Steps[list[Result]]:
        """Carry out operations; the results in their order. Puts are all or nothing.

        Raises: InvalidNamespaceError for a label that is empty, has a dot, or begins with "langgraph"; InvalidInput.
        """
        asked = list(ops)
        results: list[Result] = [None] * len(asked)
        writes = self._checked(asked)
        gets = [(at, op) for at, op in enumerate(asked) if isinstance(op, GetOp)]
        if gets:
            keys, refresh = [self._key(op.namespace, op.key) for _, op in gets], [op.refresh_ttl for _, op in gets]
            found = yield call(self._memory, "get_facts", keys, refresh=refresh)
            for (at, _), fact in zip(gets, found, strict=True):
                results[at] = None if fact is None else Item(**_parts(fact))
        for at, op in enumerate(asked):
            if isinstance(op, SearchOp):
                results[at] = yield from self._searched(op)
            elif isinstance(op, ListNamespacesOp):
                results[at] = yield from self._namespaces(op)
        yield from self._written(writes)
        return results

    batch, abatch = faces(_batch)

    def _checked(self, ops: list[Op]) -> dict[FactKey, PutOp]:
        """The batch's writes, the last for each item. Raises before anything is read or written."""
        writes: dict[FactKey, PutOp] = {}
        for op in ops:
            if isinstance(op, PutOp):
                check_namespace(op.namespace)
                if op.value is not None and not isinstance(op.value, Mapping):
                    raise InvalidInput(f"the value of {op.key!r:.60} is {type(op.value).__name__}; expected a dict")
                if isinstance(op.index, str):
                    raise InvalidInput(f"index is {op.index!r:.60}; expected a list of fields, or False")
                key = self._key(op.namespace, op.key)
                writes.pop(key, None)
                writes[key] = op
            elif not isinstance(op, GetOp | SearchOp | ListNamespacesOp):
                raise InvalidInput(f"found {type(op).__name__} among the operations; expected a langgraph Op")
        return writes

    def _key(self, namespace: tuple[str, ...], key: str) -> FactKey:
        subject = None if self._subject_of is None else self._subject_of(tuple(namespace))
        return FactKey(subject, KIND, str(key), tuple(namespace))

    def _written(self, writes: Mapping[FactKey, PutOp]) -> Steps[None]:
        facts = [self._fact(key, op) for key, op in writes.items() if op.value is not None]
        if facts:
            yield call(self._memory, "put_facts", facts)
        gone = [key for key, op in writes.items() if op.value is None]
        if gone and self._on_delete == "forget":
            yield call(self._memory, "delete_facts", gone)
        elif gone:
            for subject, kind, key, namespace in gone:
                named = {"key": key, "kind": kind, "subject": subject, "namespace": namespace}
                yield call(self._memory, "erase", **named)

    def _fact(self, key: FactKey, op: PutOp) -> Fact:
        assert op.value is not None
        value = dict(op.value)
        fields = self._fields if op.index is None else (op.index or [])
        texts: dict[str, str] = {}
        if self._embeddings is not None:
            for field in fields:
                found = get_text_at_path(value, field)
                texts |= {field if len(found) == 1 else f"{field}.{n}": text for n, text in enumerate(found)}
        return Fact(
            *key[:3],
            value,
            namespace=key.namespace,
            ttl=None if op.ttl is None else op.ttl * 60,
            refresh_on_read=True,
            embed_texts={name: text for name, text in texts.items() if text.strip()},
        )

    def _searched(self, op: SearchOp) -> Steps[list[SearchItem]]:
        conditions = {
            "namespace": op.namespace_prefix,
            "kind": KIND,
            "filters": to_filter(op.filter),
            "limit": op.limit,
            "offset": op.offset,
            "refresh": op.refresh_ttl,
        }
        if op.query and self._embeddings is not None:
            vector = yield call(self._embeddings, "embed_query", op.query)
            found = yield call(self._memory, "search_facts", query_vector=vector, mode="vector", **conditions)
        else:  # without an index a query says nothing, as LangGraph has it
            found = yield call(self._memory, "search_facts", order_by="recency", **conditions)
        return [SearchItem(**_parts(fact), score=fact.score) for fact in found]

    def _namespaces(self, op: ListNamespacesOp) -> Steps[list[tuple[str, ...]]]:
        paths: dict[str, list[tuple[str, ...]]] = {"prefix": [], "suffix": []}
        for condition in op.match_conditions or ():
            if condition.match_type not in paths:
                raise InvalidInput(f"match_type is {condition.match_type!r:.60}; expected 'prefix' or 'suffix'")
            paths[condition.match_type].append(tuple(condition.path))
        page = {"max_depth": op.max_depth, "limit": op.limit, "offset": op.offset}
        found: list[tuple[str, ...]] = yield call(
            self._memory, "list_namespaces", prefixes=paths["prefix"], suffixes=paths["suffix"], **page
        )
        return found


def _indexing(index: IndexConfig | None) -> tuple[Embeddings | None, list[str]]:
    _refuse_unknown("index", index, ("dims", "embed", "fields"))
    if index is None or index.get("embed") is None:
        return None, []
    fields = index.get("fields") or ["$"]
    if isinstance(fields, str):
        raise ConfigurationError(f"index has the fields {fields!r:.60}; expected a list of fields")
    return ensure_embeddings(index.get("embed")), list(fields)


def _refuse_unknown(name: str, given: Mapping[str, object] | None, keys: tuple[str, ...]) -> None:
    # A configuration is a dict to Python: nobody else would say that nothing acts on a key.
    for key in given or ():
        if key not in keys:
            raise ConfigurationError(f"{name} does not know {key!r:.60}; expected {', '.join(keys)}")


def _parts(fact: StoredFact) -> dict[str, Any]:
    return {
        "namespace": fact.namespace,
        "key": fact.key,
        "value": fact.value,
        "created_at": fact.created_at,
        "updated_at": fact.valid_from,
    }
