"""Evidence: records the chunks that a run retrieved with their versions, and compares them with the current ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from pgrecall.errors import InvalidInput
from pgrecall.hits import Hit
from pgrecall.operations.chunks.packing import text_hash
from pgrecall.operations.registry import space_params
from pgrecall.operations.runs import verbs
from pgrecall.postgres import wire
from pgrecall.postgres.transactions import Gate
from pgrecall.runs import Evidence, EvidenceChunk
from pgrecall.statements import runs as sql
from pgrecall.types import EmbedSpace, Vector

_NO_SPACE: dict[str, Any] = dict.fromkeys(("provider", "model", "dim", "distance"))


class QueryHash(NamedTuple):
    """A query's hash, and whether it was a text or a vector."""

    hash: bytes
    kind: str


def asked(query: str | Vector) -> QueryHash:
    """The hash of a query: SHA-256 of a text's UTF-8 bytes, or of a vector's values as little-endian float32.

    Raises InvalidInput.
    """
    if isinstance(query, str):
        return QueryHash(hashlib.sha256(query.encode(errors="surrogatepass")).digest(), "text")
    try:
        values = np.asarray(query, dtype="<f4")
    except (ValueError, TypeError) as exc:
        raise InvalidInput(f"the query is {type(query).__name__}; expected a text or a vector") from exc
    if values.ndim != 1 or not len(values):
        raise InvalidInput(f"the query is {type(query).__name__} {query!r:.40}; expected a text or a vector")
    return QueryHash(hashlib.sha256(values.tobytes()).digest(), "vector")


def record(
    gate: Gate,
    place: verbs.RunPlace,
    run_id: str,
    query: QueryHash,
    hits: Sequence[Hit],
    *,
    collection: str,
    space: EmbedSpace | None,
) -> int:
    """Record a retrieval of a run, creating the run if it is new; returns the retrieval's `seq` in the run."""
    chunks = {
        "chunks": wire.text_array([h.chunk_id for h in hits]),
        "doc_ids": wire.text_array([h.doc_id for h in hits]),
        "hashes": wire.bytea_array([text_hash(h.text) for h in hits]),
        "scores": [float(h.score) for h in hits],
        "distances": [None if h.distance is None else float(h.distance) for h in hits],
    }
    where = {
        "collection": collection,
        "query_hash": query.hash,
        "query_kind": query.kind,
        **(_NO_SPACE if space is None else space_params(space)),
    }

    def body() -> int:
        with gate.transaction(place.scope, "run evidence") as tx:
            seq, now = verbs.next_seq(tx, place, run_id)
            own = place.at(run_id, seq=seq, now=now)
            tx.many([(sql.ADD_RETRIEVAL, own | where), (sql.ADD_EVIDENCE, own | chunks)], commit=True)
            return seq

    return gate.retrying(body)


def read(gate: Gate, place: verbs.RunPlace, run_id: str) -> list[Evidence]:
    """A run's retrievals, in order, each chunk compared with the current one."""
    rows = gate.read(place.scope, "run evidence", lambda tx: tx.last(sql.EVIDENCE, place.at(run_id)))
    found = []
    for (seq, collection, *space, query_hash, query_kind, created_at, space_now), group in groupby(
        rows, key=lambda row: row[:10]
    ):
        chunks = tuple(
            EvidenceChunk(rank, chunk_id, doc_id, content_hash.hex(), score, distance, now)
            for rank, chunk_id, doc_id, content_hash, score, distance, now in (row[10:] for row in group)
            if rank is not None
        )
        known = None if space[0] is None else EmbedSpace(*space)
        found.append(
            Evidence(run_id, seq, collection, known, space_now, query_hash.hex(), query_kind, created_at, chunks)
        )
    return found
