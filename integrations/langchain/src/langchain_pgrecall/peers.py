"""What LangChain's own Postgres stores take, where it means something here, and clear errors where it does not."""

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
#: Arguments that say how the peers keep their tables, with the values that change nothing for a caller here.
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
    "pre_delete_collection": "drop it by store.core.drop()",
    "use_jsonb": "metadata is jsonb",
    "schema_name": "all tables are in the schema pgrecall; name a collection",
    "metadata_columns": "every key of the metadata can be filtered without a column",
    "ignore_metadata_columns": "all metadata is kept as JSON",
    "hybrid_search_config": "pass text_config='english' and mode='hybrid'",
    "fts_query": "the query's own text is searched; pass mode='hybrid'",
    "index_query_options": "the search chooses its index by itself",
    "k": "pass it to the search, or as_retriever(search_kwargs={'k': …})",
    "fetch_k": "pass it to the search",
    "lambda_mult": "pass it to the search",
}


def arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """A peer's arguments as those of `PGRecallVectorStore`. Raises ConfigurationError where one has no meaning here."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name in _MEANINGLESS:
            if value not in _MEANINGLESS[name]:
                instead = _INSTEAD.get(name, "leave it out: the columns are the schema's own")
                raise ConfigurationError(f"{name}={value!r:.60} has no meaning here; {instead}")
            continue
        ours = _NAMES.get(name, name)
        if ours in found:
            raise ConfigurationError(f"{name} and another argument both say {ours}; pass one of them")
        found[ours] = _distance(value) if name == "distance_strategy" else value
    connection = found.get("connection")
    if type(connection).__name__ == "PGEngine":
        raise ConfigurationError(
            "a PGEngine of langchain_postgres runs another driver (asyncpg); pass the database's URL, a "
            "pgrecall.Database, or SQLAlchemy engines with the driver psycopg"
        )
    return found


def _distance(strategy: object) -> str:
    # An enumeration's member by its name; PGVector takes plain strings too.
    name = str(getattr(strategy, "name", strategy)).lower()
    if name not in _DISTANCES:
        raise ConfigurationError(
            f"distance_strategy is {strategy!r:.60}; expected one of {', '.join(sorted(_DISTANCES))}"
        )
    return _DISTANCES[name]


def refuse_tenant(keywords: Mapping[str, Any], tenant: str) -> None:
    """Refuse a keyword that would choose a tenant. Raises InvalidInput."""
    for name in ("tenant", "tenant_id"):
        if name in keywords:
            raise InvalidInput(
                f"{name}={keywords[name]!r:.60}: the store is bound to tenant {tenant!r}, and no call can choose "
                "another; for_tenant(…) gives a store of that tenant"
            )


def refuse(keywords: Mapping[str, Any], tenant: str, instead: str = "") -> None:
    """Refuse keywords that a call does not know: none is ignored. Raises InvalidInput."""
    if keywords:
        refuse_tenant(keywords, tenant)
        name = next(iter(keywords))
        said = instead or _INSTEAD.get(name, "")
        raise InvalidInput(f"the call does not know the keyword {name!r:.60}{said and f'; {said}'}")
