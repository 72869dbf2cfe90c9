"""A server's position in the write-ahead log, in bytes."""

# It runs after a COMMIT with the session's own search path, so every name is qualified. The position of the next record
# rather than of the last flush, which also covers commits that do not wait for their flush.
WRITTEN = """
SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0'::pg_catalog.pg_lsn)::pg_catalog.int8
"""

# A server that was promoted, or never was a replica, has everything that it wrote.
REPLAYED = """
SELECT pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery()
  THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END,
  '0/0'::pg_catalog.pg_lsn)::pg_catalog.int8
"""

#: For the doctor: whether this is a replica, its position, and how long it has been idle or behind.
STATE = """
SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text,
  extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8
"""
