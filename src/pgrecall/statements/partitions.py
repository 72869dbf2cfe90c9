"""Hash partitions by tenant: recreates the empty large tables with the same columns, keys, policies and grants.

A statement with a tenant condition is planned for one partition, because the tenant is a constant for the planner.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from pgrecall.schema import (
    SCHEMA,
    chat_messages,
    chunk_keys,
    chunk_vectors,
    chunks,
    documents,
    fact_vectors,
    memory_facts,
)
from pgrecall.statements import ddl

#: The tables that grow with what tenants store, parents first. No other table refers to them.
PARTITIONED = (documents, chunks, chunk_vectors, chunk_keys, memory_facts, fact_vectors, chat_messages)
MOST = 1_000

#: The number of partitions of the vectors; no row if they are one table.
COUNT = """
SELECT count(*)::int FROM pg_catalog.pg_inherits i
WHERE i.inhparent = (
  SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname = 'pgrecall' AND c.relname = 'chunk_vectors' AND c.relkind = 'p')
HAVING count(*) > 0
"""


def loosen() -> Iterator[str]:
    """Lock the tables, and let their owner see every row, which forced row-level security would hide."""
    names = ", ".join(f"{SCHEMA}.{table.name}" for table in PARTITIONED)
    yield f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"
    for table in PARTITIONED:
        yield f"ALTER TABLE {SCHEMA}.{table.name} NO FORCE ROW LEVEL SECURITY"


#: Whether any of the tables has a row.
FILLED = sa.select(sa.or_(*(sa.select(sa.true()).select_from(table).exists() for table in PARTITIONED)))


def make(count: int) -> Iterator[str]:
    """Replace the tables, which must be empty, with tables of `count` partitions each."""
    yield ddl.drop_view("chunk_embeddings")
    yield f"DROP TABLE {', '.join(f'{SCHEMA}.{table.name}' for table in reversed(PARTITIONED))}"
    for table in PARTITIONED:
        yield ddl.create_table(table, "HASH (tenant_id)")
        yield from ddl.completing(table)
        for number in range(count):
            part = f"{table.name}_p{number}"
            yield (
                f"CREATE TABLE {SCHEMA}.{part} PARTITION OF {SCHEMA}.{table.name} "
                f"FOR VALUES WITH (MODULUS {count}, REMAINDER {number})"
            )
            # Nobody has rights on a partition itself. Even if somebody had, there is no policy that shows a row.
            yield from ddl.force_row_security(part)
        yield from ddl.force_row_security(table.name)
        yield from ddl.create_policies(table.name)
        yield from ddl.grants(table.name)
    yield from ddl.create_view("chunk_embeddings")
