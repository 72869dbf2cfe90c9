"""SQL, and nothing else: texts with bound parameters, which transactions run.

Every statement on tenant tables has its own `tenant_id = %(tenant)s`. With it row-level security costs nothing (a
One-Time Filter). Without it Postgres makes a bad plan from the policy alone.

The same statements run on Citus, which requires: in UPDATE and DELETE no stable function has a column as argument or is
in CASE or COALESCE, and none is volatile; RETURNING and DO UPDATE call immutable functions only; INSERT … SELECT ends
with RETURNING or DO UPDATE, else it becomes a COPY, which row-level security refuses. No statement reads catalogs
together with tenant tables.
"""
