"""Arguments of LangChain's own Postgres stores: what they mean here, or an error that says what to do instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pgrecall import ConfigurationError, InvalidInput

#: The arguments of `PGVectorStore` and `PGVector` that have another name here.
_NAMES: Final = {
    "engine": "connection",
    "table_name": "collection",
    "collection_name": "collection",
    "embedding_service": "embedding",
    "embeddings": "embedding",
    "distance_strategy": "distance",
}
_DISTANCES: Final = {
    "cosine": "cosine",
    "cosine_distance": "cosine",
    "euclidean": "l2",
    "l2": "l2",
    "inner": "ip",
    "inner_product": "ip",
    "max_inner_product": "ip",
}
#: Arguments about the peers' tables, with the values that make no difference here.
_MEANINGLESS: Final[dict[str, tuple[Any, ...]]] = {
    "use_jsonb": (True, None),
    "create_extension": (True, False),
    "async_mode": (True, False),
    "pre_delete_collection": (False,),
    "schema_name": ("public", None),
    "metadata_json_column": ("langchain_metadata", None),
    "content_column": ("content",),
    "embedding_column": ("embedding",),
    "id_column": ("langchain_id",),
    "metadata_columns": (None, []),
    "ignore_metadata_columns": (None, []),
    "hybrid_search_config": (None,),
    "index_query_options": (None,),
    "k": (4, None),
    "fetch_k": (20, None),
    "lambda_mult": (0.5, None),
}
_INSTEAD: Final = {
    "pre_delete_collection": "call store.core.drop() instead",
    "use_jsonb": "metadata is jsonb",
    "schema_name": "all tables are in the schema pgrecall; use collection=",
    "metadata_columns": "filters can use every key of the metadata",
    "ignore_metadata_columns": "all metadata is stored as JSON",
    "hybrid_search_config": "pass text_config='english' and mode='hybrid'",
    "fts_query": "the query itself is the text to search for; pass mode='hybrid'",
    "index_query_options": "searches choose their index by themselves",
    "k": "pass it to the search, or to as_retriever(search_kwargs={'k': …})",
    "fetch_k": "pass it to the search",
    "lambda_mult": "pass it to the search",
}


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a peer's arguments to `PGRecallVectorStore`'s. Raises ConfigurationError for one without a meaning."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name in _MEANINGLESS:
            if value not in _MEANINGLESS[name]:
                instead = _INSTEAD.get(name, "the schema has its own columns: leave it out")
                raise ConfigurationError(f"{name}={value!r:.60} has no meaning here; {instead}")
            continue
        ours = _NAMES.get(name, name)
        if ours in found:
            raise ConfigurationError(f"{name} and another argument both set {ours}; pass only one of them")
        found[ours] = _distance(value) if name == "distance_strategy" else value
    connection = found.get("connection")
    if type(connection).__name__ == "PGEngine":
        raise ConfigurationError(
            "connection is a PGEngine of langchain_postgres, which uses another driver (asyncpg); pass the URL, a "
            "pgrecall.Database, or SQLAlchemy engines with the driver psycopg"
        )
    return found


def _distance(strategy: object) -> str:
    # A member of an enumeration by its name; PGVector accepts strings too.
    name = str(getattr(strategy, "name", strategy)).lower()
    if name not in _DISTANCES:
        raise ConfigurationError(
            f"distance_strategy is {strategy!r:.60}; expected one of {', '.join(sorted(_DISTANCES))}"
        )
    return _DISTANCES[name]


def refuse_tenant(keywords: Mapping[str, Any], tenant: str) -> None:
    """Raise InvalidInput for a keyword that would choose a tenant."""
    for name in ("tenant", "tenant_id"):
        if name in keywords:
            raise InvalidInput(
                f"{name}={keywords[name]!r:.60} was given, but the store is bound to tenant {tenant!r}; use "
                "for_tenant(…) for a store of another tenant"
            )


def refuse(keywords: Mapping[str, Any], tenant: str, instead: str = "") -> None:
    """Raise InvalidInput for keywords that a call does not accept; none is ignored."""
    if keywords:
        refuse_tenant(keywords, tenant)
        name = next(iter(keywords))
        said = instead or _INSTEAD.get(name, "")
        raise InvalidInput(f"unexpected keyword argument {name!r:.60}; {said or 'leave it out'}")
