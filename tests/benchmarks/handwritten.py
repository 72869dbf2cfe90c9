"""What an expert writes by hand with psycopg for the same tables, indexes, role and policies: the baseline.

It only inserts, checks nothing, and uses psycopg's and pgvector's own adapters in binary format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psycopg
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.types.json import Jsonb

from pgrecall import Chunk
from pgrecall.schema import WAITING

COLLECTION = "bench"

DOCUMENTS = """
INSERT INTO pgrecall.documents (tenant_id, collection, id)
SELECT %s, %s, i FROM unnest(%b::text[]) AS i ON CONFLICT DO NOTHING"""

_CHUNK_COLUMNS = "tenant_id, collection, id, doc_id, chunk_index, text, content_hash, metadata, text_search"
_SEARCH = {None: "NULL::tsvector", "english": "to_tsvector('english', {})"}


def _chunk_unnest(text_config: str | None) -> str:
    return f"""
INSERT INTO pgrecall.chunks ({_CHUNK_COLUMNS})
SELECT %s, %s, i.*, {_SEARCH[text_config].format("i.text")}
FROM unnest(%b::text[], %b::text[], %b::int4[], %b::text[], %b::bytea[], %b::jsonb[])
  AS i (id, doc_id, chunk_index, text, content_hash, metadata)"""


VECTOR_UNNEST = """
INSERT INTO pgrecall.chunk_vectors (tenant_id, collection, space_id, graph, chunk_id, embed_norm, embedding)
SELECT %s, %s, %s, %s, i.* FROM unnest(%b::text[], %b::float4[], %b::halfvec[]) AS i"""


def _chunk_values(text_config: str | None) -> str:
    last = {None: "NULL", "english": "to_tsvector('english', %(text)b)"}[text_config]
    return f"""
