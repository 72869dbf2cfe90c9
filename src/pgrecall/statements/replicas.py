"""Where a server's log stands, in bytes."""

# Behind a COMMIT, so with the session's own search path: everything is named in full. Where the next record will be
# put, not what was flushed: a commit that does not wait for its flush is covered too.
WRITTEN = """
SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0'::pg_catalog.pg_lsn)::pg_catalog.int8
"""

# A server that was promoted, or never was a replica, has what it wrote itself.
REPLAYED = """
SELECT pg_catalog.pg_wal_lsn_diff(CASE WHEN pg_catalog.pg_is_in_recovery()
  THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END,
  '0/0'::pg_catalog.pg_lsn)::pg_catalog.int8
"""

#: For the doctor: whether this is a replica, how far it is, and for how long it has been idle or behind.
STATE = """
SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn()::text,
  extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8
"""
