"""SQL, and nothing else: texts with bound parameters, run by `tenancy`.

Every statement on tenant tables has `tenant_id = %(tenant)s` itself: with it row-level security costs nothing (a
One-Time Filter); alone, the policy is mis-planned.
"""
