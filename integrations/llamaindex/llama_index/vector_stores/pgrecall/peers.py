"""What arguments of LlamaIndex's `PGVectorStore` mean here; what has no meaning is refused, with what to do instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from pgrecall import ConfigurationError, EmbedModel, EmbedSpace

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
