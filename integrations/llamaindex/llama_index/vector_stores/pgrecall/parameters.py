"""What a caller of LlamaIndex's interface may ask for, as the core's arguments; what has no meaning here is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import sqlalchemy as sa
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

from pgrecall import ConfigurationError, EmbedModel, EmbedSpace, Filter, InvalidInput

#: Peers' hints to an index, which say nothing of what is looked for; the core's router needs none.
_HINTS = ("hnsw_ef_search", "ivfflat_probes")
_MMR = ("mmr_threshold", "mmr_prefetch_factor", "mmr_prefetch_k")

_INSTEAD = {
    "async_connection_string": "leave it out: one URL serves both modes",
    "schema_name": "leave it out: the tables are in schema pgrecall",
    "cache_ok": "leave it out",
    "perform_setup": "leave it out: `pgrecall db upgrade` makes the tables",
    "debug": "leave it out, and set the logger 'pgrecall' to DEBUG",
    "use_jsonb": "leave it out: metadata is jsonb",
    "use_halfvec": "leave it out: vectors are in half precision",
    "hnsw_kwargs": "leave it out: graphs are made by `pgrecall maintain`; a distance is named by space=EmbedSpace(…)",
    "create_engine_kwargs": "make the engine yourself: PGRecallVectorStore(connection=engine, …)",
    "initialization_fail_on_error": "leave it out: errors are always raised",
    "indexed_metadata_keys": "leave it out: every key can be filtered by",
    "customize_query_fn": "leave it out: say it by filters",
}


def refuse(others: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for arguments of the peer's that have no meaning here, TypeError for unknown ones."""
    for name in others:
        if name not in _INSTEAD:
            raise TypeError(f"from_params() got an unexpected keyword argument {name!r}")
        raise ConfigurationError(f"{name} has no meaning in pgrecall; {_INSTEAD[name]}")


def url(
    host: str | None, port: str | int | None, database: str | None, user: str | None, password: str | None
) -> sa.URL | None:
    """The URL of these parts; None where none is given. Raises ConfigurationError."""
    if (host, port, database, user, password) == (None,) * 5:
        return None
    if port is not None and not str(port).isdecimal():
        raise ConfigurationError(f"port is {port!r:.40}; expected a number")
    number = None if port is None else int(port)
    return sa.URL.create("postgresql", user, password, host, number, database)


def check_dim(embed_dim: int | None, space: EmbedSpace | EmbedModel | None) -> None:
    """Raise ConfigurationError where the dimensions contradict the model's, or nothing says which model it is."""
    if space is None:
        raise ConfigurationError(
            "which model makes the embeddings is not said; pass embed_model= (the model, or a pgrecall.EmbedSpace)"
        )
    if embed_dim is not None and isinstance(space, EmbedSpace) and space.dim != embed_dim:
        raise ConfigurationError(f"embed_dim is {embed_dim}, but the model's space is {space}; leave embed_dim out")


@dataclass(frozen=True, slots=True)
class Asked:
    """A query as a verb of the core's store and its arguments."""

    verb: str
    arguments: dict[str, Any]

    @classmethod
    def of(
        cls,
        query: VectorStoreQuery,
        kwargs: Mapping[str, Any],
        filters: Filter | None,
        doc_ids: Sequence[str] | None,
    ) -> Self:
        """Raises InvalidInput for a mode that there is not, and for what a mode needs and the query lacks."""
        unknown = [name for name in kwargs if name not in (*_HINTS, *_MMR)]
        if unknown:
            raise TypeError(f"query() got an unexpected keyword argument {unknown[0]!r}")
        top_k, mode = query.similarity_top_k, query.mode
        arguments: dict[str, Any] = {"top_k": top_k, "filters": filters, "doc_ids": doc_ids}
        if mode in (VectorStoreQueryMode.SPARSE, VectorStoreQueryMode.TEXT_SEARCH):
            if query.sparse_top_k is not None:
                arguments["top_k"] = query.sparse_top_k
            return cls("query", {"text": _words(query), "mode": "sparse", **arguments})
        if mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.HYBRID, VectorStoreQueryMode.MMR):
            raise InvalidInput(
                f"query mode {getattr(mode, 'value', mode)!r} is not supported; expected default, sparse, text_search, "
                "hybrid or mmr"
            )
        if query.query_embedding is None:
            raise InvalidInput(f"the query has no embedding, which mode {mode.value!r} needs")
        arguments["vector"] = query.query_embedding
        if mode == VectorStoreQueryMode.HYBRID:
            if query.alpha is not None:
                import pgrecall

                arguments["fusion"] = pgrecall.Weighted(query.alpha)
            if query.hybrid_top_k is not None:  # then similarity_top_k is the vector's leg's alone
                arguments |= {"top_k": query.hybrid_top_k, "fetch_k": top_k}
            return cls("query", {"text": _words(query), "mode": "hybrid", "sparse_k": query.sparse_top_k, **arguments})
        if mode == VectorStoreQueryMode.MMR:
            return cls("query_mmr", arguments | _diversity(query, kwargs))
        return cls("query", arguments)

    def only(self, ids: Sequence[str] | None) -> Self:
        """The same among these chunks."""
        return replace(self, arguments={**self.arguments, "ids": ids})


def _words(query: VectorStoreQuery) -> str:
    if query.query_str is None:
        raise InvalidInput(f"the query has no text (query_str), which mode {query.mode.value!r} needs")
    return query.query_str


def _diversity(query: VectorStoreQuery, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    threshold = query.mmr_threshold if query.mmr_threshold is not None else kwargs.get("mmr_threshold")
    factor, prefetch = kwargs.get("mmr_prefetch_factor"), kwargs.get("mmr_prefetch_k")
    if factor is not None and prefetch is not None:
        raise InvalidInput("mmr_prefetch_factor and mmr_prefetch_k were both given; give one")
    arguments: dict[str, Any] = {} if threshold is None else {"lambda_mult": threshold}
    if prefetch is not None or factor is not None:
        arguments["fetch_k"] = prefetch if prefetch is not None else int(query.similarity_top_k * factor)
    return arguments
