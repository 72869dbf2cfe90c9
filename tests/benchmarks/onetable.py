"""The best design by hand without pgrecall's schema: one table, one HNSW index, a predicate on the tenant."""

from __future__ import annotations

from typing import Any

import psycopg
import sqlalchemy as sa
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb
from tests.benchmarks.corpora import Corpus, K
from tests.benchmarks.harness import analyze, dsn

NEAREST = """
SELECT id, text, metadata, embedding <=> %b AS distance FROM by_hand WHERE tenant_id = %s ORDER BY distance LIMIT %s"""


def fill(url: sa.URL, corpus: Corpus) -> None:
    """Fill the table by binary COPY, then build the index with as much memory as pgrecall's."""
    with psycopg.connect(dsn(url), autocommit=True) as connection:
        register_vector(connection)
        connection.execute(f"""
            CREATE TABLE by_hand (tenant_id text, id text, text text, metadata jsonb,
              embedding vector({corpus.space.dim}) STORAGE PLAIN, PRIMARY KEY (tenant_id, id))""")
        with (
            connection.cursor() as cursor,
            cursor.copy("COPY by_hand FROM STDIN (FORMAT BINARY)") as copy,
        ):
            copy.set_types(["text", "text", "text", "jsonb", "vector"])
            for row, (owner, vector) in enumerate(zip(corpus.owners, corpus.vectors, strict=True)):
                text = corpus.texts[row % len(corpus.texts)]
                copy.write_row((f"t{owner}", str(row), text, Jsonb({"n": row}), Vector(vector)))
        connection.execute("SET maintenance_work_mem = '1GB'")
        connection.execute("CREATE INDEX ON by_hand USING hnsw (embedding vector_cosine_ops)")
    analyze(url)


class Reader:
    """BEGIN, SET LOCAL, the query, COMMIT: a transaction, because the query needs a setting."""

    def __init__(self, url: sa.URL) -> None:
        self.connection = psycopg.connect(dsn(url), autocommit=True, prepare_threshold=None)
        register_vector(self.connection)

    def query(self, tenant: int, vector: Any) -> list[str]:
        """The ids of the nearest chunks. Their text and metadata are fetched too."""
        run = self.connection.execute
        run("BEGIN")
        run("SET LOCAL hnsw.iterative_scan = relaxed_order")
        rows = run(NEAREST, (Vector(vector), f"t{tenant}", K)).fetchall()
        run("COMMIT")
        return [row[0] for row in rows]
