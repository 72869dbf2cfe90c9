"""`PGRecallStore`: LangGraph's long-term memory, on the facts of one tenant."""

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

from langchain_pgrecall.handles import OnDatabase
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
)
from pgrecall.providers import space_of
from pgrecall.steps import Steps, call, faces

#: The kind of fact that an item is; `pgrecall import langgraph-store` writes the same.
KIND = "item"

SubjectOf = Callable[[tuple[str, ...]], str | None]


class PGRecallStore(OnDatabase, BaseStore):
    """LangGraph's `BaseStore` on one tenant's facts, synchronous and asynchronous.

    Expired items are never returned, whether they were swept or not.

    Args:
        connection: A `pgrecall.Database`, a URL, a SQLAlchemy engine, or a pair of a synchronous and an asynchronous
            one. By default `PGRECALL_URL`, otherwise the embedded Postgres.
        tenant: The tenant that owns the items.
        index: Embeds items for search by meaning: `embed`, an embeddings object or function, `dims`, and `fields`.
            Without it, the default, searches ignore their query.
        space: The space of a model whose class `pgrecall.providers` does not know.
        ttl: Default lifetimes, in minutes. By default items live forever.
        subject_of: A function from a namespace to the person whom its items are about, so that `erase_subject` finds
            them. The subject is part of an item's identity: keep the function the same. By default items have none.
        on_delete: "erase", the default, deletes an item for good; with "forget" it can be restored within the memory's
            grace period. A put of None deletes too.
        actor: The name of the writer in the memory's trail; by default "langgraph".
        keep_versions: How many old values of an item to keep as history; by default 1, None keeps all.

    Raises:
        ConfigurationError: `index` or `ttl` has unknown keys, or the model's space is unknown or contradicts `index`.
        InvalidInput: `on_delete` is neither of the two.
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
                raise ConfigurationError(
                    f"index['dims'] is {index['dims']!r:.20}, but the model's space is {resolved}; pass only one"
                )
        self._connect(connection)
        self._subject_of = subject_of
        self._on_delete = on_delete
        self._memory = self._database.tenant(tenant).memory(
            actor=actor, space=resolved, embed=embed, keep_versions=keep_versions
        )

    def sweep_ttl(self) -> int:
        """Delete everything that expired, of all tenants; returns the number of rows. Needs the maintenance login.

        Reads never return expired items, swept or not. `Database.sweep` does the same.
        """
        return sum(self._database.sweep().purged.values())

    def _batch(self, ops: Iterable[Op]) -> Steps[list[Result]]:
        """Execute operations and return their results in order. Puts are all or nothing.

        Reads of a batch see the state before its writes. Of two writes of one item the last counts.

        Raises: InvalidNamespaceError for a namespace that LangGraph does not allow, FilterError, InvalidInput.
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
        """Return the batch's writes, the last of each item. Raises before anything is read or written."""
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
            "top_k": op.limit,
            "offset": op.offset,
            "refresh": op.refresh_ttl,
        }
        if op.query and self._embeddings is not None:
            vector = yield call(self._embeddings, "embed_query", op.query)
            found = yield call(self._memory, "search_facts", vector=vector, mode="dense", **conditions)
        else:  # without an index LangGraph ignores the query
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
        raise ConfigurationError(f"index['fields'] is the string {fields!r:.60}; expected a list of fields")
    return ensure_embeddings(index.get("embed")), list(fields)


def _refuse_unknown(name: str, given: Mapping[str, object] | None, keys: tuple[str, ...]) -> None:
    # LangGraph's configurations are dicts, so a misspelt key would go unnoticed.
    for key in given or ():
        if key not in keys:
            raise ConfigurationError(f"{name} has the unknown key {key!r:.60}; expected one of {', '.join(keys)}")


def _parts(fact: StoredFact) -> dict[str, Any]:
    return {
        "namespace": fact.namespace,
        "key": fact.key,
        "value": fact.value,
        "created_at": fact.created_at,
        "updated_at": fact.valid_from,
    }
