"""Arguments of LlamaIndex's `PGVectorStore`: what they mean here, or what to do instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from pgrecall import ConfigurationError, EmbedModel, EmbedSpace

_INSTEAD = {
    "async_connection_string": "leave it out: one URL serves synchronous and asynchronous calls",
    "schema_name": "leave it out: the tables are in schema pgrecall",
    "cache_ok": "leave it out",
    "perform_setup": "leave it out: `pgrecall db upgrade` creates the tables",
    "debug": "leave it out and set the logger 'pgrecall' to DEBUG",
    "use_jsonb": "leave it out: metadata is jsonb",
    "use_halfvec": "leave it out: vectors are in half precision",
    "hnsw_kwargs": "leave it out: `pgrecall maintain` builds the graphs; space=EmbedSpace(…) names the distance",
    "create_engine_kwargs": "create the engine yourself: PGRecallVectorStore(connection=engine, …)",
    "initialization_fail_on_error": "leave it out: errors are always raised",
    "indexed_metadata_keys": "leave it out: filters can use every key",
    "customize_query_fn": "leave it out and use filters",
}


def refuse(others: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for arguments of the peer that have no meaning here, TypeError for unknown ones."""
    for name in others:
        if name not in _INSTEAD:
            raise TypeError(f"from_params() got an unexpected keyword argument {name!r}")
        raise ConfigurationError(f"{name} has no meaning in pgrecall; {_INSTEAD[name]}")


def url(
    host: str | None, port: str | int | None, database: str | None, user: str | None, password: str | None
) -> sa.URL | None:
    """Return the URL of these parts, None if all of them are None. Raises ConfigurationError."""
    if (host, port, database, user, password) == (None,) * 5:
        return None
    if port is not None and not str(port).isdecimal():
        raise ConfigurationError(f"port is {port!r:.40}; expected a number")
    number = None if port is None else int(port)
    return sa.URL.create("postgresql", user, password, host, number, database)


def check_dim(embed_dim: int | None, space: EmbedSpace | EmbedModel | None) -> None:
    """Raise ConfigurationError if the model is unknown, or has other dimensions."""
    if space is None:
        raise ConfigurationError(
            "no embedding model was given; expected embed_model=, a LlamaIndex embedding model or a pgrecall.EmbedSpace"
        )
    if embed_dim is not None and isinstance(space, EmbedSpace) and space.dim != embed_dim:
        raise ConfigurationError(f"embed_dim is {embed_dim}, but the model's space is {space}; leave embed_dim out")