INSERT INTO pgrecall.chunks ({_CHUNK_COLUMNS})
VALUES (%(tenant)s, %(collection)s, %(id)s, %(doc)b, %(index)b, %(text)b, %(hash)b, %(metadata)b, {last})"""


VECTOR_VALUES = """
INSERT INTO pgrecall.chunk_vectors (tenant_id, collection, space_id, chunk_id, embed_norm, embedding)
VALUES (%s, %s, %s, %b, %b, %b)"""


def opening(tenant: str) -> str:
    """The two settings that row-level security needs."""
    setting = sql.SQL("SET LOCAL ROLE pgrecall_app; SET LOCAL pgrecall.tenant_id = {}").format(sql.Literal(tenant))
    return setting.as_string(None)


class Writer:
    """One connection that fills one collection, one transaction per batch. `way` is a method's name.

    `unnest` can insert the rows directly into the graph of the generation `graph`.
    """

    def __init__(
        self, dsn: str, tenant: str, space_id: int, way: str, text_config: str | None, *, graph: int = WAITING
    ) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True)
        register_vector(self.connection)
        self._tenant, self._space, self._opening = tenant, space_id, opening(tenant)
        self._text_config, self._graph = text_config, graph
        self._way: Callable[[Sequence[Chunk]], None] = getattr(self, way)

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Write a batch in one transaction."""
        with self.connection.transaction():
            self.connection.execute(self._opening)
            here = (self._tenant, COLLECTION)
            documents = sorted({c.doc_id for c in chunks})
            self.connection.execute(DOCUMENTS, (*here, documents))
            self._way(chunks)

    def unnest(self, chunks: Sequence[Chunk]) -> None:
        """Insert whole columns as arrays: two statements per batch."""
        here = (self._tenant, COLLECTION)
        columns: tuple[list[Any], ...] = (
            [c.id for c in chunks],
            [c.doc_id for c in chunks],
            [c.index for c in chunks],
            [c.text for c in chunks],
            [_hash(c) for c in chunks],
            [Jsonb(c.metadata) for c in chunks],
        )
        self.connection.execute(_chunk_unnest(self._text_config), (*here, *columns))
        norms = [_norm(c) for c in chunks]
        halves = [HalfVector(c.embedding) for c in chunks]
        self.connection.execute(VECTOR_UNNEST, (*here, self._space, self._graph, columns[0], norms, halves))

    def executemany(self, chunks: Sequence[Chunk]) -> None:
        """Insert row by row, pipelined by psycopg and prepared by the server."""
        with self.connection.cursor() as cursor:
            rows = [
                {
                    "tenant": self._tenant,
                    "collection": COLLECTION,
                    "id": c.id,
                    "doc": c.doc_id,
                    "index": c.index,
                    "text": c.text,
                    "hash": _hash(c),
                    "metadata": Jsonb(c.metadata),
                }
                for c in chunks
            ]
            cursor.executemany(_chunk_values(self._text_config), rows)
            here = (self._tenant, COLLECTION, self._space)
            cursor.executemany(VECTOR_VALUES, [(*here, c.id, _norm(c), HalfVector(c.embedding)) for c in chunks])

    def copy(self, chunks: Sequence[Chunk]) -> None:
        """Insert by binary COPY, through temporary tables, because Postgres refuses COPY under row-level security."""
        self.connection.execute("""
            CREATE TEMP TABLE new_chunks (id text, doc_id text, chunk_index int4, text text, hash bytea, metadata jsonb)
              ON COMMIT DROP;
            CREATE TEMP TABLE new_vectors (id text, norm float4, embedding halfvec) ON COMMIT DROP""")
        with self.connection.cursor() as cursor:
            with cursor.copy("COPY new_chunks FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["text", "text", "int4", "text", "bytea", "jsonb"])
                for c in chunks:
                    copy.write_row((c.id, c.doc_id, c.index, c.text, _hash(c), Jsonb(c.metadata)))
            with cursor.copy("COPY new_vectors FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["text", "float4", "halfvec"])
                for c in chunks:
                    copy.write_row((c.id, _norm(c), HalfVector(c.embedding)))
        here = (self._tenant, COLLECTION)
        search = _SEARCH[self._text_config].format("i.text")
        insert = f"INSERT INTO pgrecall.chunks ({_CHUNK_COLUMNS}) SELECT %s, %s, i.*, {search} FROM new_chunks i"
        self.connection.execute(insert, here)
        self.connection.execute(
            "INSERT INTO pgrecall.chunk_vectors (tenant_id, collection, space_id, chunk_id, embed_norm, embedding) "
            "SELECT %s, %s, %s, i.* FROM new_vectors i",
            (*here, self._space),
        )


def _hash(chunk: Chunk) -> bytes:
    return hashlib.sha256(chunk.text.encode()).digest()


def _norm(chunk: Chunk) -> float:
    return float(np.linalg.norm(np.asarray(chunk.embedding)))


_JOINED = """
SELECT n.chunk_id, n.distance, c.text, c.metadata, c.doc_id, c.chunk_index, d.source, d.uri
FROM near n
JOIN pgrecall.chunks c ON c.tenant_id = %s AND c.collection = %s AND c.id = n.chunk_id
LEFT JOIN pgrecall.documents d ON d.tenant_id = %s AND d.collection = %s AND d.id = c.doc_id
ORDER BY n.distance, n.chunk_id"""

NEAREST = f"""
WITH near AS MATERIALIZED (
  SELECT chunk_id, embedding <=> %b AS distance FROM pgrecall.chunk_vectors
  WHERE tenant_id = %s AND collection = %s AND space_id = %s AND graph >= 0 ORDER BY distance, chunk_id LIMIT %s)
{_JOINED}"""


def nearest_params(tenant: str, space_id: int, vector: Any, k: int) -> tuple[Any, ...]:
    """The parameters of NEAREST."""
    here = (tenant, COLLECTION)
    return (HalfVector(vector), *here, space_id, k, *here, *here)


class Reader:
    """A synchronous connection: BEGIN, SET LOCAL, the query, COMMIT."""

    def __init__(self, dsn: str, tenant: str, space_id: int) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=None)
        register_vector(self.connection)
        self._tenant, self._space, self._opening = tenant, space_id, opening(tenant)

    def query(self, vector: Any, k: int = 10) -> list[tuple[Any, ...]]:
        """The k nearest chunks."""
        run = self.connection.execute
        run("BEGIN")
        run(self._opening)
        rows = run(NEAREST, nearest_params(self._tenant, self._space, vector, k)).fetchall()
        run("COMMIT")
        return rows


class AsyncReader:
    """The same, but asynchronous."""

    def __init__(self, connection: psycopg.AsyncConnection, tenant: str, space_id: int) -> None:
        self.connection = connection
        self._tenant, self._space, self._opening = tenant, space_id, opening(tenant)

    async def query(self, vector: Any, k: int = 10) -> list[tuple[Any, ...]]:
        """The k nearest chunks."""
        run = self.connection.execute
        await run("BEGIN")
        await run(self._opening)
        cursor = await run(NEAREST, nearest_params(self._tenant, self._space, vector, k))
        rows = await cursor.fetchall()
        await run("COMMIT")
        return rows


class TenantsReader:
    """The same for any tenant, by an exact scan or by the graph of the space's generation."""

    def __init__(self, dsn: str, space_id: int, dim: int, generation: int) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=None)
        register_vector(self.connection)
        self._space = space_id
        # The numbers are literals, so that the planner can prove that the partial index applies.
        leg = f"""
            SELECT chunk_id, {{apart}} AS distance FROM pgrecall.chunk_vectors
            WHERE tenant_id = %s AND collection = %s AND space_id = {space_id} AND graph {{held}} {generation}
            ORDER BY distance LIMIT %s"""
        held = leg.format(apart=f"embedding::halfvec({dim}) <=> %b::halfvec({dim})", held="<=")
        waiting = leg.format(apart="embedding <=> %b::halfvec", held=">")
        self._by_graph = f"""
            WITH near AS MATERIALIZED (
              SELECT * FROM (({held}) UNION ALL ({waiting})) legs ORDER BY distance, chunk_id LIMIT %s)
            {_JOINED}"""

    def query(self, tenant: str, vector: Any, *, by_graph: bool, k: int = 10) -> list[str]:
        """The ids of the k nearest chunks."""
        run, here = self.connection.execute, (tenant, COLLECTION)
        run("BEGIN")
        if by_graph:
            run(f"{opening(tenant)}; SET LOCAL hnsw.ef_search = 100; SET LOCAL hnsw.iterative_scan = relaxed_order")
            leg = (HalfVector(vector), *here, k)
            rows = run(self._by_graph, (*leg, *leg, k, *here, *here)).fetchall()
        else:
            run(opening(tenant))
            rows = run(NEAREST, nearest_params(tenant, self._space, vector, k)).fetchall()
        run("COMMIT")
        return [row[0] for row in rows]
