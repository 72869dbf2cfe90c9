"""SQL, and nothing else: texts with bound parameters, run by `tenancy`.

Every statement on tenant tables has `tenant_id = %(tenant)s` itself: with it row-level security costs nothing (a
One-Time Filter); alone, the policy is mis-planned.

Citus takes them as they are, which is why, in UPDATE and DELETE, no stable function is given a column or stands in CASE
or COALESCE, none is volatile, RETURNING and DO UPDATE call immutable ones only, and INSERT … SELECT ends with one of
the two: else it becomes a COPY, which row-level security refuses. No statement reads catalogs beside tenant tables.
"""
